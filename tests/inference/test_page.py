"""The page of `serve` is for those, too, who use a keyboard, a screen reader or a phone."""

import re
from pathlib import Path

import pytest
from reading_html import Page

from imagenet_jax.inference import serving

TEXT = (Path(serving.__file__).parent / "page.html").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def page():
    return Page(TEXT)


def test_the_chooser_has_a_name_and_takes_the_focus(page):
    label = Page(re.search("<label.*?</label>", TEXT, re.DOTALL)[0])
    (chooser,) = label.all("input")
    assert chooser == {"type": "file", "id": "file", "accept": "image/*"} and "Choose a photograph" in label.words
    assert page.all("input") == [chooser] and not [tag for tag, attributes in page.tags if "tabindex" in attributes]
    assert re.search(r"\.drop:focus-within \{ outline: \d+px solid", TEXT)
    assert not re.search(r"\.drop input \{[^}]*(display: none|visibility: hidden)", TEXT)


def test_what_comes_is_announced(page):
    live = [attributes for _, attributes in page.tags if attributes.get("role") in ("status", "alert")]
    assert [attributes["role"] for attributes in live] == ["status", "alert"]
    assert not any("hidden" in attributes for attributes in live)  # a region is live if it was there before
    assert re.search(r'<div role="alert"><p id="error"[^>]* hidden></p></div>', TEXT)


def test_all_parts_have_names_and_the_script_finds_its_own(page):
    ids = [attributes["id"] for _, attributes in page.tags if "id" in attributes]
    assert len(ids) == len(set(ids)) and set(re.findall(r'\bat\("(\w+)"\)', TEXT)) <= set(ids)
    named = [attributes["aria-labelledby"] for _, attributes in page.tags if "aria-labelledby" in attributes]
    assert named == ["heading", "alike"] and set(named) <= set(ids)
    assert [tag for tag, _ in page.tags if re.fullmatch(r"h\d", tag)] == ["h1", "h2", "h3"]
    assert all("alt" in picture for picture in page.all("img")) and "picture.alt = " in TEXT
    assert all(attributes["role"] == "list" for attributes in page.all("ol"))  # which list-style: none takes in Safari
    assert page.all("html") == [{"lang": "en"}] and len(page.all("main")) == len(page.all("title")) == 1


def test_it_fits_a_phone_and_the_dark_and_nothing_moves(page):
    assert {"name": "viewport", "content": "width=device-width, initial-scale=1"} in page.all("meta")
    assert "@media (prefers-color-scheme: dark)" in TEXT and "@media (forced-colors: active)" in TEXT
    assert not re.search("animation|transition|scroll-behavior|user-scalable|maximum-scale", TEXT)
