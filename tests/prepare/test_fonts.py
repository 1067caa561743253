"""Names in pictures: drawn if a font has them, escaped if none has."""

from imagenet_jax.prepare import fonts

_CYRILLIC, _NOWHERE = "\u043a\u043e\u0448\u043a\u0430", "\U000f0000"  # a cat; of a private plane


def test_a_font_is_chosen_by_what_it_draws() -> None:
    plain, drawn = fonts.choose(["n01440764\ntench"])
    assert (plain.getname()[0], drawn) == ("Aileron", frozenset())
    font, drawn = fonts.choose(["cat", _CYRILLIC, _NOWHERE])
    assert drawn == set(_CYRILLIC)
    assert font.getmask(_CYRILLIC[0]).getbbox() and bytes(font.getmask("\u0448")) != bytes(font.getmask(_NOWHERE))
    assert fonts.drawable(f"a {_CYRILLIC} {_NOWHERE}", drawn) == f"a {_CYRILLIC} \\U000f0000"


def test_what_no_font_has_is_escaped(monkeypatch) -> None:
    monkeypatch.setattr(fonts, "_fonts", lambda: ("no such font",))
    font, drawn = fonts.choose([_CYRILLIC])
    assert font.getname()[0] == "Aileron"
    assert fonts.drawable(f"n1\n{_CYRILLIC}", drawn) == r"n1" "\n" r"\u043a\u043e\u0448\u043a\u0430"
