"""What is in a page, as a browser would find it."""

from html.parser import HTMLParser

_VOID = {"meta", "img", "br", "hr", "input", "link"}


class Page(HTMLParser):
    """Reads a page whole; every element must be closed where it was opened. tags: (name, attributes) in order."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str]]] = []
        self.words = ""
        self._open: list[str] = []
        self.feed(text)
        self.close()
        assert not self._open

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))
        if tag not in _VOID:
            self._open.append(tag)

    def handle_endtag(self, tag):
        assert self._open.pop() == tag

    def handle_data(self, data):
        self.words += data

    def all(self, tag):
        return [attributes for name, attributes in self.tags if name == tag]


def assert_whole(text: str) -> Page:
    """Asserts that a page asks for nothing, that its pictures have words, and that its links lead somewhere."""
    page = Page(text)
    assert not {"script", "link", "iframe", "object", "embed", "base"} & {tag for tag, _ in page.tags}
    assert "url(" not in text and "@import" not in text
    ids = [attributes["id"] for _, attributes in page.tags if "id" in attributes]
    assert len(ids) == len(set(ids))
    for _, attributes in page.tags:
        assert attributes.get("src", "data:").startswith("data:") and "srcset" not in attributes
        assert attributes.get("href", "#")[0] == "#" and attributes.get("href", "#")[1:] in ["", *ids]
    assert all(picture["alt"] for picture in page.all("img"))
    assert all(header["scope"] in ("col", "row") for header in page.all("th"))
    return page
