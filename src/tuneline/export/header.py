"""Read what a GGUF file says about itself: metadata and tensor types, without loading a weight.

Format: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md (version 3, little-endian).
"""

import math
import struct
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from mmap import ACCESS_READ, mmap
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from tuneline.errors import ModelError

Value = int | float | bool | str | list[int] | list[float] | list[bool] | list[str]

_SCALARS = {
    0: "u1", 1: "i1", 2: "<u2", 3: "<i2", 4: "<u4", 5: "<i4", 6: "<f4", 7: "?", 10: "<u8", 11: "<i8", 12: "<f8",
}  # fmt: skip
_STRING, _ARRAY = 8, 9
_LENGTH = struct.Struct("<Q")
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
    """Raises `ModelError` when there is no GGUF file of version 3 at `path`, or it ends inside its header."""
    with _mapped(path, "convert or quantise it again") as cursor:
        return _header(cursor)


def read_layout(path: Path) -> Header:
    """As `read_header`, but lists of texts are empty: those of a tokenizer take longer than all the rest."""
    with _mapped(path, "convert or quantise it again") as cursor:
        cursor.keeps_lists = False
        return _header(cursor)


def read_floats(path: Path) -> dict[str, NDArray[np.float32]]:
    """Every tensor of type F32, flat, by its name. Raises `ModelError` as `read_header` does, or where data ends."""
    with _mapped(path, "compute it again") as cursor:
        header = _header(cursor)
        start = _aligned(cursor.place, header.metadata)
        return {tensor.name: _floats(cursor, start, tensor) for tensor in header.tensors if tensor.type == "F32"}


@dataclass(slots=True)
class _Cursor:
    """A place in the file's bytes. Each method reads what is there and goes on behind it, or raises `ValueError`."""

    data: mmap
    place: int = 0
    keeps_lists: bool = True

    def length(self) -> int:
        (value,) = _LENGTH.unpack_from(self.data, self.place)
        self.place += _LENGTH.size
        return int(value)

    def number(self) -> int:
        (value,) = struct.unpack_from("<I", self.data, self.place)
        self.place += 4
        return int(value)

    def string(self) -> str:
        return self.raw(self.length()).decode("utf-8")

    def strings(self, count: int) -> list[str]:
        """As `string`, in one loop: a tokenizer has hundreds of thousands."""
        data, end, unpack = self.data, self.place, _LENGTH.unpack_from
        found: list[str] = []
        for _ in range(0 if self.keeps_lists else count):
            end += 8 + unpack(data, end)[0]
        for _ in range(count if self.keeps_lists else 0):
            (n_bytes,) = unpack(data, end)
            start = end + 8
            end = start + n_bytes
            found.append(data[start:end].decode())  # UTF-8, and faster than by its name
        self.place = end
        self._check_end()
        return found

    def scalars(self, dtype: str, count: int) -> NDArray[np.generic]:
        values = np.frombuffer(self.data, dtype, count, self.place).copy()
        self.place += values.nbytes
        return values

    def raw(self, n_bytes: int) -> bytes:
        start = self.place
        self.place += n_bytes
        self._check_end()
        return self.data[start : self.place]

    def _check_end(self) -> None:
        if self.place > len(self.data):
            raise ValueError(f"it ends after {len(self.data):,} bytes, and {self.place:,} are told of")


@contextmanager
def _mapped(path: Path, fix: str) -> Iterator[_Cursor]:
    """The file's bytes, without reading those of its weights: a damaged length must not ask for memory."""
    try:
        with path.open("rb") as file, mmap(file.fileno(), 0, access=ACCESS_READ) as data:
            yield _Cursor(data)
    except OSError as error:
        raise ModelError(f"{path}: cannot be read ({error.strerror}); {fix}") from error
    except (struct.error, ValueError, OverflowError) as error:
        raise ModelError(f"{path}: not a readable GGUF file ({error}); {fix}") from error


def _aligned(position: int, metadata: Mapping[str, Value]) -> int:
    """Where the tensors' data begins: the next multiple of the alignment, 32 where the file says nothing."""
    match metadata.get("general.alignment", 32):
        case int(alignment) if alignment > 0:
            return -(-position // alignment) * alignment
    raise ValueError("general.alignment is no positive number")


def _floats(cursor: _Cursor, start: int, tensor: Tensor) -> NDArray[np.float32]:
    cursor.place = start + tensor.offset
    data = cursor.raw(4 * math.prod(tensor.shape))
    return np.frombuffer(data, dtype="<f4").astype(np.float32)


def _header(cursor: _Cursor) -> Header:
    magic, version = cursor.raw(4), cursor.number()
    if magic != b"GGUF" or version != 3:
        raise ValueError(f"starts with {magic!r}, version {version}; expected b'GGUF', version 3")
    n_tensors, n_pairs = cursor.length(), cursor.length()
    metadata = dict(_pair(cursor) for _ in range(n_pairs))
    return Header(metadata, tuple(_tensor(cursor) for _ in range(n_tensors)))


def _pair(cursor: _Cursor) -> tuple[str, Value]:
    return cursor.string(), _value(cursor, cursor.number())


def _tensor(cursor: _Cursor) -> Tensor:
    name = cursor.string()
    shape = tuple(cursor.length() for _ in range(_n_dimensions(cursor)))
    return Tensor(name, shape, _known(_TENSOR_TYPES, cursor.number()), cursor.length())


def _known(names: Mapping[int, str], number: int) -> str:
    if number not in names:
        raise ValueError(f"a type with the number {number:,}, which the format does not have")
    return names[number]


def _n_dimensions(cursor: _Cursor) -> int:
    found = cursor.number()
    if not 1 <= found <= 4:
        raise ValueError(f"a tensor of {found} dimensions")
    return found


def _value(cursor: _Cursor, kind: int) -> Value:
    if kind == _STRING:
        return cursor.string()
    if kind == _ARRAY:
        return _array(cursor, cursor.number(), cursor.length())
    value: int | float | bool = cursor.scalars(_known(_SCALARS, kind), 1).item()
    return value


def _array(cursor: _Cursor, kind: int, count: int) -> Value:
    """Arrays of arrays are part of the format, but llama.cpp reads none."""
    if kind == _STRING:
        return cursor.strings(count)
    values: list[int] | list[float] | list[bool] = cursor.scalars(_known(_SCALARS, kind), count).tolist()
    return values
