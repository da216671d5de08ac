"""The data report: what every stage did to the rows, and what the rows of each side look like."""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeAlias

from tuneline.data.records import TEACHER_KEY, Example, as_line, iterate_examples, iterate_rejected
from tuneline.output import write_metrics, write_text
from tuneline.reporting.balance import Balance
from tuneline.reporting.clusters import Clusters, collect, read_clusters
from tuneline.reporting.contamination import COLUMNS, Pairs, read_pairs
from tuneline.reporting.flow import SIDES, STAGES, Flow, Side, Stage
from tuneline.reporting.lengths import (
    UNITS,
    CountTokens,
    LengthCounts,
    add_lengths,
    batches,
    bin_edges,
    in_bins,
    length_metrics,
    no_lengths,
)
from tuneline.reporting.lines import write_table
from tuneline.reporting.pictures import draw_clusters, draw_lengths, draw_rules, draw_sources
from tuneline.reporting.sample import Sample, as_markdown

Watched: TypeAlias = Callable[[Iterable[Example], str], Iterable[Example]]  # the same rows; shows progress
_WITH_EXAMPLES: tuple[Stage, ...] = ("ingest", "clean")


@dataclass(frozen=True, slots=True)
class Folders:
    """What the stages wrote."""

    ingested: Path
    clean: Path
    splits: Path
    divided: Path  # the rows that split divides: those of clean, or the same with a teacher's rows

    def of(self, stage: Stage) -> Path:
        match stage:
            case "ingest":
                return self.ingested
            case "clean":
                return self.clean
            case "split":
                return self.splits


@dataclass(slots=True)
class Description:
    """All that the report says; it grows with the number of rules, sources and different lengths, not of rows."""

    clusters: Clusters
    pairs: Pairs
    flow: Flow = field(default_factory=Flow)
    lengths: dict[Side, LengthCounts] = field(default_factory=lambda: {side: no_lengths() for side in SIDES})
    balance: Balance = field(default_factory=Balance)
    sample: Sample = field(default_factory=Sample)


def describe(folders: Folders, count_tokens: CountTokens, watched: Watched) -> Description:
    """Read every file of the three stages once. Raises `DataError` with file:line for what no stage wrote."""
    clusters = collect(read_clusters(folders.clean / "clusters.jsonl"))
    found = Description(clusters, read_pairs(folders.splits / "contamination.jsonl"))
    for stage in _WITH_EXAMPLES:
        for example in watched(iterate_examples(folders.of(stage) / "examples.jsonl"), f"describe {stage}"):
            found.flow.tallies[stage].keep(example)
    _add_taught(found.flow, folders, watched)
    for stage in STAGES:
        for row in iterate_rejected(folders.of(stage) / "rejected.jsonl"):
            found.flow.tallies[stage].reject(row)
            found.sample.add(row)
    for side in SIDES:
        for batch in batches(watched(iterate_examples(folders.splits / f"{side}.jsonl"), f"describe {side}")):
            _add_side(found, side, batch, count_tokens)
    return found


def _add_taught(flow: Flow, folders: Folders, watched: Watched) -> None:
    if folders.divided == folders.clean / "examples.jsonl":
        return  # no teacher; a row with that key was read as it is
    others: Counter[str] = Counter()
    for example in watched(iterate_examples(folders.divided), "describe augment"):
        (flow.added if TEACHER_KEY in example.meta else others)[example.source] += 1
    flow.dropped = Counter(flow.tallies["clean"].kept)
    flow.dropped.subtract(others)


def _add_side(found: Description, side: Side, rows: list[Example], count_tokens: CountTokens) -> None:
    add_lengths(found.lengths[side], rows, count_tokens)
    for row in rows:
        found.flow.tallies["split"].keep(row)
        found.flow.sides[side][row.source] += 1
        found.balance.add(side, row)


def write_report(found: Description, folder: Path) -> None:
    """Write tables, samples, metrics and pictures into the folder; the same bytes for the same files."""
    _write_tables(found, folder)
    write_table(folder / "contamination.csv", COLUMNS, found.pairs.rows)
    sample = list(found.sample.rows(STAGES))
    write_text(folder / "rejected.md", as_markdown(sample))
    (folder / "rejected.jsonl").write_bytes(b"".join(as_line(row.as_json()) for row in sample))
    write_metrics(folder / "counts.json", metrics(found))
    draw_rules(found.flow, folder / "rules.png")
    draw_lengths(found.lengths, folder / "lengths.png")
    draw_sources(found.flow, folder / "sources.png")
    draw_clusters(found.clusters, folder / "clusters.png")


def metrics(found: Description) -> dict[str, int]:
    """Rows by stage, rule, source and side; copies; overlaps; lengths of each side."""
    figures = found.flow.metrics() | found.clusters.metrics() | found.pairs.metrics()
    for side in SIDES:
        figures |= length_metrics(side, found.lengths[side])
    return figures


def _write_tables(found: Description, folder: Path) -> None:
    write_table(folder / "rules.csv", ("stage", "rule", "source", "n"), found.flow.rule_rows())
    sources = (row.cells() for row in found.flow.source_rows())
    write_table(folder / "sources.csv", ("source", "read", "ingested", "clean", *SIDES), sources)
    write_table(folder / "labels.csv", ("source", "what", "value", "name", *SIDES), found.balance.rows(SIDES))
    columns = ("at_least", "below", *(f"{side}_{unit}" for unit in UNITS for side in SIDES))
    write_table(folder / "lengths.csv", columns, _length_rows(found.lengths))
    write_table(folder / "clusters.csv", ("size", "n_clusters", "n_copies"), found.clusters.size_rows())
    largest = ("n_rows", "kept", "rules", "min_jaccard", "copies")
    write_table(folder / "largest_clusters.csv", largest, found.clusters.largest_rows())


def _length_rows(lengths: dict[Side, LengthCounts]) -> Iterator[tuple[int, ...]]:
    """Rows of each side in bins that are the same for every unit."""
    counts = [lengths[side][unit] for unit in UNITS for side in SIDES]
    edges = bin_edges(max((max(found, default=0) for found in counts), default=0))
    binned = [in_bins(found, edges) for found in counts]
    yield from zip(edges[:-1], edges[1:], *binned, strict=True)
