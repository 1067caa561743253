"""The section `augment` of a config."""

from typing import Any

from imagenet_jax import config


def augment(**keys: Any) -> dict[str, Any]:
    """The defaults at 8 px, but for some keys."""
    return config.base().augment.to_dict() | {"size": 8} | keys
