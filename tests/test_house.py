"""The house stands: imports run down its floors, what only one room may import stays there, and it is in style."""

import ast
import functools
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

HERE = Path(__file__).parents[1]
FLOORS = [  # from the ground; a room imports lower floors and itself
    ["durable", "errors", "markdown", "runtime", "trees"],
    ["checkpoint", "classes", "config", "dataset", "hosts", "jpeg", "models"],
    ["cleaning", "evaluation", "input", "prepare", "transfer"],
    ["training"],
    ["inference"],
    ["__main__", "commands"],
]
FLOOR = {room: floor for floor, rooms in enumerate(FLOORS) for room in rooms}
ONLY = {"tensorflow": "input", "orbax": "checkpoint", "faiss": "inference"}  # module: the one room that imports it
FILES = sorted((HERE / "imagenet_jax").rglob("*.py"))


@functools.cache
def imported(path: Path) -> set[str]:
    """Dotted names of all modules, and of all that is taken from them, that a file imports, wherever in it."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, f"{path}: imports are absolute here"
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return names


def room_of(path: Path) -> str:
    return path.relative_to(HERE / "imagenet_jax").parts[0].removesuffix(".py")


def rooms_imported(path: Path) -> set[str]:
    return {name.split(".")[1] for name in imported(path) if name.startswith("imagenet_jax.")}


def test_every_room_has_a_floor() -> None:
    assert {room_of(path) for path in FILES} - {"__init__"} == FLOOR.keys()


def test_no_room_imports_one_that_is_not_below_it() -> None:
    up = [(str(path.relative_to(HERE)), room) for path in FILES for room in rooms_imported(path)
          if room != room_of(path) and FLOOR[room] >= FLOOR.get(room_of(path), -1)]
    assert not up


@pytest.mark.parametrize("module", ONLY)
def test_what_one_room_alone_imports(module) -> None:
    importing = {room_of(path) for path in FILES if any(name.split(".")[0] == module for name in imported(path))}
    assert importing == {ONLY[module]}


def test_no_circle_inside_a_room() -> None:
    names = {".".join(path.relative_to(HERE).with_suffix("").parts).removesuffix(".__init__"): path for path in FILES}
    arrows = {name: {taken if taken in names else taken.rpartition(".")[0] for taken in imported(path)} & names.keys()
              for name, path in names.items()}
    while free := [name for name, others in arrows.items() if not others & arrows.keys()]:
        for name in free:
            del arrows[name]
    assert not arrows


def test_recipes_choose_and_nothing_else() -> None:
    for path in (HERE / "configs").glob("*.py"):
        assert {name.split(".")[0] for name in imported(path)} <= {"imagenet_jax", "ml_collections"}, path
        assert rooms_imported(path) <= {"config"}, path


def test_style() -> None:
    ruff = subprocess.run([sys.executable, "-m", "ruff", "check", "--no-cache", HERE], capture_output=True, text=True)
    assert ruff.returncode == 0, ruff.stdout


def test_what_is_no_code_is_installed_with_it() -> None:
    patterns = tomllib.loads((HERE / "pyproject.toml").read_text())["tool"]["setuptools"]["package-data"]["*"]
    data = [path for path in (HERE / "imagenet_jax").rglob("*.*") if path.suffix not in (".py", ".pyc")]
    assert data and all(any(path.match(pattern) for pattern in patterns) for path in data)
