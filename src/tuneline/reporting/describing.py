"""The data report: what every stage did to the rows, and what the rows of each side look like."""

import json
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeAlias

from msgspec.structs import replace

from tuneline.data.record_files import as_line, iterate_examples, iterate_rejected
from tuneline.data.records import TEACHER_KEY, Example
from tuneline.data.token_counts import CountTokens
from tuneline.errors import DataError
from tuneline.output import write_metrics, write_text
from tuneline.reporting.balance import Balance
from tuneline.reporting.clusters import Clusters, collect, read_clusters
from tuneline.reporting.flow import SIDES, STAGES, Flow, Side, Stage
from tuneline.reporting.lengths import (
    UNITS,
    LengthCounts,
    add_lengths,
    batches,
    bin_edges,
    in_bins,
    length_metrics,
    no_lengths,
)
from tuneline.reporting.lines import write_table
from tuneline.reporting.overlaps import COLUMNS, Overlaps, read_overlaps
from tuneline.reporting.pictures import draw_clusters, draw_lengths, draw_rules, draw_sources
from tuneline.reporting.sample import Sample, as_markdown

Watched: TypeAlias = Callable[[Iterable[Example], str], Iterable[Example]]  # the same rows; shows progress
_KEPT_FROM = "n_kept_from_"  # and a source's name: a key of a stage's metrics


@dataclass(frozen=True, slots=True)
class Folders:
    """What the stages wrote."""

    ingested: Path
    ingest_report: Path
    clean: Path
    clean_report: Path
    splits: Path
    divided: Path  # the rows that split divides: those of clean, or the same with a teacher's rows
    taught: Path | None  # what became of the teacher's rows; None: no teacher

    def rejected(self) -> Iterator[tuple[Stage, Path]]:
        """Each stage that ran, and the rows that it took out."""
        yield "ingest", self.ingested / "rejected.jsonl"
        yield "clean", self.clean / "rejected.jsonl"
        if self.taught is not None:
            yield "augment", self.taught / "rejected.jsonl"
            yield "clean_augmented", self.taught / "clean" / "rejected.jsonl"
        yield "split", self.splits / "rejected.jsonl"

    def clusters(self) -> Iterator[Path]:
        """Of copies among the rows read, and among those with the teacher's."""
        yield self.clean / "clusters.jsonl"
        if self.taught is not None:
            yield self.taught / "clean" / "clusters.jsonl"


@dataclass(slots=True)
class Description:
    """All that the report says; it grows with the number of rules, sources and different lengths, not of rows."""

    clusters: Clusters
    pairs: Overlaps
    flow: Flow = field(default_factory=Flow)
    lengths: dict[Side, LengthCounts] = field(default_factory=lambda: {side: no_lengths() for side in SIDES})
    balance: Balance = field(default_factory=Balance)
    sample: Sample = field(default_factory=Sample)


def describe(folders: Folders, count_tokens: CountTokens, watched: Watched) -> Description:
    """Read every file of the stages once. Raises `DataError` with file:line for what no stage wrote."""
    clusters = collect(cluster for path in folders.clusters() for cluster in read_clusters(path))
    found = Description(clusters, read_overlaps(folders.splits / "contamination.jsonl"))
    found.flow.tallies["ingest"].kept = kept_by_source(folders.ingest_report)
    found.flow.tallies["clean"].kept = kept_by_source(folders.clean_report)
    _add_taught(found.flow, folders.divided, watched)
    for stage, path in folders.rejected():
        for row in iterate_rejected(path):
            found.flow.tallies[stage].reject(row)
            found.sample.add(replace(row, stage=stage))  # clean_augmented is clean once more, and says so
    for side in SIDES:
        for batch in batches(watched(iterate_examples(folders.splits / f"{side}.jsonl"), f"describe {side}")):
            _add_side(found, side, batch, count_tokens)
    return found


def kept_by_source(report: Path) -> Counter[str]:
    """Rows that a stage kept, from its metrics; sources without any are left out. Raises `DataError` for no metrics."""
    try:
        figures = json.loads(report.read_bytes())
        found = {key.removeprefix(_KEPT_FROM): int(n) for key, n in figures.items() if key.startswith(_KEPT_FROM)}
    except (OSError, ValueError, AttributeError, TypeError) as error:
        raise DataError(f"{report}: no metrics of a stage ({error}); run the stage that writes them") from None
    return Counter({source: n for source, n in found.items() if n})


def _add_taught(flow: Flow, divided: Path, watched: Watched) -> None:
    others: Counter[str] = Counter()
    for example in watched(iterate_examples(divided), "describe divided"):
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
    write_metrics(folder / "counts.json", metrics(found), "clean_n_read")
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
