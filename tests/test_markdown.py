"""A report as one page: the same content, its pictures inside, and nothing that asks for more."""

import base64
import io

import pytest
from PIL import Image
from reading_html import Page, assert_whole

from imagenet_jax import markdown


def page_of(tmp_path, text):
    markdown.write(tmp_path / "report.md", text)
    assert (tmp_path / "report.md").read_text() == text
    return assert_whole((tmp_path / "report.html").read_text())


def test_pictures_are_inside_and_what_is_no_picture_of_the_folder_is_not(tmp_path):
    (tmp_path / "out").mkdir()
    Image.new("RGB", (8, 6), "red").save(tmp_path / "out/a picture.png")
    Image.new("RGB", (8, 6), "blue").save(tmp_path / "outside.png")
    (tmp_path / "out/secret.txt").write_text("secret")
    page = page_of(tmp_path / "out", "![curves <of> it](<a picture.png>)\n\n![up](../outside.png) ![text](secret.txt) "
                   "![lost](lost.png) ![far](https://example.com/x.png)\n")
    (picture,) = page.all("img")
    assert picture["alt"] == "curves <of> it"
    kind, encoded = picture["src"].split(",")
    assert kind == "data:image/png;base64"
    assert Image.open(io.BytesIO(base64.b64decode(encoded))).getpixel((0, 0)) == (255, 0, 0)
    assert all(word in page.words for word in ("up", "text", "lost", "far"))


def test_headings_are_where_links_lead_and_the_first_is_the_title(tmp_path):
    page = page_of(tmp_path, "# A & B\n\n[there](#worst-classes-2-of-3)\n\n## Worst classes (2 of 3)\n\n"
                   "## Time\n\n## Time\n")
    assert [heading["id"] for heading in page.all("h2")] == ["worst-classes-2-of-3", "time", "time-1"]
    assert page.words.count("A & B") == 2 and page.all("h1")[0]["id"] == "a--b"


def test_tables_are_told_by_their_headers(tmp_path):
    text = markdown.table(("split", "top-1", "of"), [("val", "76.1%", "50,000"), ("train", "80.0%", "7")])
    assert len({len(line) for line in text.splitlines()}) == 1
    page = page_of(tmp_path, text + "\n")
    assert [header["scope"] for header in page.all("th")] == ["col"] * 3 + ["row"] * 2
    assert len(page.all("td")) == 4 and "right" in page.all("td")[0]["style"]
    assert page_of(tmp_path, markdown.table(("nothing", "here"), []) + "\n").all("table")


@pytest.mark.parametrize("name", [
    "<script>alert(1)</script>", "![x](https://example.com/x.png)", "[x](https://example.com)", "[x]: https://example.com",
    "[[x](y)](z)", "[1.0, 2]", "a|b", "*n*_1_`2`", "<https://example.com>", "a\\", "_x_", "__x__y", "a_b_c.JPEG",
    "&lt;", "~~x~~", "# x", '"><img src=x>'])
def test_names_stand_for_themselves(tmp_path, name):
    text = f"# {markdown.plain(name)}\n\n" + markdown.table(("file", "n"), [(markdown.plain(name), "1")])
    page = page_of(tmp_path, f"{text}\n\n- {markdown.plain(name)}, taken for **{markdown.plain(name)}**\n")
    assert page.words.count(name) == 5  # the title, too
    assert not {tag for tag, _ in page.tags} & {"img", "a", "em", "code", "s", "h2", "script"}


def test_what_nobody_escaped_does_no_harm(tmp_path):
    text = "# x\n\n<img src='https://example.com/x.png'> ![y](https://example.com/y.png) <script>alert(1)</script>\n"
    assert not page_of(tmp_path, text).all("img")


def test_a_page_that_is_not_closed_is_noticed():
    with pytest.raises(AssertionError):
        Page("<p><b>x</p>")
