"""Read what a GGUF file says about itself: metadata and tensor types, without loading a weight.

Format: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md (version 3, little-endian).
"""

import struct
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

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
    """`shape` is llama.cpp's order: the row length (what quantisation blocks divide) comes first."""

    name: str
    shape: tuple[int, ...]
    type: str


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
    _integer(file, "<Q")  # the offset of its data
    return Tensor(name, shape, type_name)


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
