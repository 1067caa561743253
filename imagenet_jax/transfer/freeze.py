"""Which parameters stay as they are: path patterns split a tree in two and join it again.

A path is the '/'-joined name of a parameter, as `layer1_0/conv1/kernel`. A pattern is a regular expression that is
searched for anywhere in a path; `^` and `$` tie it to the ends. A pattern that starts with `!` is an exception: what it
matches is trained. With exceptions alone everything else is frozen, so that ('!^head/',) trains the head only,
('^conv1/', '^bn1/', '^layer1_') freezes the stem and the first stage, and ('^layer', '!/bn') freezes the convolutions
of the stages.
"""

import difflib
import re
from typing import Any

from flax import traverse_util

from imagenet_jax.errors import UserError


def is_frozen(path: str, patterns: tuple[str, ...]) -> bool:
    """Tells whether the parameter at a path is frozen; without patterns none is.

    Raises:
        re.error: a pattern is not a regular expression (`split` tells that as a UserError).
    """
    exceptions = [pattern[1:] for pattern in patterns if pattern.startswith("!")]
    chosen = [pattern for pattern in patterns if not pattern.startswith("!")]
    if not patterns or any(re.search(pattern, path) for pattern in exceptions):
        return False
    return not chosen or any(re.search(pattern, path) for pattern in chosen)


def split(params: dict[str, Any], patterns: tuple[str, ...]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Splits nested parameters by path; looks at names only, so it may run inside jit.

    Args:
        params: nested dicts of arrays.
        patterns: what to freeze, see the module's docstring.

    Returns:
        The trainable and the frozen leaves, each a flat dict by '/'-joined path.

    Raises:
        UserError: a pattern is not a regular expression or matches no path, or nothing is left.
    """
    flat = traverse_util.flatten_dict(params, sep="/")
    for pattern in patterns:
        check_pattern("freeze", pattern, list(flat))
    frozen = {path: leaf for path, leaf in flat.items() if is_frozen(path, patterns)}
    trainable = {path: leaf for path, leaf in flat.items() if path not in frozen}
    if not trainable:
        raise UserError(f"freeze={patterns} freezes every parameter: nothing is left to train")
    return trainable, frozen


def merge(trainable: dict[str, Any], frozen: dict[str, Any]) -> dict[str, Any]:
    """Joins what `split` took apart into nested dicts."""
    return traverse_util.unflatten_dict({**trainable, **frozen}, sep="/")


def check_pattern(key: str, pattern: str, paths: list[str]) -> None:
    """Raises UserError if the pattern of config.`key` is no regular expression or matches none of the paths."""
    try:
        search = re.compile(pattern.removeprefix("!")).search
    except re.error as error:
        raise UserError(f"{key}: {pattern!r} is not a regular expression: {error}") from error
    if any(search(path) for path in paths):
        return
    parts = {"/".join(path.split("/")[:depth]) for path in paths for depth in (1, 2, 3)}
    words = "".join(re.findall(r"[\w/]", pattern))
    near = difflib.get_close_matches(words, sorted(parts), n=3, cutoff=0)
    raise UserError(f"{key}: {pattern!r} matches no parameter; the nearest are {', '.join(near)}")
