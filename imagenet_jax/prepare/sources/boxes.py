"""Bounding boxes as ImageNet distributes them: one Pascal VOC XML an image, in compressed tars.

A file belongs to the image of the same name; its <filename>, which may be '%s', its <folder> and the names of its
objects, which for dogs are English ones, are not used.
"""

import posixpath
from pathlib import Path
from xml.etree.ElementTree import Element, ParseError

import numpy as np
from defusedxml import DefusedXmlException, ElementTree

from imagenet_jax.prepare.sources import tars

_MAX_XML = 2**20


def read_annotations(path: Path) -> dict[str, bytes]:
    """The XML of each image of an archive, by file name without suffix; empty where there is no archive.

    All of ImageNet's 594,546 take 0.5 GB.

    Raises:
        UserError: the archive is damaged.
    """
    if not path.is_file():
        return {}
    with tars.readable(path), tars.opened(path, "r|*") as tar:
        return {posixpath.splitext(name)[0]: tar.extractfile(member).read(_MAX_XML)
                for name, member in tars.members(tar) if name.endswith(".xml")}


def parse(xml: bytes) -> np.ndarray:
    """Boxes float32 [M, 4], (ymin, xmin, ymax, xmax) as shares of the size that the XML states.

    As annotated: order and bounds are not checked, and a number or a file that cannot be read is NaN.
    """
    def number(node: Element, path: str) -> float:
        try:
            return float(node.findtext(path, default="nan"))
        except ValueError:
            return np.nan

    try:
        root = ElementTree.fromstring(xml)
        size = np.array([number(root, "size/height"), number(root, "size/width")] * 2)
        sides = ("ymin", "xmin", "ymax", "xmax")
        corners = [[number(box, side) for side in sides] for box in root.iterfind("object/bndbox")]
    except (ParseError, DefusedXmlException, ValueError):  # ValueError: an encoding that does not exist
        return np.full((1, 4), np.nan, np.float32)
    size[size <= 0] = np.nan
    return (np.array(corners).reshape(-1, 4) / size).astype(np.float32)
