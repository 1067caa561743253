"""Vision Transformer: Dosovitskiy et al. (2020), https://arxiv.org/abs/2010.11929, table 1.

As torchvision/models/vision_transformer.py, and timm/models/vision_transformer.py for S.
"""

import functools
import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from imagenet_jax.errors import UserError
from imagenet_jax.models.layers import Conv, Dropout, dense, layer_norm, normal, param_dtype
from imagenet_jax.models.net import Net, Spec


def resample(embedding: jax.Array, rows: int, columns: int) -> jax.Array:
    """Position embeddings [1, 1 + N * N, C] for an image of other patches: [1, 1 + rows * columns, C], bicubic.

    The first belongs to the class token and stays.
    """
    side = math.isqrt(embedding.shape[1] - 1)
    if (side, side) == (rows, columns):
        return embedding
    grid = embedding[:, 1:].reshape(1, side, side, -1)
    grid = jax.image.resize(grid, (1, rows, columns, grid.shape[-1]), "cubic")
    return jnp.concatenate([embedding[:, :1], grid.reshape(1, rows * columns, -1)], 1)


class Block(nn.Module):
    """LayerNorm and self-attention, LayerNorm and two dense layers, each added to what came in."""

    heads: int
    drop: Callable[..., Dropout]
    drop_path: Callable[..., Dropout]
    dtype: Any

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """x [B, T, C] -> the same shape."""
        batch, tokens, width = x.shape
        linear = functools.partial(dense, dtype=self.dtype, kernel_init=nn.initializers.xavier_uniform(),
                                   bias_init=nn.initializers.zeros)
        qkv = linear(3 * width, "qkv")(layer_norm("ln1", self.dtype)(x))
        query, key, value = jnp.moveaxis(qkv.reshape(batch, tokens, 3, self.heads, -1), 2, 0)
        y = jax.nn.dot_product_attention(query, key, value).reshape(x.shape)
        x += self.drop_path()(self.drop()(linear(width, "out")(y)))
        y = nn.gelu(linear(4 * width, "fc1")(layer_norm("ln2", self.dtype)(x)), approximate=False)
        return x + self.drop_path()(self.drop()(linear(width, "fc2")(self.drop()(y))))


class ViT(Net, kw_only=True):
    """See `Net`; features are the class token's, `dropout` acts in the blocks.

    Position embeddings are made for the size of image that initialises the network and resampled for others.

    Attributes:
        patch: px.
        width, depth, heads: of the blocks.
        drop_path: rate at the last block, growing from 0 at the first.

    Raises:
        UserError: a side is not a multiple of the patch.
    """

    patch: int
    width: int
    depth: int
    heads: int
    drop_path: float = 0.0

    @nn.compact
    def __call__(self, x: jax.Array, train: bool = False) -> jax.Array:
        """Logits or features; `train` turns on dropout and drop path."""
        if x.shape[1] % self.patch or x.shape[2] % self.patch:
            raise UserError(f"ViT takes images whose sides are multiples of {self.patch} px, not {x.shape[1]} x "
                            f"{x.shape[2]}; change augment.size and view.size, or choose another model.name")
        batch, full = len(x), param_dtype(self.dtype)
        x = Conv(self.width, self.patch, self.patch, 0, use_bias=True, space_to_depth=self.space_to_depth,
                 dtype=self.dtype, kernel_init=normal((1 / (3 * self.patch**2)) ** 0.5), name="conv_proj")(x)
        rows, columns = x.shape[1:3]
        token = self.param("class_token", nn.initializers.zeros, (1, 1, self.width), full)
        x = jnp.concatenate([jnp.broadcast_to(token.astype(self.dtype), (batch, 1, self.width)),
                             x.reshape(batch, -1, self.width)], 1)
        x += resample(self._position(rows * columns), rows, columns).astype(self.dtype)
        drop = functools.partial(Dropout, self.dropout, train)
        x = drop()(x)
        for i, rate in enumerate(np.linspace(0, self.drop_path, self.depth).tolist()):
            drop_path = functools.partial(Dropout, rate, train, per_example=True)
            x = Block(self.heads, drop, drop_path, self.dtype, name=f"layer{i}")(x)
        self.record(f"stride{self.patch}", x[:, 1:].reshape(batch, rows, columns, -1))
        x = layer_norm("ln", full)(x[:, 0].astype(full))
        return self.classify(x, False, nn.initializers.zeros)  # False: no dropout before the head

    def _position(self, patches: int) -> jax.Array:
        if self.has_variable("params", "pos_embedding"):
            return self.get_variable("params", "pos_embedding")
        return self.param("pos_embedding", normal(0.02), (1, 1 + patches, self.width), param_dtype(self.dtype))


_TORCHVISION = [(r"^pos_embedding", "encoder.pos_embedding"), (r"^layer(\d+)\.", r"encoder.layers.encoder_layer_\1."),
                (r"\.ln(\d)\.", r".ln_\1."), (r"\.qkv\.", ".self_attention.in_proj_"),
                (r"\.out\.", ".self_attention.out_proj."), (r"\.fc1\.", ".mlp.0."), (r"\.fc2\.", ".mlp.3."),
                (r"^ln\.", "encoder.ln."), (r"^head", "heads.head")]
_TIMM = [(r"^pos_embedding", "pos_embed"), (r"^class_token", "cls_token"), (r"^conv_proj", "patch_embed.proj"),
         (r"^layer(\d+)\.", r"blocks.\1."), (r"\.ln(\d)\.", r".norm\1."), (r"\.qkv\.", ".attn.qkv."),
         (r"\.out\.", ".attn.proj."), (r"\.(fc\d)\.", r".mlp.\1."), (r"^ln\.", "norm.")]


def _spec(patch: int, width: int, depth: int, heads: int, reference: str, *facts: Any, **view: Any) -> Spec:
    names = {"torchvision": _TORCHVISION, "timm": _TIMM} if reference.startswith("torchvision") else {"timm": _TIMM}
    source = "torchvision" if reference.startswith("torchvision") else "MACs: timm"
    return Spec(ViT, {"patch": patch, "width": width, "depth": depth, "heads": heads}, 2020,
                "https://arxiv.org/abs/2010.11929", reference, *facts, source, names, **view)


_S = {"resize": 248, "interpolation": "bicubic"}
MODELS = {
    "vit_s_16": _spec(16, 384, 12, 6, "timm:vit_small_patch16_224", 22_050_664, 4.61, None, **_S),
    "vit_s_32": _spec(32, 384, 12, 6, "timm:vit_small_patch32_224", 22_878_952, 1.15, None, **_S),
    "vit_b_16": _spec(16, 768, 12, 12, "torchvision:vit_b_16", 86_567_656, 17.564, 81.072),
    "vit_b_32": _spec(32, 768, 12, 12, "torchvision:vit_b_32", 88_224_232, 4.409, 75.912),
    "vit_l_16": _spec(16, 1024, 24, 16, "torchvision:vit_l_16", 304_326_632, 61.555, 79.662, resize=242),
    "vit_l_32": _spec(32, 1024, 24, 16, "torchvision:vit_l_32", 306_535_400, 15.378, 76.972)}
