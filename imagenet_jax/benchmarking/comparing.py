"""Two results of `benchmark --out=FILE`, beside each other: what was otherwise, and what came of it."""

import json
import re
from collections.abc import Iterator
from typing import Any

from imagenet_jax.errors import UserError

# What is not measured. A figure that says how it was computed (peak, memory, macs) follows from these.
_SETTING = ("config", "device", "versions", "xla_flags", "topic", "topology", "vs", "dataset", "augment", "batch",
            "seconds", "cores")


def read(path: str) -> dict[str, Any]:
    """The figures in a file; of FILE.jsonl those of its last line, of FILE.jsonl:N of another.

    Raises:
        UserError: it cannot be read, has no such line, or is none that `benchmark` wrote.
    """
    history = re.fullmatch(r"(.*\.jsonl)(?::(-?\d+))?", path)
    try:
        with open(history[1] if history else path, encoding="utf-8") as file:
            text = file.read()
        if history:
            lines, number = text.splitlines(), int(history[2] or -1)
            if not 1 <= abs(number) <= len(lines):
                raise UserError(f"{path}: {history[1]} has {len(lines)} results, 1 to {len(lines)}")
            text = lines[number - (number > 0)]
        found = json.loads(text)
    except (OSError, ValueError) as error:
        raise UserError(f"{path} cannot be read as a result of `benchmark --out={path}`: {error}") from error
    if not isinstance(found, dict) or not {"config", "augment"} & found.keys():
        raise UserError(f"{path} is no result of `benchmark --out=FILE`")
    return found


def words(first: dict[str, Any], second: dict[str, Any]) -> str:
    """What differs, first the setting; of each figure, how many times that of the first the second is."""
    a, b = (dict(_flat(found)) for found in (first, second))
    lines, figures = ["What was otherwise:"], []
    for key in {**a, **b}:  # as they are written
        old, new = a.get(key, "-"), b.get(key, "-")
        if key.partition(".")[0] in _SETTING:
            if old != new:
                lines.append(f"  {key}: {old} -> {new}")
        elif _is_number(old) and _is_number(new) and old:
            figures.append(f"{_cell(old):>14}{_cell(new):>14}{new / old:10.3f}  {key}")
        elif old != new:
            figures.append(f"{_cell(old):>14}{_cell(new):>14}{'-':>10}  {key}")
    if len(lines) == 1:
        lines = ["Nothing was otherwise."]
    return "\n".join([*lines, f"{'first':>14}{'second':>14}{'times':>10}", *figures])


def _is_number(value: Any) -> bool:
    return isinstance(value, float | int) and not isinstance(value, bool)


def _cell(value: Any) -> str:
    if not _is_number(value):
        return str(value)
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}"


def _flat(found: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """(path, value) of all that is in lists and dicts; stages go by their names."""
    if isinstance(found, list) and found and all(isinstance(each, dict) for each in found):
        found = {str(each.get("name", each.get("batch", i))): each for i, each in enumerate(found)}
    if isinstance(found, dict):
        for key, value in found.items():
            yield from _flat(value, f"{prefix}.{key}" if prefix else key)
    else:
        yield prefix, found
