"""From sources to canonical examples, every row accounted for.

Rows are turned into examples a part at a time, so memory does not grow with the sources. Lines of a .jsonl file are
read by several processes; other files are read by one, and adapted by all. The bytes that come out are the same for
any number of processes.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import BinaryIO, TypeAlias

from tuneline.config.schema import SourceConfig
from tuneline.data.accounting import Check, Tally
from tuneline.data.adapting import Adapter
from tuneline.data.opening import Additions, Opened, SourcePart, open_source, rows_of
from tuneline.data.parallel import processes
from tuneline.data.record_files import as_line, rejected_as_json
from tuneline.data.records import Example, as_json
from tuneline.data.rows import Row
from tuneline.errors import DataError
from tuneline.output import atomic_writer

Watched: TypeAlias = Callable[[Iterable[int], str], Iterable[int]]


@dataclass(frozen=True, slots=True)
class IngestOutputs:
    """Files that are written, each whole or not at all; rows are in the order of source, file and line."""

    examples: Path
    rejected: Path


@dataclass(slots=True)
class Ingested:
    """What is known of all sources once their rows are written."""

    tally: Tally = field(default_factory=Tally)
    notes: list[str] = field(default_factory=list)  # per source, for a person: format, keys left out
    meta_keys: set[str] = field(default_factory=set)  # data.meta_fields that some row has


def ingest(
    sources: Sequence[SourceConfig],
    additions: Additions,
    outputs: IngestOutputs,
    n_workers: int,
    watched: Watched,
    check: Check,
) -> Ingested:
    """Read every source; `watched` gets an item per row done, and the source's name, to show progress.

    `check` sees the counts before the file of examples appears, and may raise: the reasons are then there, the examples
    are not. Raises `DataError` for a source that cannot be used at all, and for a meta field that no row has.
    """
    ingested = Ingested()
    with atomic_writer(outputs.examples) as kept:
        with atomic_writer(outputs.rejected) as rejected, processes(n_workers) as ordered:
            # all of them before the first row: a source that is missing says so at once, not hours later
            found = [open_source(source, f"data.sources[{at}]", additions) for at, source in enumerate(sources)]
            for source, opened in zip(sources, found, strict=True):
                converted = ordered(partial(_convert, opened.adapter), opened.parts)
                left_out: set[str] = set()
                for _ in watched(_write(converted, kept, rejected, ingested, left_out), source.name):
                    pass
                ingested.notes.append(_note(opened, left_out))
        _check_meta_fields(additions.meta_fields, ingested)
        check(ingested.tally)
    return ingested


@dataclass(slots=True)
class _Converted:
    """A part of a source as lines of the files, and what there is to know of it."""

    kept: bytes
    rejected: bytes
    tally: Tally
    left_out: set[str]  # keys that nothing reads
    meta_keys: set[str]


def _convert(adapter: Adapter, part: SourcePart) -> _Converted:
    kept, rejected = bytearray(), bytearray()
    converted = _Converted(b"", b"", Tally(), set(), set())
    for file, row in rows_of(part):
        if isinstance(row, Row):
            converted.left_out |= adapter.left_out(row)
        match adapter.outcome(row, file):
            case Example() as example:
                kept += as_line(as_json(example))
                converted.tally.keep(example)
                converted.meta_keys |= example.meta.keys()
            case gone:
                rejected += as_line(rejected_as_json(gone))
                converted.tally.reject(gone)
    converted.kept, converted.rejected = bytes(kept), bytes(rejected)
    return converted


def _write(
    parts: Iterable[_Converted], kept: BinaryIO, rejected: BinaryIO, ingested: Ingested, left_out: set[str]
) -> Iterator[int]:
    """Write the parts in their order; an item per row."""
    for part in parts:
        kept.write(part.kept)
        rejected.write(part.rejected)
        left_out |= part.left_out
        ingested.tally.add(part.tally)
        ingested.meta_keys |= part.meta_keys
        yield from range(part.tally.n_kept + part.tally.n_rejected)


def _note(opened: Opened, left_out: set[str]) -> str:
    return opened.note + (f"; keys left out: {', '.join(sorted(left_out))}" if left_out else "")


def _check_meta_fields(names: Sequence[str], ingested: Ingested) -> None:
    missing = [name for name in names if name not in ingested.meta_keys]
    if missing and ingested.tally.n_kept:
        raise DataError(f"data.meta_fields: {missing[0]!r} is in no row of any source; correct or remove it")
