"""What cleaning writes in the end: the rows that stay, those that go with their reasons, and the clusters of copies."""

from bisect import bisect_left
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import chain, pairwise
from pathlib import Path
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray

from tuneline.data.accounting import Tally
from tuneline.data.comparing import Copy
from tuneline.data.parallel import Ordered
from tuneline.data.parts import Part
from tuneline.data.records import Json, as_line, rejected_as_json, rejection
from tuneline.data.shingles import offsets_of
from tuneline.output import atomic_file

Check = Callable[[Tally], None]


@dataclass(frozen=True, slots=True)
class Outputs:
    """Files that cleaning writes, each whole or not at all."""

    examples: Path
    rejected: Path
    clusters: Path  # a kept row and its copies a line


@dataclass(frozen=True, slots=True)
class _Row:
    """What messages and clusters say of a row."""

    place: str
    id: str


def write_parts(
    parts: Sequence[Part], copies: Mapping[int, Copy], outputs: Outputs, check: Check, ordered: Ordered
) -> Tally:
    """Write the parts' rows but for the copies, which are numbered through all parts; `check` as for `clean_files`."""
    known = _look_up(parts, copies, ordered)
    gone = [known.why(rows) for rows in _by_part(parts, sorted(copies))]
    tally = Tally()
    with _written(outputs.examples) as kept:
        with _written(outputs.rejected) as rejected, _written(outputs.clusters) as clusters:
            work = zip(parts, gone, strict=True)
            for part, why, (counts, lines) in zip(parts, gone, ordered(_rejected_lines, work), strict=True):
                kept.writelines(part.kept_lines(_keep(part, why)))
                rejected.write(lines)
                tally.add(counts)
            clusters.writelines(as_line(cluster) for cluster in known.clusters())
        check(tally)  # a failed run leaves the reasons behind, but no examples
    return tally


@contextmanager
def _written(path: Path) -> Iterator[BinaryIO]:
    with atomic_file(path) as temporary, temporary.open("wb") as file:
        yield file


Why = Mapping[int, tuple[str, str]]  # index of a row in its part -> the rule and the reason for which it goes


@dataclass(frozen=True, slots=True)
class _Copies:
    """All copies, and the rows they and their reasons name; rows are numbered through all parts."""

    of: Mapping[int, Copy]
    rows: Mapping[int, _Row]

    def why(self, rows: Mapping[int, int]) -> Why:
        """`rows`: see `_by_part`."""
        return {index: (self.of[row].rule, self._reason(self.of[row])) for index, row in rows.items()}

    def _reason(self, copy: Copy) -> str:
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


def _look_up(parts: Sequence[Part], copies: Mapping[int, Copy], ordered: Ordered) -> _Copies:
    named = sorted({*copies, *(copy.kept for copy in copies.values())})
    found = ordered(_rows_of, zip(parts, _by_part(parts, named), strict=True))
    return _Copies(copies, dict(zip(named, chain.from_iterable(found), strict=True)))


def _by_part(parts: Sequence[Part], rows: Sequence[int]) -> Iterator[dict[int, int]]:
    """For each part those of the rows (in ascending order) that are its own: index in the part -> row."""
    for begin, end in pairwise(offsets_of(np.array([len(part.number) for part in parts], np.int64)).tolist()):
        yield {row - begin: row for row in rows[bisect_left(rows, begin) : bisect_left(rows, end)]}


def _rows_of(work: tuple[Part, Mapping[int, int]]) -> list[_Row]:
    part, rows = work
    return [_Row(example.place, example.id) for example in part.examples(list(rows))]


def _rejected_lines(work: tuple[Part, Why]) -> tuple[Tally, bytes]:
    """The part's counts, and the lines of its rejected rows in the order in which they were read."""
    part, why = work
    counts, lines = Tally(kept=part.count_by_source(_keep(part, why))), list(part.rejected_lines())
    counts.add(part.tally)
    for (index, (rule, reason)), example in zip(why.items(), part.examples(list(why)), strict=True):
        found = rejection(example, "clean", rule, reason)
        counts.reject(found)
        lines.append((int(part.number[index]), as_line(rejected_as_json(found))))
    return counts, b"".join(line for _, line in sorted(lines))


def _keep(part: Part, why: Why) -> NDArray[np.bool_]:
    keep = np.ones(len(part.number), np.bool_)
    keep[list(why)] = False
    return keep
