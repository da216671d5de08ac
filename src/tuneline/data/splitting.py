"""Train, validation, test and benchmark rows of files of examples: drawn, cleared of contamination, mixed, written.

The files are read twice, their held-out rows three times, and copied once. In memory stay some numbers of every row
(about 60 bytes), whatever its size; what held-out rows are recognised by lies in a file.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np

from tuneline.config.schema import ContaminationConfig, MixtureConfig, SourceConfig, SplitConfig
from tuneline.data.arrays import Indexes
from tuneline.data.contamination import CONTAMINATION_KINDS, Evidence, Pair, pair_as_json
from tuneline.data.held_out import Overlap, index_of, load_index, look, one_each
from tuneline.data.mixing import Mixed, mix
from tuneline.data.parallel import LineRange, Ordered, line_ranges, processes
from tuneline.data.record_files import as_line, example_of, write_rejected
from tuneline.data.records import Example, rejection
from tuneline.data.shingles import offsets_of
from tuneline.data.sides import SIDES, DrawnRows, Side, StoredRows, all_rows, examples_at, scan
from tuneline.errors import DataError
from tuneline.output import atomic_writer

_HANDED_ON = "a teacher made it from a row of which is true:"
_PART_BYTES = 2**21  # small enough that the last parts end together

Watched = Callable[[Iterable[int], str], Iterable[int]]


@dataclass(frozen=True, slots=True)
class Divided:
    """All rows of the files with their sides, and the learned ones that give a held-out row away."""

    sources: Sequence[SourceConfig]
    files: Sequence[Path]
    first: Indexes  # [n_files + 1] number of each file's first row
    rows: DrawnRows
    held_out: StoredRows  # in the order of the rows
    pairs: Mapping[int, Sequence[Pair]]  # by row, ascending; a pair's held_out is an index of the held-out rows

    def on(self, side: Side) -> Indexes:
        """Rows on a side, ascending, without those that are rejected."""
        is_kept = np.ones(len(self.rows.side), np.bool_)
        is_kept[list(self.pairs)] = False
        return np.flatnonzero(is_kept & (self.rows.side == SIDES.index(side)))

    def lines(self, rows: Indexes) -> Iterator[bytes]:
        """The rows' lines as they stand in the files."""
        numbers = np.searchsorted(self.first, rows, side="right") - 1
        with ExitStack() as stack:
            files = [stack.enter_context(path.open("rb")) for path in self.files]
            for number, offset in zip(numbers.tolist(), self.rows.offset[rows].tolist(), strict=True):
                files[number].seek(offset)
                yield files[number].readline().rstrip(b"\n") + b"\n"

    def contaminated(self) -> Iterator[tuple[Example, Sequence[Pair]]]:
        """Each row that gives a held-out one away, and its pairs."""
        for line, pairs in zip(self.lines(np.array(list(self.pairs), np.int64)), self.pairs.values(), strict=True):
            yield example_of(line, "split"), pairs

    def reason(self, pair: Pair) -> str:
        """Why the pair's training row goes, naming the held-out row."""
        held_out = self.held_out[pair.held_out]
        is_benchmark = any(source.name == held_out.source and source.role == "benchmark" for source in self.sources)
        return f"{pair.link} {held_out.place}, a {'benchmark' if is_benchmark else 'test'} row"


def divide(
    files: Sequence[Path],
    sources: Sequence[SourceConfig],
    settings: SplitConfig,
    n_workers: int,
    scratch: Path,
    watched: Watched,
) -> Divided:
    """Sources with role test and benchmark are held out whole; the pool is drawn by the hash of each row's group.

    So a group of the pool is never on two sides, and a row's side changes neither when rows are reordered nor when
    others are added, unless it now gives a held-out row away (or a run of words has become a template, and it no longer
    does). Test rows stay test rows whatever `val_fraction` is. Rows with role replay all go to training, also beside
    a validation row of their group.

    The same comes out for any number of processes. `scratch` is an empty folder; `watched` gets an item per row.
    """
    given = any(source.role == "test" for source in sources)
    assert not given or settings.test_fraction == 0, "the configuration says which of the two gives the test"
    ranges = [list(line_ranges(path, _PART_BYTES)) for path in files]
    parts = [part for of_file in ranges for part in of_file]
    with processes(n_workers) as ordered:
        scanned: list[DrawnRows] = []
        for _ in watched(_scan_parts(ordered(partial(scan, tuple(sources), settings), parts), scanned), "split"):
            pass
        rows = all_rows(scanned)
        first = offsets_of(np.array([len(part.side) for part in scanned], np.int64))
        of_files = first[np.cumsum([0, *map(len, ranges)])]
        held_out = _held_out(files, of_files, rows)
        learned = list(_learned(parts, rows, first))
        pairs = _find_pairs(rows, learned, held_out, settings.contamination, scratch, ordered, watched)
    return Divided(sources, files, of_files, rows, held_out, pairs)


