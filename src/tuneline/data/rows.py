"""A row as read, good or bad, and the physical lines of a UTF-8 file, whatever bytes it really holds."""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import BinaryIO

from tuneline.data.compressed import open_bytes
from tuneline.data.records import Json
from tuneline.errors import DataError

MAX_ROW_BYTES = 16 * 2**20  # a longer line is a broken file, not a row
SHOWN_CHARS = 1000  # of an oversized line kept beside its reason
_BOM = b"\xef\xbb\xbf"
_HEAD_BYTES = 512  # enough for the mark of a tar archive
_NOT_UTF8_TEXT = {  # first bytes of a file -> what it is, and the fix
    b"\xff\xfe\0\0": "is UTF-32; convert it: iconv -f UTF-32 -t UTF-8",  # begins like UTF-16, so it comes first
    b"\0\0\xfe\xff": "is UTF-32; convert it: iconv -f UTF-32 -t UTF-8",
    b"\xff\xfe": "is UTF-16; convert it: iconv -f UTF-16 -t UTF-8",
    b"\xfe\xff": "is UTF-16; convert it: iconv -f UTF-16 -t UTF-8",
    b"\x1f\x8b": "is packed with gzip; let its name end in .gz",
    b"\x28\xb5\x2f\xfd": "is packed with zstd; let its name end in .zst",
    b"PK\x03\x04": "is a zip archive; unpack it first",
    b"PK\x05\x06": "is an empty zip archive",
    b"7z\xbc\xaf\x27\x1c": "is a 7z archive; unpack it first",
    b"Rar!\x1a\x07": "is a rar archive; unpack it first",
    b"\xfd7zXZ\x00": "is packed with xz; unpack it first",
    b"BZh": "is packed with bzip2; unpack it first",
    b"PAR1": "is a Parquet file; let its name end in .parquet",
}
_TAR_MARK, _TAR_MARK_AT = b"ustar", 257


@dataclass(frozen=True, slots=True)
class Row:
    """An object as read."""

    line: int  # see Example.line
    place: str  # file:line for messages
    value: dict[str, Json]


@dataclass(frozen=True, slots=True)
class BadRow:
    """A row that is no acceptable object."""

    line: int
    place: str
    reason: str
    raw: str  # what stands in the file, so that nothing is lost; the start of it when it is oversized


def open_text(path: Path) -> BinaryIO:
    """The file's unpacked bytes behind its BOM, after a look at the first ones."""
    file = open_bytes(path)
    try:
        head = file.read(_HEAD_BYTES)
        _check_head(path, head)
    except DataError:
        file.close()
        raise
    file.close()
    file = open_bytes(path)  # again: packed data cannot be read backwards
    if head.startswith(_BOM):
        file.read(len(_BOM))
    return file


def _check_head(path: Path, head: bytes) -> None:
    for magic, problem in _NOT_UTF8_TEXT.items():
        if head.startswith(magic):
            raise DataError(f"{path}: {problem}")
    if head.startswith(_TAR_MARK, _TAR_MARK_AT):
        raise DataError(f"{path}: is a tar archive; unpack it first")
    if b"\0" in head[:4]:
        raise DataError(f"{path}: starts with a zero byte, so it is no UTF-8 text; convert it to UTF-8")


@dataclass(frozen=True, slots=True)
class Line:
    """One physical line: its bytes without the line end (its first bytes only when `problem` is set)."""

    number: int
    data: bytes
    problem: str | None


def read_lines(file: BinaryIO, first: int = 1, n_bytes: int | None = None) -> Iterator[Line]:
    """Lines split on \\n only (\\r\\n too), never more than MAX_ROW_BYTES of one in memory.

    `first` is the number of the first one; `n_bytes` is how far to read, None: to the end.
    """
    n_read = 0
    for number in count(first):
        if n_bytes is not None and n_read >= n_bytes:
            return
        data = file.readline(MAX_ROW_BYTES + 2)
        if not data:
            return
        n_read += len(data)
        if len(data) > MAX_ROW_BYTES and not data.endswith(b"\n"):
            n_more = skip_line(file)
            n_read += n_more
            problem = f"a line of {len(data) + n_more} bytes; at most {MAX_ROW_BYTES} are allowed"
            yield Line(number, data[:SHOWN_CHARS], problem)
        else:
            yield Line(number, data.removesuffix(b"\n").removesuffix(b"\r"), None)


def skip_line(file: BinaryIO) -> int:
    """Read to the end of the line, a piece at a time; the number of bytes."""
    n_bytes = 0
    while chunk := file.readline(2**20):
        n_bytes += len(chunk)
        if chunk.endswith(b"\n"):
            break
    return n_bytes


def utf8_problem(data: bytes) -> str | None:
    """Where the first byte is that no UTF-8 text has, or None."""
    try:
        data.decode("utf-8")
    except UnicodeDecodeError as error:
        return not_utf8(error)
    return None


def not_utf8(error: UnicodeDecodeError) -> str:
    return f"byte 0x{error.object[error.start]:02x} at column {error.start + 1} is not UTF-8"


def kind_of(value: object) -> str:
    """The name of a value's JSON type, for messages."""
    match value:
        case None:
            return "null"
        case bool():
            return "true or false"
        case int() | float():
            return "a number"
        case str():
            return "text"
        case list():
            return "a list"
        case dict():
            return "an object"
    return f"a {type(value).__name__}"
