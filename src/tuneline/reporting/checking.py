"""A file on trial: read strictly, its format detected, every rule applied, and nothing written that stays."""

import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Protocol

from msgspec import structs

from tuneline.config.schema import CleanConfig, SourceConfig, SourceFormat
from tuneline.data import cleaning, ingesting
from tuneline.data.accounting import Tally
from tuneline.data.adapting import RULES
from tuneline.data.compressed import unpacked_suffix
from tuneline.data.opening import Additions
from tuneline.data.parallel import n_cores
from tuneline.data.record_files import iterate_examples, iterate_rejected
from tuneline.data.records import Rejected
from tuneline.data.row_rules import row_rules
from tuneline.data.writing import CleanOutputs
from tuneline.reporting.clusters import Cluster, Clusters, collect, read_clusters
from tuneline.reporting.lengths import LengthCounts, add_lengths, batches, no_lengths
from tuneline.reporting.sample import Shown, as_shown


class Watched(Protocol):
    """The same items, one per row done; shows progress."""

    def __call__(self, rows: Iterable[int], what: str) -> Iterable[int]: ...


_BYTES_FOR_PROCESSES = 2**24  # of a file; a smaller one is checked before other processes would have started


@dataclass(slots=True)
class Checked:
    """What is known of the file; texts are masked and shortened."""

    notes: list[str]  # the format, how it was found, keys that nothing reads
    read: Tally  # of reading and adapting
    cleaned: Tally
    clusters: Clusters
    kinds: Counter[str] = field(default_factory=Counter)  # of the rows that could be read
    lengths: LengthCounts = field(default_factory=no_lengths)  # of the same rows
    first: dict[str, list[Shown]] = field(default_factory=lambda: defaultdict(list))  # rule -> its first rejected rows

    @property
    def n_read(self) -> int:
        return self.read.n_kept + self.read.n_rejected

    @property
    def n_rejected(self) -> int:
        return self.read.n_rejected + self.cleaned.n_rejected


def rules_in_order(rules: CleanConfig) -> dict[str, bool]:
    """Every rule, those of reading first, and whether it is switched on."""
    comparing = {
        "exact_duplicates": rules.exact_duplicates.enabled,
        "folded_duplicates": rules.folded_duplicates.enabled,
        "near_duplicates": rules.near_duplicates.enabled,
    }
    return dict.fromkeys(RULES, True) | {name: enabled for name, enabled, _ in row_rules(rules)} | comparing


def check_file(
    path: Path, chosen: SourceFormat, columns: Mapping[str, str], rules: CleanConfig, n_shown: int, watched: Watched
) -> Checked:
    """Try the file, with up to `n_shown` rejected rows of every rule.

    The rows pass through a temporary folder of the system, which takes up to three times their size for the time being.
    Raises `DataError` for a file that cannot be used at all.
    """
    source = _source(path, chosen, columns)
    n_workers = n_cores() if path.stat().st_size >= _BYTES_FOR_PROCESSES else 1
    rules = rules.model_copy(update={"engine": "local", "workers": n_workers})
    additions = Additions(meta_fields=(), system_prompt=None, folder=Path(path.resolve().anchor))
    with TemporaryDirectory(prefix="tuneline-check-") as name:
        folder = Path(name)
        read = ingesting.IngestOutputs(folder / "read.jsonl", folder / "unread.jsonl")
        ingested = ingesting.ingest([source], additions, read, n_workers, watched, _accept)
        outputs = CleanOutputs(folder / "clean.jsonl", folder / "rejected.jsonl", folder / "clusters.jsonl")
        shown = partial(watched, what="clean")
        cleaned = cleaning.clean_files([read.examples], outputs, [source], rules, shown, _accept)
        found = Checked(ingested.notes, ingested.tally, cleaned, collect(_clusters(outputs.clusters, path)))
        _look_at_rows(found, read.examples)
        for rejected in (read.rejected, outputs.rejected):
            _look_at_rejected(found, iterate_rejected(rejected), n_shown, path)
    return found


def _source(path: Path, chosen: SourceFormat, columns: Mapping[str, str]) -> SourceConfig:
    """A pool source named as the file, so that a row's place reads file:line."""
    # not validated: in an experiment a path must be inside the repository, here it may be anywhere
    return SourceConfig.model_construct(
        name=path.name,
        path=str(path),
        hub=None,
        format=chosen,
        role="pool",
        columns=columns,
        system_prompt=None,
        task_prefix=None,
        weight=None,
        count=None,
    )


def _accept(_: Tally) -> None:
    """Any share of rejected rows is a result here, no failure."""


def _look_at_rows(found: Checked, path: Path) -> None:
    for batch in batches(iterate_examples(path)):
        found.kinds.update(row.kind for row in batch)
        add_lengths(found.lengths, batch, None)


def _look_at_rejected(found: Checked, rows: Iterable[Rejected], n_shown: int, path: Path) -> None:
    for row in rows:
        if len(found.first[row.rule]) < n_shown:
            # the place is shown beside it; where a file has elements, their line is another number
            reason = re.sub(rf"^{re.escape(str(path))}:[0-9]+: ", "", row.reason)
            shown = as_shown(structs.replace(row, reason=_by_element(reason, path)))
            found.first[row.rule].append(replace(shown, place=_by_element(shown.place, path)))


def _clusters(clusters: Path, path: Path) -> Iterator[Cluster]:
    for found in read_clusters(clusters):
        copies = tuple(_by_element(place, path) for place in found.copies)
        yield replace(found, kept=_by_element(found.kept, path), copies=copies)


def _by_element(text: str, path: Path) -> str:
    """The text with places in a .json file as rows.json[2], which nobody takes for a line."""
    if unpacked_suffix(path) != ".json":
        return text
    return re.sub(rf"(?<!\S){re.escape(path.name)}:([0-9]+)(?!\S)", lambda place: f"{path.name}[{place[1]}]", text)
