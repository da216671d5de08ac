"""Read what a GGUF file says about itself: metadata and tensor types, without loading a weight.

Format: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md (version 3, little-endian).
"""

import math
import struct
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray

from tuneline.errors import ModelError

Value = int | float | bool | str | list["Value"]

_SCALARS = {
    0: "<B",
    1: "<b",
    2: "<H",
    3: "<h",
    4: "<I",
    5: "<i",
    6: "<f",
    7: "<?",
    10: "<Q",
    11: "<q",
    12: "<d",
}
_STRING, _ARRAY = 8, 9
_TENSOR_TYPES = {
    0: "F32", 1: "F16", 2: "Q4_0", 3: "Q4_1", 6: "Q5_0", 7: "Q5_1", 8: "Q8_0", 10: "Q2_K", 11: "Q3_K",
    12: "Q4_K", 13: "Q5_K", 14: "Q6_K", 15: "Q8_K", 16: "IQ2_XXS", 17: "IQ2_XS", 18: "IQ3_XXS", 19: "IQ1_S",
    20: "IQ4_NL", 21: "IQ3_S", 22: "IQ2_S", 23: "IQ4_XS", 29: "IQ1_M", 30: "BF16",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Tensor:
    """`shape` is llama.cpp's order: the row length (what quantisation blocks divide) comes first.

    `offset` is in bytes, from where the tensors' data begins.
    """

    name: str
    shape: tuple[int, ...]
    type: str
    offset: int = field(default=0, compare=False)


@dataclass(frozen=True, slots=True)
class Header:
    metadata: Mapping[str, Value]
    tensors: tuple[Tensor, ...]


def read_header(path: Path) -> Header:
    """Raises `ModelError` when `path` is no GGUF file of version 3 or ends inside its header."""
    with path.open("rb") as file:
        try:
            return _header(file)
        except (struct.error, UnicodeDecodeError, KeyError, ValueError) as error:
            raise ModelError(f"{path}: not a readable GGUF file ({error}); convert or quantise it again") from error


def read_floats(path: Path) -> dict[str, NDArray[np.float32]]:
    """Every tensor of type F32, flat, by its name. Raises `ModelError` as `read_header` does, or where data ends."""
    with path.open("rb") as file:
        try:
            header = _header(file)
            start = _aligned(file.tell(), header.metadata)
            return {tensor.name: _floats(file, start, tensor) for tensor in header.tensors if tensor.type == "F32"}
        except (struct.error, UnicodeDecodeError, KeyError, ValueError) as error:
            raise ModelError(f"{path}: not a readable GGUF file ({error}); compute it again") from error


def _aligned(position: int, metadata: Mapping[str, Value]) -> int:
    """Where the tensors' data begins: the next multiple of the alignment, 32 where the file says nothing."""
    match metadata.get("general.alignment", 32):
        case int(alignment) if alignment > 0:
            return -(-position // alignment) * alignment
    raise ValueError("general.alignment is no positive number")


def _floats(file: BinaryIO, start: int, tensor: Tensor) -> NDArray[np.float32]:
    file.seek(start + tensor.offset)
    n_bytes = 4 * math.prod(tensor.shape)
    data = file.read(n_bytes)
    if len(data) != n_bytes:
        raise ValueError(f"it ends inside {tensor.name}")
    return np.frombuffer(data, dtype="<f4").astype(np.float32)


def _header(file: BinaryIO) -> Header:
    magic, version = file.read(4), _scalar(file, "<I")
    if magic != b"GGUF" or version != 3:
        raise ValueError(f"starts with {magic!r}, version {version}; expected b'GGUF', version 3")
    n_tensors, n_pairs = _integer(file, "<Q"), _integer(file, "<Q")
    metadata = dict(_pair(file) for _ in range(n_pairs))
    return Header(metadata, tuple(_tensor(file) for _ in range(n_tensors)))


def _pair(file: BinaryIO) -> tuple[str, Value]:
    return _string(file), _value(file, _integer(file, "<I"))


def _tensor(file: BinaryIO) -> Tensor:
    name = _string(file)
    shape = tuple(_integer(file, "<Q") for _ in range(_integer(file, "<I")))
    type_name = _TENSOR_TYPES[_integer(file, "<I")]
    return Tensor(name, shape, type_name, _integer(file, "<Q"))


def _value(file: BinaryIO, kind: int) -> Value:
    if kind == _STRING:
        return _string(file)
    if kind == _ARRAY:
        item, length = _integer(file, "<I"), _integer(file, "<Q")
        return [_value(file, item) for _ in range(length)]
    return _scalar(file, _SCALARS[kind])


def _string(file: BinaryIO) -> str:
    return file.read(_integer(file, "<Q")).decode("utf-8")


def _integer(file: BinaryIO, layout: str) -> int:
    return int(_scalar(file, layout))


def _scalar(file: BinaryIO, layout: str) -> int | float | bool:
    value: int | float | bool = struct.unpack(layout, file.read(struct.calcsize(layout)))[0]
    return value
