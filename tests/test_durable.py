"""Files that are there whole, or not at all."""

import os

import pytest

from imagenet_jax import durable


@pytest.mark.parametrize("mode, content", [("w", "grün"), ("wb", b"\0\xff")])
def test_a_file_takes_its_name_once_it_is_on_disk(tmp_path, monkeypatch, mode, content) -> None:
    path, done = tmp_path / "file", []
    path.write_text("before")
    for name, real in (("fsync", os.fsync), ("replace", os.replace)):
        monkeypatch.setattr(durable.os, name, lambda *args, name=name, real=real: [
            done.append((name, path.read_text())), real(*args)])
    with durable.create(path, mode) as file:
        file.write(content)
    assert done == [("fsync", "before"), ("replace", "before")]
    assert (path.read_bytes() if mode == "wb" else path.read_text("utf-8")) == content
    assert os.listdir(tmp_path) == ["file"]


def test_an_error_leaves_what_was_there(tmp_path) -> None:
    path = tmp_path / "file"
    path.write_text("before")
    with pytest.raises(ZeroDivisionError), durable.create(path) as file:
        file.write("half")
        1 / 0  # noqa: B018
    assert path.read_text() == "before" and os.listdir(tmp_path) == ["file"]


def test_a_seal_tells_what_changed() -> None:
    content = {"b": [1, 2], "a": {"c": "x"}}
    assert durable.seal(content) == durable.seal({"a": {"c": "x"}, "b": (1, 2)})
    assert len({durable.seal(other) for other in (content, {}, content | {"b": [2, 1]}, content | {"d": None})}) == 4
