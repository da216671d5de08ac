"""The rules that compare rows, over all cleaned parts: which row is a copy of which."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import groupby
from pathlib import Path
from typing import NamedTuple

import numpy as np

from tuneline.config.schema import CleanConfig, NearDuplicatesRuleConfig
from tuneline.data.dedup import (
    Candidate,
    Copies,
    Edges,
    Flags,
    Indexes,
    candidate_groups,
    compared_text,
    equal_keys,
    equal_neighbours,
    near_copies,
    ranks,
    run_sets,
)
from tuneline.data.parallel import Ordered
from tuneline.data.parts import Part, band_of, bands_of, examples_at
from tuneline.data.shingles import Hashes, offsets_of

SET_RULES = ("exact_duplicates", "folded_duplicates", "near_duplicates")
_GROUPED_ROWS = 2000  # candidates compared in one piece of work


class Copy(NamedTuple):
    """Why a row goes."""

    rule: str
    kept: int  # the row that stays instead, for now: another rule may find a copy of it in turn
    jaccard: float


@dataclass(frozen=True, slots=True)
class _Member:
    """Where a candidate lies on disk; what travels to the process that compares it."""

    row: int
    rank: int
    stem: Path
    index: int  # of the row in its part
    offset: int
    n_bytes: int


def find_copies(parts: Sequence[Part], rules: CleanConfig, ordered: Ordered) -> dict[int, Copy]:
    """Row -> why it goes; rows are numbered through all parts. Held-out rows are compared with nothing."""
    alive = np.concatenate([part.in_pool for part in parts])
    content = np.concatenate([part.content for part in parts])
    # A row that a teacher wrote comes after those of its source: it never takes the place of the row it was made from.
    source = np.concatenate([2 * part.source + part.is_taught for part in parts])
    rank = ranks(source, np.concatenate([part.n_chars for part in parts]), content)
    copies: dict[int, Copy] = {}
    if rules.exact_duplicates.enabled:
        _take_out(copies, "exact_duplicates", equal_keys(content, rank, alive), alive)
    if rules.folded_duplicates.enabled:
        folded = np.concatenate([part.folded for part in parts])
        _take_out(copies, "folded_duplicates", equal_keys(folded, rank, alive), alive)
    if rules.near_duplicates.enabled:
        near = _near(parts, rules.near_duplicates, rank, alive, ordered)
        copies |= {row: Copy("near_duplicates", kept, jaccard) for row, kept, jaccard in near}
    return copies


def _take_out(copies: dict[int, Copy], rule: str, found: Copies, alive: Flags) -> None:
    for row, kept in zip(found.rows.tolist(), found.kept.tolist(), strict=True):
        copies[row] = Copy(rule, kept, 1.0)
    alive[found.rows] = False


def _near(
    parts: Sequence[Part], settings: NearDuplicatesRuleConfig, rank: Indexes, alive: Flags, ordered: Ordered
) -> Iterator[tuple[int, int, float]]:
    edges = ordered(partial(_edges, [(part.stem, len(part.number)) for part in parts], alive), range(settings.bands))
    groups = candidate_groups(edges, len(alive))
    first = offsets_of(np.array([len(part.number) for part in parts], np.int64))
    members = ([_member(parts, first, int(row), int(rank[row])) for row in group] for group in groups)
    for found in ordered(partial(_compare, settings), _batches(members)):
        yield from found


def _edges(files: Sequence[tuple[Path, int]], alive: Flags, band: int) -> Edges:
    """Rows with the same key in a band; `files` are the parts' stems and numbers of rows."""
    return equal_neighbours(np.concatenate([band_of(stem, n_rows, band) for stem, n_rows in files]), alive)


def _member(parts: Sequence[Part], first: Indexes, row: int, rank: int) -> _Member:
    number = int(np.searchsorted(first, row, side="right")) - 1
    index = row - int(first[number])
    part = parts[number]
    return _Member(row, rank, part.stem, index, int(part.offsets[index]), int(part.n_bytes[index]))


def _batches(groups: Iterator[list[_Member]]) -> Iterator[list[list[_Member]]]:
    batch: list[list[_Member]] = []
    for group in groups:
        batch.append(group)
        if sum(map(len, batch)) >= _GROUPED_ROWS:
            yield batch
            batch = []
    if batch:
        yield batch


def _compare(settings: NearDuplicatesRuleConfig, groups: list[list[_Member]]) -> list[tuple[int, int, float]]:
    """(row, kept row, similarity) of every near copy in the groups."""
    members = sorted((member for group in groups for member in group), key=lambda member: member.row)
    bands: list[Hashes] = []
    texts: list[str] = []
    for stem, in_part in groupby(members, key=lambda member: member.stem):
        listed = list(in_part)
        bands += list(bands_of(stem, settings.bands)[[member.index for member in listed]])
        texts += map(compared_text, examples_at(stem, [(member.offset, member.n_bytes) for member in listed]))
    candidates = {
        member.row: Candidate(member.row, member.rank, keys, run_set)
        for member, keys, run_set in zip(members, bands, run_sets(texts, settings.ngram), strict=True)
    }
    copies = [near_copies([candidates[member.row] for member in group], settings) for group in groups]
    return [copy for found in copies for copy in found]
