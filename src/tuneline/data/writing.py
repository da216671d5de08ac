"""What cleaning writes in the end: the rows that stay, those that go with their reasons, and the clusters of copies."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby, pairwise
from pathlib import Path

import numpy as np

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

    def place(self, row: int) -> str:
        part, index = self._find(row)
        return part.place(index)

    def id(self, row: int) -> str:
        part, index = self._find(row)
        return id_of(int(part.content[index]))

    def of_parts(self, rows: Indexes) -> Iterator[Indexes]:
        """For each part those of the rows (ascending) that are its own, as it numbers them."""
        for begin, end in pairwise(self.first.tolist()):
            yield rows[np.searchsorted(rows, begin) : np.searchsorted(rows, end)] - begin

    def _find(self, row: int) -> tuple[CleanedPart, int]:
        number = int(np.searchsorted(self.first, row, side="right")) - 1
        return self._parts[number], row - int(self.first[number])


Why = Mapping[int, tuple[str, str]]  # index of a row in its part -> the rule and the reason for which it goes


def _by_part(rows: _Numbered, copies: Removed) -> Iterator[Why]:
    begin = 0
    for gone in rows.of_parts(copies.rows):
        these = range(begin, begin + len(gone))
        yield {index: _why(rows, copies, copy) for index, copy in zip(gone.tolist(), these, strict=True)}
        begin += len(gone)


def _why(rows: _Numbered, copies: Removed, copy: int) -> tuple[str, str]:
    """Rule and reason of a copy, by its index."""
    rule, place = SET_RULES[copies.rule[copy]], rows.place(int(copies.kept[copy]))
    match rule:
        case "exact_duplicates":
            return rule, f"a copy of {place}"
        case "folded_duplicates":
            return rule, f"the same words as {place}"
    return rule, f"a near copy of {place} (Jaccard similarity {copies.jaccard[copy]:.3f})"


def _clusters(rows: _Numbered, copies: Removed) -> Iterator[dict[str, Json]]:
    """Each row that stayed in the end, with the rows that went for it or for one of its copies."""
    parent = np.arange(rows.first[-1])
    parent[copies.rows] = copies.kept
    stayed = roots(parent)[copies.rows]
    in_order = np.argsort(stayed, kind="stable")
    for kept, members in groupby(in_order.tolist(), key=lambda copy: int(stayed[copy])):
        found: list[Json] = [_copy_as_json(rows, copies, copy) for copy in members]
        yield {"kept": rows.place(kept), "kept_id": rows.id(kept), "copies": found}


def _copy_as_json(rows: _Numbered, copies: Removed, copy: int) -> dict[str, Json]:
    rule, jaccard = SET_RULES[copies.rule[copy]], round(float(copies.jaccard[copy]), 4)
    return {"place": rows.place(int(copies.rows[copy])), "rule": rule, "jaccard": jaccard}


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
