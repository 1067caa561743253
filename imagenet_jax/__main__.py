"""`python -m imagenet_jax COMMAND`: one command a file in `commands/`, imported only when it is chosen."""

import ast
import difflib
import functools
import importlib
import os
import pathlib
import re
import signal
import sys
import textwrap
from types import ModuleType
from typing import Any

from imagenet_jax import runtime
from imagenet_jax.errors import UserError, out_of_memory

COMMANDS = pathlib.Path(__file__).parent / "commands"
_WIDTH = 120  # columns of help


def main() -> None:
    """Runs a command; a user's mistake ends with its message and exit code 2."""
    names = sorted(path.stem for path in COMMANDS.glob("[a-z]*.py"))
    name = sys.argv[1] if len(sys.argv) > 1 else "--help"
    if name in ("--help", "-h", "help"):
        print(_help(names))
        return
    if name not in names:
        close = difflib.get_close_matches(name, names, 1)
        hint = f"did you mean {close[0]!r}?" if close else f"there is {', '.join(names)}"
        _fail(f"there is no command {name!r}; {hint}")
    runtime.quiet()
    command = importlib.import_module(f"imagenet_jax.commands.{name}")
    from absl import app

    try:
        argv = [f"python -m imagenet_jax {name}", *sys.argv[2:]]
        app.run(command.main, argv, functools.partial(_parse_flags, command))
    except UserError as error:
        _fail(str(error))
    except BrokenPipeError:  # `| head` has seen enough; Python flushes once more as it ends
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(128 + signal.SIGPIPE)
    except OSError as error:  # no room, no permission, not a directory: what the system says of it is the message
        if error.strerror is None:
            raise
        _fail(f"{error.filename or name}: {error.strerror}")
    except RuntimeError as error:  # as JAX's are
        if message := out_of_memory(error):
            _fail(message)
        raise


def _parse_flags(command: ModuleType, argv: list[str]) -> list[str]:
    """Parses absl flags; any mistake in them becomes a UserError that names the flag."""
    from absl import flags, logging

    if {"--help", "-h", "-help"} & set(argv):
        print(_command_help(command))
        sys.exit(0)
    for arg in argv:
        path = pathlib.Path(arg.removeprefix("--config=").split(":")[0])
        if arg.startswith("--config=") and not path.is_file():
            there = ", ".join(str(other) for other in sorted(path.parent.glob("*.py"))) or "nothing there"
            raise UserError(f"there is no recipe {path}; there is {there}")
    try:
        rest = flags.FLAGS(argv)
    except flags.UnrecognizedFlagError as error:
        close = difflib.get_close_matches(error.flagname, [*command_flags(command)], 1)
        hint = f"; did you mean --{close[0]}?" if close else ""
        raise UserError(f"there is no flag --{error.flagname}{hint}") from error
    except flags.Error as error:
        raise UserError(str(error)) from error
    except (KeyError, AttributeError) as error:  # ml_collections: an override of a key that does not exist
        raise UserError(_unknown_key(argv, str(error.args[0]))) from error
    if not flags.FLAGS["verbosity"].present:
        logging.set_verbosity(logging.WARNING)  # libraries tell a lot; what we have to say is printed
    if rest[1:] and not hasattr(command, "ARGUMENTS"):
        raise UserError(f"{rest[1]!r} belongs to no flag; write --flag=value")
    return rest


def command_flags(command: ModuleType) -> dict[str, Any]:
    """The flags that a command defines, by name, in the order of their definitions."""
    from absl import flags

    return {flag.name: flag for flag in flags.FLAGS.flags_by_module_dict().get(command.__name__, [])}


def _command_help(command: ModuleType) -> str:
    name, found = command.__name__.rpartition(".")[2], command_flags(command)
    arguments = f" {command.ARGUMENTS}" if hasattr(command, "ARGUMENTS") else ""
    lines = [f"usage: python -m imagenet_jax {name}{arguments} [--flag=value ...]", "", command.__doc__.strip(), ""]
    for flag in found.values():
        what = f"--{'[no]' * (flag.default is True)}{flag.name}"
        default = f" Default: {flag.default}." if flag.default and flag.default is not True else ""
        lines.append(textwrap.fill(f"  {what:19} {flag.help}{default}", _WIDTH, subsequent_indent=" " * 22,
                                   break_on_hyphens=False))
    if "config" in found:
        lines += ["  --config.KEY=VALUE  Another value for a key of the recipe, --config.dataset.dir=DATASET perhaps.",
                  f"{' ' * 22}All keys and what they mean: imagenet_jax/config/__init__.py."]
    return "\n".join(lines)


def _unknown_key(argv: list[str], message: str) -> str:
    """Which override names no key, and the nearest one that exists."""
    words = re.findall(r"""['"]([^'"]+)['"]""", message)
    override = next((arg for arg in argv if arg.startswith("--config.") and words and words[0] in arg), "")
    hint = f"; did you mean {words[1]!r}?" if len(words) > 1 else "; imagenet_jax/config/__init__.py lists every key"
    return f"{override}: the config has no key {words[0] if words else message!r}{hint}"


def _help(names: list[str]) -> str:
    lines = ["usage: python -m imagenet_jax COMMAND [--flag=value ...]", ""]
    for name in names:
        docstring = ast.get_docstring(ast.parse((COMMANDS / f"{name}.py").read_text())) or ""
        lines.append(f"  {name:13} {docstring.splitlines()[0]}")
    return "\n".join([*lines, "", "python -m imagenet_jax COMMAND --help lists the flags of a command."])


def _fail(message: str) -> None:
    print(f"error: {message}", file=sys.stderr)
    sys.exit(2)


if __name__ == "__main__":
    main()
