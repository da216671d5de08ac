"""What cleaning writes in the end: the rows that stay, those that go with their reasons, and the clusters of copies."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice, pairwise
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tuneline.data.accounting import Check, Tally
from tuneline.data.arrays import Flags, Indexes
from tuneline.data.comparing import SET_RULES, Removed
from tuneline.data.near_copies import roots
from tuneline.data.parallel import Ordered
from tuneline.data.parts import CleanedPart
from tuneline.data.record_files import as_line, rejected_as_json
from tuneline.data.records import Json, id_of, rejection
from tuneline.data.shingles import offsets_of
from tuneline.output import atomic_writer

_ROWS_AT_ONCE = 1000  # looked for among the parts, and Python's numbers: a list of all takes five times an array's room


@dataclass(frozen=True, slots=True)
class CleanOutputs:
    """Files that cleaning writes, each whole or not at all."""

    examples: Path
    rejected: Path
    clusters: Path  # a kept row and its copies a line


def write_parts(
    parts: Sequence[CleanedPart], copies: Removed, outputs: CleanOutputs, check: Check, ordered: Ordered
) -> Tally:
    """Write the parts' rows but for the copies; `check` as for `clean_files`."""
    rows = _Numbered(parts)
    tally = Tally()
    with atomic_writer(outputs.examples) as kept:
        with atomic_writer(outputs.rejected) as rejected, atomic_writer(outputs.clusters) as clusters:
            work = ((part, why) for part, why in zip(parts, _by_part(rows, copies), strict=True))
            for part, gone, (counts, lines) in zip(
                parts, rows.of_parts(copies.rows), ordered(_rejected_lines, work), strict=True
            ):
                kept.write(part.kept_lines(_all_but(gone, len(part.number))))
                rejected.write(lines)
                tally.add(counts)
            clusters.writelines(as_line(cluster) for cluster in _clusters(rows, copies))
        check(tally)  # a failed run leaves the reasons behind, but no examples
    return tally


class _Numbered:
    """All parts' rows, numbered through."""

    def __init__(self, parts: Sequence[CleanedPart]) -> None:
        self._parts = parts
        self.first = offsets_of(np.array([len(part.number) for part in parts], np.int64))  # [n_parts + 1]

    def places(self, rows: Indexes) -> Iterator[str]:
        return (part.place(index) for part, index in self._found(rows))

    def ids(self, rows: Indexes) -> Iterator[str]:
        return (id_of(int(part.content[index])) for part, index in self._found(rows))

    def of_parts(self, rows: Indexes) -> Iterator[Indexes]:
        """For each part those of the rows (ascending) that are its own, as it numbers them."""
        for begin, end in pairwise(self.first.tolist()):
            yield rows[np.searchsorted(rows, begin) : np.searchsorted(rows, end)] - begin

    def _found(self, rows: Indexes) -> Iterator[tuple[CleanedPart, int]]:
        """For each row its part and its index there."""
        for begin in range(0, len(rows), _ROWS_AT_ONCE):
            these = rows[begin : begin + _ROWS_AT_ONCE]
            number = np.searchsorted(self.first, these, side="right") - 1
            for part, index in zip(number.tolist(), (these - self.first[number]).tolist(), strict=True):
                yield self._parts[part], index


Why = Mapping[int, tuple[str, str]]  # index of a row in its part -> the rule and the reason for which it goes


def _by_part(rows: _Numbered, copies: Removed) -> Iterator[Why]:
    reasons = zip(_each(copies.rule), rows.places(copies.kept), _each(copies.jaccard), strict=True)
    for gone in rows.of_parts(copies.rows):
        yield {index: _why(*next(reasons)) for index in gone.tolist()}


def _why(number: int, kept: str, jaccard: float) -> tuple[str, str]:
    """Rule and reason of a copy: the rule's number, the place of the row that stays, and how similar they are."""
    rule = SET_RULES[number]
    match rule:
        case "exact_duplicates":
            return rule, f"a copy of {kept}"
        case "folded_duplicates":
            return rule, f"the same words as {kept}"
    return rule, f"a near copy of {kept} (Jaccard similarity {jaccard:.3f})"


def _clusters(rows: _Numbered, copies: Removed) -> Iterator[dict[str, Json]]:
    """Each row that stayed in the end, with the rows that went for it or for one of its copies."""
    parent = np.arange(rows.first[-1])
    parent[copies.rows] = copies.kept
    stayed = roots(parent)[copies.rows]
    order = np.argsort(stayed, kind="stable")
    kept, n_copies = np.unique_counts(stayed)
    found = zip(rows.places(copies.rows[order]), _each(copies.rule[order]), _each(copies.jaccard[order]), strict=True)
    for place, id_, n in zip(rows.places(kept), rows.ids(kept), _each(n_copies), strict=True):
        yield {"kept": place, "kept_id": id_, "copies": [_copy_as_json(*copy) for copy in islice(found, n)]}


def _copy_as_json(place: str, rule: int, jaccard: float) -> Json:
    return {"place": place, "rule": SET_RULES[rule], "jaccard": round(jaccard, 4)}


def _each(values: NDArray[Any]) -> Iterator[Any]:
    """The values as numbers of Python."""
    for begin in range(0, len(values), _ROWS_AT_ONCE):
        yield from values[begin : begin + _ROWS_AT_ONCE].tolist()


def _rejected_lines(work: tuple[CleanedPart, Why]) -> tuple[Tally, bytes]:
    """The part's counts, and the lines of its rejected rows in the order in which they were read."""
    part, why = work
    counts = Tally(kept=part.count_by_source(_all_but(list(why), len(part.number))))
    counts.add(part.tally)
    lines = list(part.rejected_lines())
    for (index, (rule, reason)), example in zip(why.items(), part.examples(list(why)), strict=True):
        found = rejection(example, "clean", rule, reason)
        counts.reject(found)
        lines.append((int(part.number[index]), as_line(rejected_as_json(found))))
    return counts, b"".join(line for _, line in sorted(lines))


def _all_but(gone: Indexes | list[int], n_rows: int) -> Flags:
    keep = np.ones(n_rows, np.bool_)
    keep[gone] = False
    return keep
