"""Rows of CSV and Parquet files, as strict as the JSON reader."""

import csv
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import date, datetime
from decimal import Decimal
from math import isfinite
from pathlib import Path
from shutil import copyfileobj
from tempfile import TemporaryFile
from typing import BinaryIO, Protocol

from tuneline.data.compressed import bomb_message, is_packed, max_unpacked_bytes, open_bytes
from tuneline.data.pii import excerpt
from tuneline.data.records import Json
from tuneline.data.rows import (
    MAX_ROW_BYTES,
    SHOWN_CHARS,
    BadRow,
    Line,
    Row,
    kind_of,
    not_utf8,
    open_text,
    read_lines,
)
from tuneline.errors import DataError

# Rows that repeat one text are tiny in the file, and each is as large as its text once it is read.
_BATCH_ROWS = 32
# of values with no counterpart in Python: years beyond 9999, unknown time zones, bytes as text
_CONVERSION_ERRORS = (ValueError, OverflowError, LookupError)


class _LineProblem(Exception):  # noqa: N818  (a row's, not the program's)
    """A physical line that cannot be part of a CSV record."""


class _RecordLines:
    """Feeds a csv reader line by line, and remembers which lines the current record took."""

    def __init__(self, lines: Iterator[Line]) -> None:
        self._lines = lines
        self.taken: list[Line] = []
        self.problem: str | None = None  # of the first bad line; the record is read to its end all the same

    def begin(self) -> None:
        self.taken.clear()
        self.problem = None

    def __iter__(self) -> "_RecordLines":
        return self

    def __next__(self) -> str:
        line = next(self._lines)
        self.taken.append(line)
        if line.problem is not None:
            return self._oversized(line.problem)
        try:
            return line.data.decode("utf-8") + "\n"
        except UnicodeDecodeError as error:
            self.problem = self.problem or not_utf8(error)
            return line.data.decode("utf-8", "backslashreplace") + "\n"

    def _oversized(self, problem: str) -> str:
        """Alone it counts as a record; within one, nobody can tell where that one ends."""
        if len(self.taken) > 1:
            raise _LineProblem(problem)
        self.problem = problem
        return "\n"

    def raw(self) -> str:
        return "\n".join(line.data.decode("utf-8", "backslashreplace") for line in self.taken)


def read_csv(path: Path) -> Iterator[Row | BadRow]:
    """Rows of a comma-separated file (RFC 4180) whose first record names the columns; every value is text.

    Raises `DataError` for a quote that is never closed: it makes one value of all the rows behind it.
    """
    csv.field_size_limit(MAX_ROW_BYTES)
    with open_text(path) as file:
        lines = _RecordLines(read_lines(file))
        records = csv.reader(lines, strict=True)
        columns = _csv_columns(path, lines, records)
        while True:
            lines.begin()
            try:
                row = _csv_row(path, lines, columns, next(records))
            except StopIteration:
                return
            except (csv.Error, _LineProblem) as error:
                _check_closed(path, lines, error)
                row = _bad_record(path, lines, lines.problem or str(error))
            if row is not None:
                yield row


def _csv_columns(path: Path, lines: _RecordLines, records: Iterator[list[str]]) -> list[str]:
    columns = _first_record(path, lines, records)
    if lines.problem is not None:
        raise DataError(f"{path}:{lines.taken[0].number}: the header is broken: {lines.problem}")
    repeated = sorted({name for name in columns if columns.count(name) > 1})
    if repeated or not all(columns):
        raise DataError(
            f"{path}:{lines.taken[0].number}: the header must name each column once;"
            f" repeated or empty: {repeated or ['']}"
        )
    return columns


def _first_record(path: Path, lines: _RecordLines, records: Iterator[list[str]]) -> list[str]:
    """The first one that is not a blank line; [] when there is none."""
    record: list[str] = []
    try:
        while not record and lines.problem is None:
            lines.begin()
            record = next(records)
    except StopIteration:
        return []
    except (csv.Error, _LineProblem) as error:
        _check_closed(path, lines, error)
        raise DataError(f"{path}:{lines.taken[0].number}: the header is broken: {error}") from None
    return record


def _csv_row(path: Path, lines: _RecordLines, columns: list[str], record: list[str]) -> Row | BadRow | None:
    if lines.problem is not None:
        return _bad_record(path, lines, lines.problem)
    if not record:
        return None
    if len(record) != len(columns):
        return _bad_record(path, lines, f"{len(record)} values for {len(columns)} columns ({', '.join(columns)})")
    number = lines.taken[0].number
    value: dict[str, Json] = {}
    value.update(zip(columns, record, strict=True))
    return Row(number, f"{path}:{number}", value)


def _bad_record(path: Path, lines: _RecordLines, reason: str) -> BadRow:
    number = lines.taken[0].number
    return BadRow(number, f"{path}:{number}", reason, lines.raw())


def _check_closed(path: Path, lines: _RecordLines, error: Exception) -> None:
    """Raises `DataError` for an open quote at the end, or so far behind it that the value is no row's."""
    is_at_end = str(error) == "unexpected end of data"
    if is_at_end or isinstance(error, _LineProblem) or str(error).startswith("field larger than"):
        where = "up to the end of the file" if is_at_end else f"(more than {MAX_ROW_BYTES} bytes) behind it"
        raise DataError(
            f"{path}:{lines.taken[0].number}: the record that begins here has a quote that is never closed, so the"
            f" {len(lines.taken)} lines {where} are one value; close it, or write a quote inside a"
            ' quoted value twice ("")'
        )


