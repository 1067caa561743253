"""Reports: Markdown, and beside each the same as one HTML file that needs nothing else.

The page is made from the Markdown, has its pictures inside, and asks for nothing from outside, whatever the names of
files and classes in it are.
"""

import base64
import html
import mimetypes
import os
import pathlib
import re
from collections import Counter
from collections.abc import Sequence
from urllib.parse import unquote

from markdown_it import MarkdownIt
from markdown_it.token import Token

# Brackets alone are plain, and so is _ inside a word.
_SPECIAL = re.compile(r"([\\`*<>|#&~]|\](?=[(\[:])|(?<![^\W_])_|_(?![^\W_]))")
_PAGE = """<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; img-src data:; style-src 'unsafe-inline'">
<title>{title}</title>
<style>
{style}</style>
</head>
<body>
<main>
{body}</main>
</body>
</html>
"""


def write(path: str | os.PathLike[str], text: str) -> None:
    """Writes a report, PATH.md, and its page, PATH.html; the pictures it shows lie in its folder or below."""
    path = pathlib.Path(path)
    path.write_text(text, encoding="utf-8")
    path.with_suffix(".html").write_text(page(text, path.parent), encoding="utf-8")


def plain(text: str) -> str:
    """Words that stand for themselves, whatever they mean in Markdown; in one line."""
    return _SPECIAL.sub(r"\\\1", " ".join(text.split()))


def table(header: Sequence[str], rows: Sequence[Sequence[str]], words: int = 1) -> str:
    """A table of cells in Markdown, padded so that it reads well in a terminal, too.

    words: how many columns, from the left, are no numbers.
    """
    widths = [max(map(len, column)) for column in zip(header, *rows, strict=True)]
    rule = ["-" * (width + 2) if i < words else "-" * (width + 1) + ":" for i, width in enumerate(widths)]

    def line(row: Sequence[str]) -> str:
        return "| " + " | ".join(cell.ljust(width) if i < words else cell.rjust(width)
                                 for i, (cell, width) in enumerate(zip(row, widths, strict=True))) + " |"

    return "\n".join([line(header), "|" + "|".join(rule) + "|", *map(line, rows)])


def page(text: str, folder: str | os.PathLike[str]) -> str:
    """Markdown as an HTML page; pictures are looked for in `folder`, and what is not there stays words.

    Headings have GitHub's anchors: `[Time](#time)` leads to `## Time`.
    """
    parser = MarkdownIt("commonmark", {"html": False, "xhtmlOut": False}).enable("table")
    parser.add_render_rule("table_open", lambda *_: '<div class="wide" tabindex="0">\n<table>\n')
    parser.add_render_rule("table_close", lambda *_: "</table>\n</div>\n")
    tokens = parser.parse(text)
    titles = _anchor(tokens)
    _scope(tokens)
    for token in tokens:
        for child in token.children or ():
            if child.type == "image":
                _embed(child, os.path.realpath(folder))
    style = pathlib.Path(__file__).with_name("markdown.css").read_text(encoding="utf-8")
    return _PAGE.format(title=html.escape(titles[0] if titles else "report"), style=style,
                        body=parser.renderer.render(tokens, parser.options, {}))


def _anchor(tokens: Sequence[Token]) -> list[str]:
    """Names every heading by its words; returns those."""
    titles, seen = [], Counter()
    for token, inside in zip(tokens, tokens[1:], strict=False):
        if token.type == "heading_open":
            titles.append("".join(child.content for child in inside.children))
            slug = re.sub(r"[^\w\- ]", "", titles[-1].lower()).replace(" ", "-")
            token.attrSet("id", f"{slug}-{seen[slug]}" if seen[slug] else slug)
            seen[slug] += 1
    return titles


def _scope(tokens: Sequence[Token]) -> None:
    """Tells which cells a header is of; the first cell of a row is one."""
    for i, token in enumerate(tokens):
        if token.type == "th_open":
            token.attrSet("scope", "col")
        elif token.type == "td_open" and tokens[i - 1].type == "tr_open":
            token.tag = tokens[i + 2].tag = "th"  # it opens, has words, closes
            token.attrSet("scope", "row")


def _embed(image: Token, folder: str) -> None:
    """Puts a picture of the folder into its place; of any other only the words stay."""
    path = os.path.realpath(os.path.join(folder, unquote(str(image.attrs["src"]))))
    kind = mimetypes.guess_type(path)[0] or ""
    if kind.startswith("image/") and path.startswith(folder + os.sep) and os.path.isfile(path):
        encoded = base64.b64encode(pathlib.Path(path).read_bytes()).decode()
        image.attrSet("src", f"data:{kind};base64,{encoded}")
    else:
        image.type = "text"
