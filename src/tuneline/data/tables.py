"""Rows of CSV and Parquet files, as strict as the JSON reader."""

import csv
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import date, datetime
from decimal import Decimal
from math import isfinite
from pathlib import Path
from shutil import copyfileobj
from tempfile import TemporaryFile
from typing import BinaryIO, Protocol

from tuneline.data.compressed import is_packed, open_bytes
from tuneline.data.records import Json
from tuneline.data.rows import (
    MAX_ROW_BYTES,
    BadRow,
    Line,
    Row,
    kind_of,
    open_text,
    read_lines,
    utf8_problem,
)
from tuneline.errors import DataError

_BATCH_ROWS = 1024


class _LineProblem(Exception):  # noqa: N818  (a row's, not the program's)
    """A physical line that cannot be part of a CSV record."""


class _RecordLines:
    """Feeds a csv reader line by line, and remembers which lines the current record took."""

    def __init__(self, lines: Iterator[Line]) -> None:
        self._lines = lines
        self.taken: list[Line] = []

    def __iter__(self) -> "_RecordLines":
        return self

    def __next__(self) -> str:
        line = next(self._lines)
        self.taken.append(line)
        problem = line.problem or utf8_problem(line.data)
        if problem is not None:
            raise _LineProblem(problem)
        return line.data.decode("utf-8") + "\n"

    def raw(self) -> str:
        return "\n".join(line.data.decode("utf-8", "backslashreplace") for line in self.taken)


def read_csv(path: Path) -> Iterator[Row | BadRow]:
    """Rows of a comma-separated file (RFC 4180) whose first line names the columns; every value is text.

    Raises `DataError` for a quote that is never closed: it makes one value of all the rows behind it.
    """
    csv.field_size_limit(MAX_ROW_BYTES)
    with open_text(path) as file:
        lines = _RecordLines(read_lines(file))
        records = csv.reader(lines, strict=True)
        columns = _csv_columns(path, lines, records)
        while True:
            lines.taken.clear()
            try:
                row = _csv_row(path, lines, columns, next(records))
            except StopIteration:
                return
            except (csv.Error, _LineProblem) as error:
                _check_closed(path, lines, error)
                row = _bad_record(path, lines, str(error))
            if row is not None:
                yield row


def _csv_columns(path: Path, lines: _RecordLines, records: Iterator[list[str]]) -> list[str]:
    try:
        columns = next(records, [])
    except (csv.Error, _LineProblem) as error:
        _check_closed(path, lines, error)
        raise DataError(f"{path}:1: the header is broken: {error}") from None
    repeated = sorted({name for name in columns if columns.count(name) > 1})
    if repeated or not all(columns):
        raise DataError(f"{path}:1: the header must name each column once; repeated or empty: {repeated or ['']}")
    return columns


def _csv_row(path: Path, lines: _RecordLines, columns: list[str], record: list[str]) -> Row | BadRow | None:
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
    if str(error) == "unexpected end of data":
        raise DataError(
            f"{path}:{lines.taken[0].number}: the record that begins here has a quote that is never closed, so the"
            f" {len(lines.taken)} lines up to the end of the file are one value; close it, or write a quote inside a"
            ' quoted value twice ("")'
        )


def read_parquet(path: Path) -> Iterator[Row | BadRow]:
    """Rows of a Parquet file; values without a JSON counterpart (bytes, NaN ...) make their row a bad one."""
    import pyarrow  # type: ignore[import-untyped]  # no stubs; imported here: only Parquet pays for it
    import pyarrow.parquet  # type: ignore[import-untyped]

    try:
        with _seekable(path) as stream, pyarrow.parquet.ParquetFile(stream) as file:
            _check_columns(path, file.schema_arrow.names)
            batches = file.iter_batches(batch_size=_BATCH_ROWS)
            for number, value in enumerate((value for batch in batches for value in _values(batch)), 1):
                yield _table_row(number, f"{path}:{number}", value)
    except (pyarrow.ArrowException, OSError) as error:
        raise DataError(f"{path}: not a readable Parquet file: {str(error).splitlines()[0]}") from None


class _Table(Protocol):
    """What is used of a pyarrow.RecordBatch."""

    num_rows: int

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


def _values(batch: _Table) -> Iterator[dict[str, object] | str]:
    """Each row, or why it is none: nobody checks on writing that a Parquet text is UTF-8."""
    try:
        yield from batch.to_pylist()
    except UnicodeDecodeError:
        for index in range(batch.num_rows):
            try:
                yield batch.slice(index, 1).to_pylist()[0]
            except UnicodeDecodeError as error:
                yield f"a text that is not UTF-8: {error.object!r:.1000}"


def _table_row(number: int, place: str, value: dict[str, object] | str) -> Row | BadRow:
    if isinstance(value, str):
        return BadRow(number, place, value.partition(":")[0], value)
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
    raise _LineProblem(f"{place} is {kind_of(value)} ({value!r:.40}), which has no place in JSON")
