"""The formats of images that are read: what their files are called, and how they begin."""

import re

HEAD = 32  # bytes that tell
# Pillow knows others; some have no signature, for some it runs programs. JPEG first: Pillow tries them in this order.
FORMATS = {
    "JPEG": rb"\xff\xd8\xff",
    "PNG": rb"\x89PNG\r\n\x1a\n",
    "GIF": rb"GIF8[79]a",
    "BMP": rb"BM.{12}[\x0c\x10\x28\x34\x38\x40\x6c\x7c]\0\0\0",
    "WEBP": rb"RIFF.{4}WEBP",
    "TIFF": rb"II[*+]\0|MM\0[*+]",
    "PPM": rb"P[1-6]\s+[\d#]",
    "JPEG2000": rb"\0\0\0\x0cjP  \r\n\x87\n|\xff\x4f\xff\x51",
    "AVIF": rb".{4}ftypavi[fs]",
}
# Taken on their word, as `repair` opens every file anyway. Whatever else a file is called, its first bytes decide.
ENDINGS = (".jpg", ".jpeg", ".png", ".jpe", ".jfif", ".gif", ".bmp", ".webp", ".tif", ".tiff")
_HIDDEN = {"__macosx", "thumbs.db", "desktop.ini"}
_ANY = re.compile(b"|".join(b"(?:%s)" % signature for signature in FORMATS.values()), re.DOTALL)


def is_image(head: bytes) -> bool:
    """Whether a file with these first bytes (HEAD of them) says that it is an image."""
    return _ANY.match(head) is not None


def is_hidden(name: str) -> bool:
    """Whether a file or folder of this name is there for a program or a system, not for people."""
    return name.startswith(".") or name.lower() in _HIDDEN