def read_parquet(path: Path) -> Iterator[Row | BadRow]:
    """Rows of a Parquet file; values without a JSON counterpart (bytes, NaN ...) make their row a bad one."""
    import pyarrow  # type: ignore[import-untyped]  # no stubs; imported here: only Parquet pays for it
    import pyarrow.parquet  # type: ignore[import-untyped]

    try:
        with _seekable(path) as stream, pyarrow.parquet.ParquetFile(stream) as file:
            _check_columns(path, file.schema_arrow.names)
            batches = _no_bomb(path, file.iter_batches(batch_size=_BATCH_ROWS))
            values = (value for batch in batches for part in _small(batch) for value in _values(part))
            for number, value in enumerate(values, 1):
                yield _table_row(number, f"{path}:{number}", value)
    except (pyarrow.ArrowException, OSError) as error:
        raise DataError(f"{path}: not a readable Parquet file: {str(error).splitlines()[0]}") from None


def _no_bomb(path: Path, batches: Iterable["_Table"]) -> Iterator["_Table"]:
    """The batches. Raises `DataError` when they are more than the file can hold, as `compressed` does."""
    n_left = max_unpacked_bytes(path)
    for batch in batches:
        n_left -= batch.nbytes
        if n_left < 0:
            raise DataError(bomb_message(path, "write it again as .jsonl if its rows really repeat that much"))
        yield batch


class _Table(Protocol):
    """What is used of a pyarrow.RecordBatch."""

    num_rows: int
    nbytes: int

    def slice(self, offset: int, length: int) -> "_Table": ...

    def to_pylist(self) -> list[dict[str, object]]: ...


@contextmanager
def _seekable(path: Path) -> Iterator[BinaryIO]:
    """The file's unpacked bytes; Parquet is read from its end, so packed ones go through a temporary file."""
    with open_bytes(path) as file:
        if not is_packed(path):
            yield file
            return
        with TemporaryFile() as unpacked:
            copyfileobj(file, unpacked)
            unpacked.seek(0)
            yield unpacked


@dataclass(frozen=True, slots=True)
class _Unreadable:
    """Why a row has no values in Python, and what can be shown of it."""

    reason: str
    raw: str


def _small(batch: _Table) -> Iterator[_Table]:
    """The batch in parts of at most MAX_ROW_BYTES, or of one row: as Python values it takes several times as much."""
    if batch.num_rows <= 1 or batch.nbytes <= MAX_ROW_BYTES:
        yield batch
        return
    half = batch.num_rows // 2
    yield from _small(batch.slice(0, half))
    yield from _small(batch.slice(half, batch.num_rows - half))


def _values(batch: _Table) -> Iterator[dict[str, object] | _Unreadable]:
    """Each row, or why it is none: nobody checks on writing that a value is valid."""
    values: list[dict[str, object] | _Unreadable]
    try:
        values = [*batch.to_pylist()]
    except _CONVERSION_ERRORS:
        values = [_value(batch.slice(index, 1)) for index in range(batch.num_rows)]
    yield from values if batch.nbytes <= MAX_ROW_BYTES else map(_not_oversized, values)


def _value(row: _Table) -> dict[str, object] | _Unreadable:
    try:
        return row.to_pylist()[0]
    except UnicodeDecodeError as error:
        return _Unreadable("a text that is not UTF-8", f"{error.object!r:.{SHOWN_CHARS}}")
    except _CONVERSION_ERRORS as error:
        return _Unreadable(f"a value that Python cannot hold ({error})", str(row)[:SHOWN_CHARS])


def _not_oversized(value: dict[str, object] | _Unreadable) -> dict[str, object] | _Unreadable:
    """Measured again, as a table's size also counts what its rows share."""
    if isinstance(value, _Unreadable) or (n_chars := _n_chars(value)) <= MAX_ROW_BYTES:
        return value
    reason = f"a row of {n_chars} characters; at most {MAX_ROW_BYTES} are allowed"
    return _Unreadable(reason, repr({key: excerpt(str(item), 80) for key, item in value.items()})[:SHOWN_CHARS])


def _n_chars(value: object) -> int:
    match value:
        case str() | bytes():
            return len(value)
        case list():
            return sum(map(_n_chars, value))
        case dict():
            return sum(map(_n_chars, value.values()))
    return 0


def bounded_row(number: int, place: str, value: dict[str, object]) -> Row | BadRow:
    """`plain_row`, but a row above MAX_ROW_BYTES is a problem."""
    return _table_row(number, place, _not_oversized(value))


def _table_row(number: int, place: str, value: dict[str, object] | _Unreadable) -> Row | BadRow:
    if isinstance(value, _Unreadable):
        return BadRow(number, place, value.reason, value.raw)
    return plain_row(number, place, value)


def plain_row(number: int, place: str, value: dict[str, object]) -> Row | BadRow:
    """A row of a typed table as JSON values: dates and decimals become text, anything else is a problem."""
    try:
        return Row(number, place, {key: _plain(item, key) for key, item in value.items()})
    except _LineProblem as problem:
        return BadRow(number, place, str(problem), repr(value)[:MAX_ROW_BYTES])


def _check_columns(path: Path, names: list[str]) -> None:
    repeated = sorted({name for name in names if names.count(name) > 1})
    if repeated:
        raise DataError(f"{path}: column {repeated[0]!r} occurs twice; rename one")


def _plain(value: object, place: str) -> Json:
    match value:
        case None | bool() | str():
            return value
        case int() if -(2**63) <= value < 2**63:
            return value
        case float() if isfinite(value):
            return value
        case datetime() | date():
            return value.isoformat()
        case Decimal():
            return str(value)
        case list():
            return [_plain(item, f"{place}[{index}]") for index, item in enumerate(value)]
        case dict():
            return {str(key): _plain(item, f"{place}.{key}") for key, item in value.items()}
    raise _LineProblem(f"{place} is {kind_of(value)} ({excerpt(repr(value), 40)}), which has no place in JSON")
