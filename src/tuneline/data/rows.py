"""A row as read, good or bad, and the physical lines of a UTF-8 file, whatever bytes it really holds."""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import BinaryIO

from tuneline.data.records import Json
from tuneline.errors import DataError

MAX_ROW_BYTES = 16 * 2**20  # a longer line is a broken file, not a row
SHOWN_CHARS = 1000  # of an oversized line kept beside its reason
_BOM = b"\xef\xbb\xbf"
_NOT_UTF8_TEXT = {  # first bytes of a file -> what it is, and the fix
    b"\xff\xfe": "is UTF-16; convert it: iconv -f UTF-16 -t UTF-8",
    b"\xfe\xff": "is UTF-16; convert it: iconv -f UTF-16 -t UTF-8",
    b"\x1f\x8b": "is a gzip archive; unpack it first",
    b"\x28\xb5\x2f\xfd": "is a zstd archive; unpack it first",
    b"PK\x03\x04": "is a zip archive; unpack it first",
    b"PAR1": "is a Parquet file; name it .parquet",
}


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
    """The file opened as bytes behind its BOM, after a look at its first bytes."""
    file = path.open("rb")
    head = file.read(4)
    for magic, problem in _NOT_UTF8_TEXT.items():
        if head.startswith(magic):
            file.close()
            raise DataError(f"{path}: {problem}")
    if b"\0" in head:
        file.close()
        raise DataError(f"{path}: starts with a zero byte, so it is no UTF-8 text; convert it to UTF-8")
    file.seek(len(_BOM) if head.startswith(_BOM) else 0)
    return file


@dataclass(frozen=True, slots=True)
class Line:
    """One physical line: its bytes without the line end (its first bytes only when `problem` is set)."""

    number: int
    data: bytes
    problem: str | None


def read_lines(file: BinaryIO) -> Iterator[Line]:
    """Lines split on \\n only (\\r\\n too), never more than MAX_ROW_BYTES of one in memory."""
    for number in count(1):
        data = file.readline(MAX_ROW_BYTES + 2)
        if not data:
            return
        if len(data) > MAX_ROW_BYTES and not data.endswith(b"\n"):
            n_bytes = len(data) + _skip_line(file)
            yield Line(number, data[:SHOWN_CHARS], f"a line of {n_bytes} bytes; at most {MAX_ROW_BYTES} are allowed")
        else:
            yield Line(number, data.removesuffix(b"\n").removesuffix(b"\r"), None)


def utf8_problem(data: bytes) -> str | None:
    """Where the first byte is that no UTF-8 text has, or None."""
    try:
        data.decode("utf-8")
    except UnicodeDecodeError as error:
        return f"byte 0x{data[error.start]:02x} at column {error.start + 1} is not UTF-8"
    return None


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


def _skip_line(file: BinaryIO) -> int:
    n_bytes = 0
    while chunk := file.readline(2**20):
        n_bytes += len(chunk)
        if chunk.endswith(b"\n"):
            break
    return n_bytes
