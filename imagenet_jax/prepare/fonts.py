"""Fonts for the names of classes in pictures: what no font here can draw is escaped, never an empty box."""

import functools
from collections.abc import Iterable
from pathlib import Path

from PIL import ImageFont

_SIZE = 13  # px


def choose(texts: Iterable[str]) -> tuple[ImageFont.FreeTypeFont, frozenset[str]]:
    """The font that draws the most of some texts, and the characters beyond ASCII that it has.

    Pillow's own if they are ASCII, else one of the system's or of Matplotlib's.
    """
    wanted = frozenset(character for text in texts for character in text if not character.isascii())
    best, drawn = "", frozenset()
    for path in _fonts() if wanted else ():
        found = wanted & _characters(path)
        if len(found) > len(drawn):
            best, drawn = path, found
            if drawn == wanted:
                break
    return (ImageFont.truetype(best, _SIZE) if best else ImageFont.load_default(_SIZE)), drawn


def drawable(text: str, drawn: frozenset[str]) -> str:
    """A text with each character escaped that is neither ASCII nor among those drawn."""
    return "".join(character if character.isascii() or character in drawn else
                   character.encode("ascii", "backslashreplace").decode() for character in text)


@functools.cache
def _fonts() -> tuple[str, ...]:
    """Files of fonts that Matplotlib and Pillow read, plain sans serifs first."""
    import matplotlib
    from matplotlib.font_manager import findSystemFonts

    own = map(str, (Path(matplotlib.get_data_path()) / "fonts" / "ttf").glob("DejaVuSans*.ttf"))
    return tuple(sorted({*own, *findSystemFonts()}, key=lambda path: (not _is_plain(path), path)))


def _is_plain(path: str) -> bool:
    name = Path(path).stem.lower()
    return "sans" in name and not any(style in name for style in ("bold", "italic", "oblique", "mono", "light"))


def _characters(path: str) -> frozenset[str]:
    from matplotlib.ft2font import FT2Font

    try:
        return frozenset(map(chr, FT2Font(path).get_charmap()))
    except (RuntimeError, OSError, ValueError):  # a bitmap font, or a damaged one
        return frozenset()
