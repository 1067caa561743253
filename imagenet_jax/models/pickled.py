"""Weights that torch.save pickled, read without torch and without running what a pickle may ask for.

Unpickling can call any function. Here it can name storages, tensors and ordered dicts, and nothing else. Both formats
of torch/serialization.py are read: the zip file since 1.6, and the row of pickles before it.
"""

import collections
import io
import math
import pickle
import zipfile
from typing import Any, BinaryIO, NamedTuple

import jax.numpy as jnp
import numpy as np

from imagenet_jax.errors import UserError

ENDINGS = (".pth", ".pt", ".bin")
MAGIC = 0x1950A86A20F9469CFC6C  # begins the older format
DTYPES = {"DoubleStorage": np.float64, "FloatStorage": np.float32, "HalfStorage": np.float16,
          "BFloat16Storage": jnp.bfloat16, "LongStorage": np.int64, "IntStorage": np.int32, "ShortStorage": np.int16,
          "CharStorage": np.int8, "ByteStorage": np.uint8, "BoolStorage": np.bool_}
WHERE = ("state_dict", "model")  # training scripts put the weights under these keys, beside other things


class Storage(NamedTuple):
    """A run of numbers, which the file holds elsewhere under `key`."""

    key: str
    dtype: np.dtype


class Tensor(NamedTuple):
    """A view of a storage: offset, shape and strides in numbers."""

    storage: Storage
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]

    def view(self, storages: dict[str, bytes]) -> np.ndarray:
        """The numbers, contiguous."""
        data = np.frombuffer(storages[self.storage.key], self.storage.dtype)
        last = self.offset + sum((n - 1) * stride for n, stride in zip(self.shape, self.strides, strict=True))
        if math.prod(self.shape) and not 0 <= self.offset <= last < len(data) or min(self.strides, default=0) < 0:
            raise ValueError(f"a tensor reaches past its {len(data)} numbers")
        strides = tuple(stride * data.itemsize for stride in self.strides)
        return np.lib.stride_tricks.as_strided(data[self.offset:], self.shape, strides).copy()


class _Unpickler(pickle.Unpickler):
    """Knows the few names that weights are made of; `storages` holds what it met, by key."""

    def __init__(self, file: BinaryIO) -> None:
        super().__init__(file)
        self.storages: dict[str, Storage] = {}

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) == ("collections", "OrderedDict"):
            return collections.OrderedDict
        if (module, name) == ("torch._utils", "_rebuild_tensor_v2"):
            return lambda storage, offset, shape, strides, *_: Tensor(storage, offset, tuple(shape), tuple(strides))
        if (module, name) == ("torch._utils", "_rebuild_parameter"):
            return lambda tensor, *_: tensor
        if module == "torch" and name in DTYPES:
            return np.dtype(DTYPES[name])
        raise pickle.UnpicklingError(f"it asks for {module}.{name}, which is no part of weights")

    def persistent_load(self, pid: Any) -> Storage:
        kind, dtype, key, *_ = pid
        if kind != "storage" or not isinstance(dtype, np.dtype):
            raise pickle.UnpicklingError(f"it refers to {kind!r}, which is no part of weights")
        return self.storages.setdefault(key, Storage(key, dtype))


def read(path: str) -> dict[str, np.ndarray]:
    """The arrays of a file by name, of the types they are stored in.

    Raises:
        UserError: there is no such file, or it is damaged, or holds anything but weights.
    """
    try:
        if zipfile.is_zipfile(path):
            tree, storages = _read_zip(path)
        else:
            with open(path, "rb") as file:
                tree, storages = _read_row(file)
        for key in WHERE:
            tree = tree[key] if isinstance(tree.get(key), dict) else tree
        return {str(name): leaf.view(storages) for name, leaf in tree.items() if isinstance(leaf, Tensor)}
    except FileNotFoundError as error:
        raise UserError(f"there is no file {path}") from error
    except Exception as error:  # a damaged pickle can raise anything
        raise UserError(f"{path} cannot be read as weights: {error or type(error).__name__}") from error


def _read_zip(path: str) -> tuple[Any, dict[str, bytes]]:
    with zipfile.ZipFile(path) as archive:
        names = archive.namelist()
        root = next(name for name in names if name.endswith("/data.pkl")).removesuffix("data.pkl")
        if root + "byteorder" in names and archive.read(root + "byteorder") != b"little":
            raise ValueError("its numbers are big-endian")
        tree = _Unpickler(io.BytesIO(archive.read(root + "data.pkl"))).load()
        prefix = root + "data/"
        return tree, {name.removeprefix(prefix): archive.read(name) for name in names if name.startswith(prefix)}


def _read_row(file: BinaryIO) -> tuple[Any, dict[str, bytes]]:
    if _Unpickler(file).load() != MAGIC:
        raise ValueError("it is not a file of torch.save")
    _, _ = _Unpickler(file).load(), _Unpickler(file).load()  # version of the format, facts of the machine
    unpickler = _Unpickler(file)
    tree, storages = unpickler.load(), {}
    for key in _Unpickler(file).load():
        count = int.from_bytes(file.read(8), "little")
        storages[key] = file.read(count * unpickler.storages[key].dtype.itemsize)
    return tree, storages
