"""Which window of an image training sees, and whether it is flipped: drawn for many images at once."""

import numpy as np

_ATTEMPTS = 10  # as torchvision's RandomResizedCrop, before it falls back to a centre crop
DRAWS = 2 * _ATTEMPTS + 3  # uniform numbers that a crop takes
CROP = 5  # numbers of a crop: top, left, height, width, and 1 if it is flipped


def random_resized(uniform: np.ndarray, sizes: np.ndarray, *, area: tuple[float, float], aspect: tuple[float, float],
                   flip: bool) -> np.ndarray:
    """Random-resized-crop and flip (Szegedy et al. 2014, section 6).

    A crop is the first of ten drawn windows that fits, else the largest central one whose aspect is allowed.

    Args:
        uniform: float [n, DRAWS] in [0, 1), which alone decides what is drawn.
        sizes: int [n, 2], height and width of the images.
        area: fraction of the image that a crop covers, uniform; aspect: width / height, log-uniform.
        flip: left-right, half of the time.

    Returns:
        int32 [n, CROP].
    """
    sizes, uniform = sizes[:, :, None].astype(float), uniform.astype(float)
    areas = (area[0] + (area[1] - area[0]) * uniform[:, :_ATTEMPTS]) * sizes.prod(axis=1)
    low, high = np.log(aspect)
    ratios = np.exp(low + (high - low) * uniform[:, _ATTEMPTS : 2 * _ATTEMPTS])
    drawn = np.stack([np.sqrt(areas / ratios), np.sqrt(areas * ratios)], axis=1)
    allowed = np.clip(sizes[:, 1] / sizes[:, 0], *aspect)
    central = np.minimum(sizes, sizes[:, ::-1] * np.stack([1 / allowed, allowed], axis=1))
    candidates = np.concatenate([drawn, np.maximum(central, 1)], axis=2).round()  # [n, 2, _ATTEMPTS + 1]
    first = ((candidates <= sizes) & (candidates >= 1)).all(axis=1).argmax(axis=1)  # the central one always fits
    sides = np.take_along_axis(candidates, first[:, None, None], axis=2)[..., 0]
    room = sizes[..., 0] - sides
    corner = np.where(first[:, None] < _ATTEMPTS, uniform[:, 2 * _ATTEMPTS : -1] * (room + 1), room / 2)
    return np.concatenate([corner, sides, flip * (uniform[:, -1:] < 0.5)], axis=1).astype(np.int32)


def scale_jitter(uniform: np.ndarray, sizes: np.ndarray, *, size: int, resize: tuple[int, int], central: bool,
                 flip: bool) -> np.ndarray:
    """A square of `size` px anywhere in an image that is resized first (Simonyan and Zisserman 2014, section 3.1).

    Args:
        uniform: float [n, DRAWS] in [0, 1), of which these need four.
        sizes: int [n, 2], height and width of the images.
        resize: px, the least and the most of its shorter side, which is drawn for each image.
        central: anywhere in the central square only (Krizhevsky et al. 2012, sections 2 and 4.1).
        flip: left-right, half of the time.

    Returns:
        int32 [n, CROP], in px of the images as they are.
    """
    shorter = sizes.min(axis=1, keepdims=True)
    drawn = resize[0] + np.floor(uniform[:, :1].astype(float) * (resize[1] - resize[0] + 1))
    side = np.clip(np.round(shorter * size / drawn), 1, shorter)
    room = (shorter if central else sizes) - side
    corner = np.floor(uniform[:, 1:3] * (room + 1)) + (sizes - shorter) // 2 * central
    flipped = flip * (uniform[:, -1:] < 0.5)
    return np.concatenate([corner, side, side, flipped], axis=1).astype(np.int32)
