"""A source before its rows are turned into examples: its files, its format, and parts of it for several processes."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain, islice
from pathlib import Path
from typing import TypeAlias

from tuneline.config.schema import Format, SourceConfig
from tuneline.data.adapting import Adapter, check_columns_are_read, check_columns_are_there, renamed
from tuneline.data.detecting import count_of_format, detect
from tuneline.data.hub import read_hub
from tuneline.data.json_rows import LinesOfFile, lines_in_parts, read_part
from tuneline.data.locating import Located, located
from tuneline.data.reading import read_rows
from tuneline.data.records import Json
from tuneline.data.rows import BadRow, Row
from tuneline.errors import DataError

_ROWS_LOOKED_AT = 100  # of a source, for its format
_PART_CHARS = 2**21  # enough that handing it to another process costs little, little enough to have several in memory

InFile: TypeAlias = tuple[str, Row | BadRow]  # a row, with its Example.file


@dataclass(frozen=True, slots=True)
class Lines:
    """Lines that the process which adapts them also reads."""

    file: str  # see Example.file
    lines: LinesOfFile


SourcePart: TypeAlias = Lines | tuple[InFile, ...]


@dataclass(frozen=True, slots=True)
class Additions:
    """What is the same for all sources."""

    meta_fields: tuple[str, ...]  # keys carried along beside the format's own
    system_prompt: str | None  # for conversations of sources without one of their own
    folder: Path  # no source may lie outside


@dataclass(frozen=True, slots=True)
class Opened:
    """A source whose format is known."""

    adapter: Adapter
    parts: Iterator[SourcePart]  # all of its rows, once
    note: str  # the format, how it was found and how many rows look like it


def open_source(source: SourceConfig, key: str, additions: Additions) -> Opened:
    """Look at the first rows. `key` is where the source stands in the configuration.

    Raises `DataError` for a source that cannot be used at all.
    """
    if source.hub is not None:
        rows: Iterator[InFile] = (("", row) for row in read_hub(source.hub))
        first = list(islice(rows, _ROWS_LOOKED_AT))
        return _opened(source, key, additions, first, _in_parts(chain(first, rows)), "")
    if source.path is None:
        raise DataError(f"{key}: {source.name!r} has neither path nor hub; set one")
    files = located(source.path, f"{key}.path", additions.folder)
    first = list(islice(_rows(files), _ROWS_LOOKED_AT))
    return _opened(source, key, additions, first, _parts(files), f"; {len(files)} files" if files[0].label else "")


def rows_of(part: SourcePart) -> Iterator[InFile]:
    """The rows of a part, in order."""
    if isinstance(part, Lines):
        return ((part.file, row) for row in read_part(part.lines))
    return iter(part)


def _opened(
    source: SourceConfig,
    key: str,
    additions: Additions,
    first: Sequence[InFile],
    parts: Iterator[SourcePart],
    files: str,
) -> Opened:
    rows = [row for _, row in first if isinstance(row, Row)]
    check_columns_are_there(source.columns, rows, key)  # first: without them the rows fit no format
    chosen, n_fitting, how = _format(source, first, rows)
    check_columns_are_read(source.columns, chosen, key)
    system_prompt = additions.system_prompt if source.system_prompt is None else source.system_prompt
    adapter = Adapter(
        source=source.name,
        format=chosen,
        columns=dict(source.columns),
        meta_fields=tuple(additions.meta_fields),
        system_prompt=system_prompt,
        task_prefix=source.task_prefix,
        is_found=source.format == "auto",
    )
    note = f"{source.name}: format {chosen} ({how}); {n_fitting} of the first {len(first)} rows look like it{files}"
    return Opened(adapter, parts, note)


def _format(source: SourceConfig, first: Sequence[InFile], rows: Sequence[Row]) -> tuple[Format, int, str]:
    named = [renamed(row.value, source.columns) for row in rows]
    if source.format != "auto":
        return source.format, count_of_format(named, source.format), "as configured"
    if not rows:
        bad = first[0][1]
        assert isinstance(bad, BadRow)  # a source without rows has raised before
        raise DataError(f"{bad.place}: {bad.reason}; none of the first {len(first)} rows can be read")
    chosen, n_fitting = detect(named, rows[0].place)
    return chosen, n_fitting, "found by its keys"


def _rows(files: Iterable[Located]) -> Iterator[InFile]:
    return ((file.label, row) for file in files for row in read_rows(file.path))


def _parts(files: Iterable[Located]) -> Iterator[SourcePart]:
    others: list[Located] = []
    for file in files:
        if file.path.suffix.lower() != ".jsonl":
            others.append(file)
            continue
        yield from _in_parts(_rows(others))
        others.clear()
        next(read_rows(file.path))  # raises when the file holds no rows, which no part of it could know
        yield from (Lines(file.label, lines) for lines in lines_in_parts(file.path, _PART_CHARS))
    yield from _in_parts(_rows(others))


def _in_parts(rows: Iterable[InFile]) -> Iterator[SourcePart]:
    part: list[InFile] = []
    n_chars = 0
    for file, row in rows:
        part.append((file, row))
        n_chars += len(row.raw) if isinstance(row, BadRow) else _n_chars(row.value)
        if n_chars >= _PART_CHARS:
            yield tuple(part)
            part.clear()
            n_chars = 0
    if part:
        yield tuple(part)


def _n_chars(value: Json) -> int:
    """About the size of the value; its texts count, and a little for everything else."""
    match value:
        case str():
            return len(value)
        case list():
            return sum(map(_n_chars, value), 8)
        case dict():
            return sum(map(_n_chars, value.values()), 64)
    return 8