def _scan_parts(results: Iterable[DrawnRows], into: list[DrawnRows]) -> Iterator[int]:
    """An item per row of each part that is done, which goes to `into`."""
    for part in results:
        into.append(part)
        yield from range(len(part.side))


def _held_out(files: Sequence[Path], first: Indexes, rows: DrawnRows) -> StoredRows:
    numbers = np.flatnonzero(rows.is_held_out())
    return StoredRows(files, np.searchsorted(first, numbers, side="right") - 1, rows.offset[numbers])


@dataclass(frozen=True, slots=True)
class _Learned:
    """A part's rows that are compared with the held-out ones."""

    path: Path
    offsets: Indexes  # [n_learned] where their lines begin
    numbers: Indexes  # [n_learned] among all rows


def _learned(parts: Sequence[LineRange], rows: DrawnRows, first: Indexes) -> Iterator[_Learned]:
    learned = np.flatnonzero(rows.is_learned())
    for part, numbers in zip(parts, np.split(learned, np.searchsorted(learned, first[1:])), strict=False):
        yield _Learned(part.path, rows.offset[numbers], numbers)


def _find_pairs(
    rows: DrawnRows,
    learned: Sequence[_Learned],
    held_out: StoredRows,
    settings: ContaminationConfig,
    scratch: Path,
    ordered: Ordered,
    watched: Watched,
) -> dict[int, list[Pair]]:
    path = index_of(held_out, settings).save(scratch)
    index = load_index(path)
    evidence = Evidence(index, held_out, settings)
    compared = ordered(partial(_compare, settings, path), learned)
    for _ in watched(_gather(zip(learned, compared, strict=True), evidence), "contamination"):
        pass
    of_prompt = np.repeat(np.arange(len(rows.side)), rows.n_prompts)
    is_learned = rows.is_learned()[of_prompt]
    pairs = evidence.pairs(index.prompts.find(one_each(rows.prompts[is_learned], of_prompt[is_learned])))
    return dict(sorted({**pairs, **_handed_on(rows, pairs)}.items()))


def _handed_on(rows: DrawnRows, pairs: Mapping[int, list[Pair]]) -> dict[int, list[Pair]]:
    """Rows that a teacher made from a row that gives a held-out one away: other words, the same secret."""
    by_id = {int(rows.id[row]): found for row, found in pairs.items()}
    handed_on: dict[int, list[Pair]] = {}
    for row in np.flatnonzero(rows.seed).tolist():
        if row not in pairs and int(rows.seed[row]) in by_id:
            found = by_id[int(rows.seed[row])]
            handed_on[row] = [replace(pair, row=row, link=f"{_HANDED_ON} {pair.link}") for pair in found]
    return handed_on


def _compare(settings: ContaminationConfig, index: Path, part: _Learned) -> Overlap:
    examples = list(examples_at(part.path, part.offsets.tolist()))
    return look(examples, load_index(index), settings).numbered(part.numbers)


def _gather(results: Iterable[tuple[_Learned, Overlap]], evidence: Evidence) -> Iterator[int]:
    """An item per row of each part that is done, whose overlap goes to the evidence."""
    for part, overlap in results:
        evidence.add(overlap)
        yield from range(len(part.numbers))


