"""Files of examples cleaned, part by part in several processes: rules on single rows first, then those on copies.

The parts, and with them every byte that comes out, depend on the files alone: not on the engine or the number of
processes. Memory grows by about 60 bytes a row, whatever the rows' size.
"""

from bisect import bisect_left
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import BinaryIO

import numpy as np

from tuneline.config.schema import CleanConfig, SourceConfig
from tuneline.data.accounting import Tally
from tuneline.data.comparing import SET_RULES, Copy, find_copies
from tuneline.data.engines import engine
from tuneline.data.parallel import line_ranges
from tuneline.data.parts import Part, Work, clean_part
from tuneline.data.records import Json, as_line, rejected_as_json, rejection
from tuneline.data.row_rules import enabled_rules, row_rules
from tuneline.data.shingles import offsets_of
from tuneline.output import atomic_file, scratch_folder

HELD_OUT_ROLES = ("test", "benchmark")  # any two ways to clean are scored on the same rows
_PART_BYTES = 2**21  # small enough that the last parts end together, large enough for the rules' arrays

Watched = Callable[[Iterable[int]], Iterable[int]]
Check = Callable[[Tally], None]


@dataclass(frozen=True, slots=True)
class Outputs:
    """Files that cleaning writes, each whole or not at all."""

    examples: Path
    rejected: Path
    clusters: Path  # a kept row and its copies a line


def rule_names(rules: CleanConfig) -> list[str]:
    """Every rule in its order, switched on or not."""
    return [name for name, _, _ in row_rules(rules)] + list(SET_RULES)


def clean_files(
    examples: Sequence[Path],
    outputs: Outputs,
    sources: Sequence[SourceConfig],
    rules: CleanConfig,
    watched: Watched,
    check: Check,
) -> Tally:
    """Apply the rules to the pool's rows, which keep their order, as if the files were one.

    `watched` gets an item per row done. `check` sees the counts before the examples' file appears, and may raise.

    Rows of test and benchmark sources are held out as given: no rule touches them. A pool row with a test row's
    prompt stays here too; it is the split's business (contamination).
    """
    enabled_rules(rules)  # first of all, so that a rule that cannot be made says so at once
    names = tuple(source.name for source in sources)
    held_out = frozenset(source.name for source in sources if source.role in HELD_OUT_ROLES)
    with scratch_folder(outputs.examples) as folder, engine(rules.engine, rules.workers) as ordered:
        ranges = enumerate(part for path in examples for part in line_ranges(path, _PART_BYTES))
        cleaned = ordered(partial(clean_part, Work(rules, names, held_out, folder)), ranges)
        parts: list[Part] = []
        for _ in watched(_rows(cleaned, parts)):
            pass
        copies = find_copies(parts, rules, ordered) if parts else {}
        return _write(parts, copies, outputs, check)


def _rows(cleaned: Iterable[Part], parts: list[Part]) -> Iterator[int]:
    """An item per row of each part that is done, which goes to `parts`."""
    for part in cleaned:
        parts.append(part)
        yield from range(len(part.number) + len(part.rejected_number))


@dataclass(frozen=True, slots=True)
class _Row:
    """What messages and clusters say of a row."""

    place: str
    id: str


@dataclass(frozen=True, slots=True)
class _Copies:
    """All copies, and the rows they and their reasons name; rows are numbered through all parts."""

    of: Mapping[int, Copy]
    rows: Mapping[int, _Row]

    def reason(self, row: int) -> str:
        copy = self.of[row]
        place = self.rows[copy.kept].place
        match copy.rule:
            case "exact_duplicates":
                return f"a copy of {place}"
            case "folded_duplicates":
                return f"the same words as {place}"
        return f"a near copy of {place} (Jaccard similarity {copy.jaccard:.3f})"

    def clusters(self) -> Iterator[dict[str, Json]]:
        """Each row that stayed in the end, with the rows that went for it or for one of its copies."""
        members: defaultdict[int, list[int]] = defaultdict(list)
        for row, copy in self.of.items():
            kept = copy.kept
            while kept in self.of:
                kept = self.of[kept].kept
            members[kept].append(row)
        for kept in sorted(members):
            found: list[Json] = [self._copy_as_json(row) for row in sorted(members[kept])]
            yield {"kept": self.rows[kept].place, "kept_id": self.rows[kept].id, "copies": found}

    def _copy_as_json(self, row: int) -> dict[str, Json]:
        copy = self.of[row]
        return {"place": self.rows[row].place, "rule": copy.rule, "jaccard": round(copy.jaccard, 4)}


def _write(parts: Sequence[Part], copies: Mapping[int, Copy], outputs: Outputs, check: Check) -> Tally:
    first = offsets_of(np.array([len(part.number) for part in parts], np.int64)).tolist()
    named = sorted({*copies, *(copy.kept for copy in copies.values())})
    known = _Copies(copies, dict(_look_up(parts, first, named)))
    tally = Tally()
    with _written(outputs.examples) as kept:
        with _written(outputs.rejected) as rejected, _written(outputs.clusters) as clusters:
            for part, begin in zip(parts, first, strict=False):
                _write_part(part, begin, known, kept, rejected, tally)
            clusters.writelines(as_line(cluster) for cluster in known.clusters())
        check(tally)  # a failed run leaves the reasons behind, but no examples
    return tally


@contextmanager
def _written(path: Path) -> Iterator[BinaryIO]:
    with atomic_file(path) as temporary, temporary.open("wb") as file:
        yield file


def _look_up(parts: Sequence[Part], first: Sequence[int], rows: Sequence[int]) -> Iterator[tuple[int, _Row]]:
    """The rows, which are in ascending order."""
    for part, begin in zip(parts, first, strict=False):
        end = begin + len(part.number)
        here = rows[bisect_left(rows, begin) : bisect_left(rows, end)]
        for row, example in zip(here, part.examples([row - begin for row in here]), strict=True):
            yield row, _Row(example.place, example.id)


def _write_part(part: Part, begin: int, copies: _Copies, kept: BinaryIO, rejected: BinaryIO, tally: Tally) -> None:
    """The part's kept rows, and its rejected ones in the order in which they were read."""
    gone = [row for row in range(begin, begin + len(part.number)) if row in copies.of]
    keep = np.ones(len(part.number), np.bool_)
    keep[[row - begin for row in gone]] = False
    kept.writelines(part.kept_lines(keep))
    tally.add(part.tally)
    tally.kept += part.count_by_source(keep)
    lines = list(part.rejected_lines())
    for row, example in zip(gone, part.examples([row - begin for row in gone]), strict=True):
        found = rejection(example, "clean", copies.of[row].rule, copies.reason(row))
        tally.reject(found)
        lines.append((int(part.number[row - begin]), as_line(rejected_as_json(found))))
    rejected.writelines(line for _, line in sorted(lines))
