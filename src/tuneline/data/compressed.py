"""Files as bytes, .gz and .zst unpacked on the way: a little at a time, and never without a limit."""

import gzip
import io
import re
import zlib
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, Protocol

from tuneline.errors import DataError

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer  # no module at run time

# Text packs 3 to 30 times, rows from one template about 100 times. Gzip reaches 1030 times, zstd more, with nothing but
# repetition: then a small file is meant to fill a disk or a day. A short start is free, so that tiny files may repeat.
MAX_RATIO = 250
_FREE_BYTES = 2**24
_BUFFER_BYTES = 2**18
_MAGIC = {
    ".gz": re.compile(rb"\x1f\x8b"),
    ".zst": re.compile(rb"\x28\xb5\x2f\xfd|[\x50-\x5f]\x2a\x4d\x18"),  # or a frame to skip, with which pzstd begins
}


def unpacked_suffix(path: Path) -> str:
    """Extension of the data, in lower case: .jsonl for rows.jsonl.gz too."""
    suffix = path.suffix.lower()
    return path.with_suffix("").suffix.lower() if suffix in _MAGIC else suffix


def is_packed(path: Path) -> bool:
    return path.suffix.lower() in _MAGIC


def open_bytes(path: Path) -> BinaryIO:
    """The file's data, unpacked while it is read. Reading raises `DataError` where packed data is broken or a bomb."""
    try:
        file = path.open("rb")
    except OSError as error:
        raise DataError(f"{path}: cannot be opened ({error.strerror}); let this user read it") from None
    match path.suffix.lower():
        case ".gz":
            _check_magic(path, file)
            return io.BufferedReader(_Unpacked(path, file, gzip.GzipFile(fileobj=file)), _BUFFER_BYTES)
        case ".zst":
            _check_magic(path, file)
            return io.BufferedReader(_Unpacked(path, file, _zstd(file)), _BUFFER_BYTES)
    return file


def max_unpacked_bytes(path: Path) -> int:
    return path.stat().st_size * MAX_RATIO + _FREE_BYTES


def bomb_message(path: Path, fix: str) -> str:
    return f"{path}: unpacks to more than {MAX_RATIO} times its size, as no real rows do; {fix}"


class _Source(Protocol):
    def read(self, n_bytes: int, /) -> bytes: ...


class _Unpacked(io.RawIOBase):
    """Unpacked bytes, counted against the size of the packed file."""

    def __init__(self, path: Path, file: BinaryIO, source: _Source) -> None:
        self._path = path
        self._file = file
        self._source = source
        self._left = max_unpacked_bytes(path)

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: "WriteableBuffer", /) -> int:
        view = memoryview(buffer)
        try:
            data = self._source.read(len(view))
        except (OSError, EOFError, zlib.error) as error:
            raise DataError(f"{self._path}: its packed data is cut off or broken ({error}); fetch it again") from None
        self._left -= len(data)
        if self._left < 0:
            raise DataError(bomb_message(self._path, "unpack it by hand and look at it"))
        view[: len(data)] = data
        return len(data)

    def close(self) -> None:
        self._file.close()
        super().close()


def _zstd(file: BinaryIO) -> _Source:
    # pyarrow is a dependency anyway, and unlike the stream reader of zstandard it says when the file is cut off.
    import pyarrow  # type: ignore[import-untyped]  # no stubs; imported here: only .zst pays for it

    source: _Source = pyarrow.CompressedInputStream(pyarrow.PythonFile(file, mode="r"), "zstd")
    return source


def _check_magic(path: Path, file: BinaryIO) -> None:
    suffix = path.suffix.lower()
    head = file.read(4)
    file.seek(0)
    if not _MAGIC[suffix].match(head):
        file.close()
        raise DataError(f"{path}: is no {suffix} file; name it by what it is, or fetch it again")
