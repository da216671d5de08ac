"""From sources to canonical examples, every row accounted for."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import chain, islice
from pathlib import Path

from tuneline.data.conversation import RowProblem, check_conversation, with_system_prompt
from tuneline.data.formats import USED_KEYS, adapt, detect
from tuneline.data.hub import read_hub
from tuneline.data.reading import read_rows
from tuneline.data.records import Example, Rejected, make_example
from tuneline.data.rows import BadRow, Row
from tuneline.data.settings import Format, Source
from tuneline.errors import DataError

RULES = ("reader", "format", "conversation")  # why a row can be rejected here, in the order of the checks
_ROWS_LOOKED_AT = 100  # for format: auto

Watched = Callable[[Iterable[Row | BadRow], str], Iterable[Row | BadRow]]


@dataclass(slots=True)
class Ingested:
    """What came out of all sources; examples are ordered by source, then line."""

    examples: list[Example] = field(default_factory=list)
    rejected: list[Rejected] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)  # per source, for a person: chosen format, keys left out


@dataclass(frozen=True, slots=True)
class Additions:
    """What is the same for the rows of all sources."""

    meta_fields: Sequence[str]  # keys carried along beside the format's own
    system_prompt: str | None  # for conversations that have none


def ingest(sources: Sequence[Source], additions: Additions, watched: Watched) -> Ingested:
    """Read every source; `watched` wraps each source's rows (and its name) to show progress.

    Raises `DataError` for a source that cannot be used at all, and for a meta field that no row has.
    """
    ingested = Ingested()
    for source in sources:
        _ingest_source(source, additions, watched, ingested)
    _check_meta_fields(additions.meta_fields, ingested.examples)
    return ingested


def _ingest_source(source: Source, additions: Additions, watched: Watched, ingested: Ingested) -> None:
    rows = iter(watched(_rows_of(source), source.name))
    first = list(islice(rows, _ROWS_LOOKED_AT))
    chosen = _format(source, first)
    left_out: set[str] = set()
    for row in chain(first, rows):
        if isinstance(row, BadRow):
            ingested.rejected.append(_rejected(source, row, "reader", row.reason))
            continue
        left_out |= row.value.keys() - USED_KEYS[chosen]
        try:
            ingested.examples.append(_example(source, additions, row, chosen))
        except RowProblem as problem:
            ingested.rejected.append(_rejected(source, row, problem.rule, str(problem)))
    ingested.notes.append(_note(source, chosen, left_out - set(additions.meta_fields)))


def _rows_of(source: Source) -> Iterator[Row | BadRow]:
    if source.hub is not None:
        return read_hub(source.hub)
    if source.path is None:
        raise DataError(f"data.sources: {source.name!r} has neither path nor hub; set one")
    return read_rows(Path(source.path))


def _format(source: Source, first: Sequence[Row | BadRow]) -> Format:
    if source.format != "auto":
        return source.format
    rows = [row for row in first if isinstance(row, Row)]
    if not rows and first and isinstance(first[0], BadRow):
        bad = first[0]
        raise DataError(f"{bad.place}: {bad.reason}; none of the first {len(first)} rows can be read")
    return detect(rows, source.name)


def _example(source: Source, additions: Additions, row: Row, chosen: Format) -> Example:
    messages, text = adapt(row.value, chosen)
    if text is None:
        messages = with_system_prompt(messages, additions.system_prompt)
        check_conversation(messages)
    meta = {key: row.value[key] for key in additions.meta_fields if key in row.value}
    return make_example(source.name, row.line, messages, text, meta)


def _rejected(source: Source, row: Row | BadRow, rule: str, reason: str) -> Rejected:
    content = row.raw if isinstance(row, BadRow) else row.value
    return Rejected(source.name, row.line, "ingest", rule, f"{row.place}: {reason}", content)


def _note(source: Source, chosen: Format, left_out: set[str]) -> str:
    how = "found by its keys" if source.format == "auto" else "as configured"
    keys = f"; keys left out: {', '.join(sorted(left_out))}" if left_out else ""
    return f"{source.name}: format {chosen} ({how}){keys}"


def _check_meta_fields(names: Sequence[str], examples: Sequence[Example]) -> None:
    present = {key for example in examples for key in example.meta}
    missing = [name for name in names if name not in present]
    if missing and examples:
        raise DataError(f"data.meta_fields: {missing[0]!r} is in no row of any source; correct or remove it")