def refuse_contamination(divided: Divided, settings: ContaminationConfig, pairs_file: Path) -> None:
    """With action fail: raises `DataError` naming the first contaminated row, and leaves all pairs in the file."""
    first = next(divided.contaminated(), None)
    if first is not None and (settings.action == "fail" or not len(divided.on("train"))):
        write_pairs(pairs_file, divided)
    if first is None or settings.action == "drop":
        return
    row, pairs = first
    raise DataError(
        f"{row.place}: {divided.reason(pairs[0])}; {len(divided.pairs)} such rows, all in {pairs_file};"
        " remove them, or set split.contamination.action: drop"
    )


def mix_training_rows(divided: Divided, mixture: MixtureConfig, settings: SplitConfig, seed: int) -> Mixed:
    """The mixture of the training rows, as rows of the files. Raises `DataError` for an empty side."""
    _check_sides(divided, settings)
    train = divided.on("train")
    mixed = mix(divided.rows.source[train], divided.rows.id[train], divided.sources, mixture, seed)
    return replace(mixed, rows=train[mixed.rows])


def _check_sides(divided: Divided, settings: SplitConfig) -> None:
    n_pool = int(np.count_nonzero(divided.rows.is_learned()))
    if not len(divided.on("train")):
        gone = f"{len(divided.pairs)} of them give held-out rows away; " if divided.pairs else ""
        raise DataError(f"split: no training row is left of {n_pool} pool rows; {gone}add data or lower the fractions")
    if not len(divided.on("val")) and settings.val_fraction > 0:
        raise DataError(f"split: split.val_fraction {settings.val_fraction} of {n_pool} pool rows is no row; raise it")
    if not len(divided.on("test")):
        raise DataError("split: there is no test row; give a source role test, or raise split.test_fraction")


def write_sides(folder: Path, divided: Divided, mixed: Mixed) -> None:
    """Write train.jsonl, val.jsonl, test.jsonl, rejected.jsonl and contamination.jsonl.

    A benchmark's rows and those that the mixture leaves out are on no side; the metrics count both.
    """
    for name, rows in (("train", mixed.rows), ("val", divided.on("val")), ("test", divided.on("test"))):
        with (folder / f"{name}.jsonl").open("wb") as file:
            file.writelines(divided.lines(rows))
    rejected = (rejection(row, "split", "contamination", divided.reason(p[0])) for row, p in divided.contaminated())
    write_rejected(folder / "rejected.jsonl", rejected)
    write_pairs(folder / "contamination.jsonl", divided)


def write_pairs(path: Path, divided: Divided) -> None:
    """Write a training row and a held-out one that it gives away a line; a row has as many lines as such pairs."""
    with atomic_writer(path) as file:
        for row, pairs in divided.contaminated():
            file.writelines(as_line(pair_as_json(pair, row, divided.held_out[pair.held_out])) for pair in pairs)


def count_sides(divided: Divided, mixed: Mixed) -> dict[str, int | float]:
    """Rows and groups on each side, in all and by source, and the rows on none, as metrics.

    n_read == n_train + n_val + n_test + n_benchmark + n_taught_on_no_side + n_rejected_by_contamination
    + n_left_out_by_mixture - n_repeats_by_mixture. A row may be contaminated in several ways, and is rejected once.
    """
    kinds = Counter(kind for pairs in divided.pairs.values() for kind in {pair.kind for pair in pairs})
    metrics: dict[str, int | float] = {
        "n_read": len(divided.rows.side),
        "n_rejected_by_contamination": len(divided.pairs),
        "n_benchmark": len(divided.on("benchmark")),
        "n_taught_on_no_side": len(divided.on("none")),
    }
    metrics |= {f"n_contaminated_by_{kind}": kinds[kind] for kind in CONTAMINATION_KINDS} | mixed.metrics()
    groups = divided.rows.groups()
    for side, rows in (("train", mixed.rows), ("val", divided.on("val")), ("test", divided.on("test"))):
        found = np.bincount(divided.rows.source[rows], minlength=len(divided.sources)).tolist()
        metrics |= {f"n_{side}": len(rows), f"n_{side}_groups": len(np.unique(groups[rows]))}
        metrics |= {f"n_{side}_from_{source.name}": n for source, n in zip(divided.sources, found, strict=True)}
    return metrics
