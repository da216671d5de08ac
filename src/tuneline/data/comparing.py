"""The rules that compare rows, over all cleaned parts: which row is a copy of which."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import groupby
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from tuneline.config.schema import CleanConfig, NearDuplicatesRuleConfig
from tuneline.data.arrays import Flags, Hashes, Indexes
from tuneline.data.dedup import Copies, answer_text, compared_text, equal_keys, ranks
from tuneline.data.near_copies import (
    Candidate,
    Edges,
    candidate_groups,
    equal_neighbours,
    near_copies,
    run_sets,
    shared_keys,
)
from tuneline.data.parallel import Ordered
from tuneline.data.parts import CleanedPart, band_of, bands_of, kept_examples_at
from tuneline.data.records import Example
from tuneline.data.shingles import offsets_of

SET_RULES = ("exact_duplicates", "folded_duplicates", "near_duplicates")
_GROUPED_ROWS = 500  # candidates compared in one piece of work, unless one group has more
_READ_ROWS = 500  # candidates whose texts are in memory at a time


class Removed(NamedTuple):
    """Why rows go; rows are numbered through all parts."""

    rows: Indexes  # [n_copies] ascending
    kept: Indexes  # [n_copies] the row that stays instead, for now: another rule may find a copy of it in turn
    jaccard: NDArray[np.float64]  # [n_copies]
    rule: NDArray[np.uint8]  # [n_copies] index in SET_RULES


def find_copies(parts: Sequence[CleanedPart], rules: CleanConfig, ordered: Ordered) -> Removed:
    """The rows that go. Held-out rows are compared with nothing."""
    if not parts:
        return _removed(())
    alive = np.concatenate([part.in_pool for part in parts])
    content = np.concatenate([part.content for part in parts])
    # A row that a teacher wrote comes after those of its source: it never takes the place of the row it was made from.
    source = np.concatenate([2 * part.source + part.is_taught for part in parts])
    rank = ranks(source, np.concatenate([part.n_chars for part in parts]), content)
    exact = folded = near = _NONE
    if rules.exact_duplicates.enabled:
        exact = equal_keys(content, rank, alive)
        alive[exact.rows] = False
    if rules.folded_duplicates.enabled:
        folded = equal_keys(np.concatenate([part.folded for part in parts]), rank, alive)
        alive[folded.rows] = False
    if rules.near_duplicates.enabled:
        near = _joined(list(_near(parts, rules.near_duplicates, rank, alive, ordered)))
    return _removed((exact, folded, near))


_NONE = Copies(np.empty(0, np.int64), np.empty(0, np.int64), np.empty(0))


def _removed(by_rule: Sequence[Copies]) -> Removed:
    """`by_rule`: in the order of SET_RULES."""
    rows, kept, jaccard = _joined(by_rule)
    rule = np.repeat(np.arange(len(by_rule), dtype=np.uint8), [len(found.rows) for found in by_rule])
    order = np.argsort(rows)
    return Removed(rows[order], kept[order], jaccard[order], rule[order])


def _joined(found: Sequence[Copies]) -> Copies:
    return Copies(*(np.concatenate(arrays) for arrays in zip(*(found or [_NONE]), strict=True)))


@dataclass(frozen=True, slots=True)
class _Members:
    """Candidates, group after group, each in order of rank, and where they lie on disk. Arrays are [n_members]."""

    stems: Sequence[Path]  # of the parts that hold some
    group: Indexes
    row: Indexes
    part: Indexes  # index in stems
    index: Indexes  # in the part
    offset: Indexes  # of the row's line in the part's file, in bytes
    n_bytes: Indexes  # of the line


def _near(
    parts: Sequence[CleanedPart], settings: NearDuplicatesRuleConfig, rank: Indexes, alive: Flags, ordered: Ordered
) -> Iterator[Copies]:
    edges = ordered(partial(_edges, [(part.stem, len(part.number)) for part in parts], alive), range(settings.bands))
    groups = candidate_groups(edges, len(alive))
    return ordered(partial(_compare, settings), _batches(parts, rank, groups))


def _edges(files: Sequence[tuple[Path, int]], alive: Flags, band: int) -> Edges:
    """Rows with the same key in a band; `files` are the parts' stems and numbers of rows."""
    return equal_neighbours(np.concatenate([band_of(stem, n_rows, band) for stem, n_rows in files]), alive)


def _batches(parts: Sequence[CleanedPart], rank: Indexes, groups: Iterable[Indexes]) -> Iterator[_Members]:
    first = offsets_of(np.array([len(part.number) for part in parts], np.int64))
    for batch in _of_similar_size(groups):
        row = np.concatenate(batch)
        group = np.repeat(np.arange(len(batch)), list(map(len, batch)))
        order = np.lexsort((rank[row], group))
        yield _members(parts, first, group[order], row[order])


def _of_similar_size(groups: Iterable[Indexes]) -> Iterator[list[Indexes]]:
    batch: list[Indexes] = []
    for group in groups:
        batch.append(group)
        if sum(map(len, batch)) >= _GROUPED_ROWS:
            yield batch
            batch = []
    if batch:
        yield batch


def _members(parts: Sequence[CleanedPart], first: Indexes, group: Indexes, row: Indexes) -> _Members:
    number = np.searchsorted(first, row, side="right") - 1
    used, part = np.unique(number, return_inverse=True)
    index, offset, n_bytes = row - first[number], np.empty_like(row), np.empty_like(row)
    for place, here in enumerate(used.tolist()):
        of_part = np.flatnonzero(part == place)
        offset[of_part] = parts[here].offsets[index[of_part]]
        n_bytes[of_part] = parts[here].n_bytes[index[of_part]]
    return _Members([parts[here].stem for here in used.tolist()], group, row, part, index, offset, n_bytes)


def _compare(settings: NearDuplicatesRuleConfig, members: _Members) -> Copies:
    """The near copies in the groups."""
    found: list[tuple[int, int, float]] = []
    for _, group in groupby(_candidates(settings, members), key=lambda numbered: numbered[0]):
        found += near_copies((candidate for _, candidate in group), settings)
    rows, kept, jaccard = zip(*found, strict=True) if found else ((), (), ())
    return Copies(np.array(rows, np.int64), np.array(kept, np.int64), np.array(jaccard))


def _candidates(settings: NearDuplicatesRuleConfig, members: _Members) -> Iterator[tuple[int, Candidate]]:
    """(group, candidate)"""
    bands = _bands(members, settings.bands)
    is_shared, is_last = shared_keys(bands)
    for begin in range(0, len(members.row), _READ_ROWS):
        places = np.arange(begin, min(begin + _READ_ROWS, len(members.row)))
        examples = _read(members, places)
        whole = run_sets([compared_text(example) for example in examples], settings.ngram)
        answers = run_sets([answer_text(example) for example in examples], settings.ngram)
        for place, of_all, of_answers in zip(places.tolist(), whole, answers, strict=True):
            keys = [(band, int(bands[place, band])) for band in np.flatnonzero(is_shared[place]).tolist()]
            last = [(band, key) for band, key in keys if is_last[place, band]]
            yield int(members.group[place]), Candidate(int(members.row[place]), keys, last, of_all, of_answers)


def _bands(members: _Members, n_bands: int) -> Hashes:
    """[n_members, n_bands]"""
    bands = np.empty((len(members.row), n_bands), np.uint64)
    for number, stem in enumerate(members.stems):
        here = np.flatnonzero(members.part == number)
        bands[here] = bands_of(stem, n_bands)[members.index[here]]
    return bands


def _read(members: _Members, places: Indexes) -> list[Example]:
    """Those members' rows, in the order given; each part's file is opened once."""
    by_part = places[np.lexsort((members.offset[places], members.part[places]))]
    found: dict[int, Example] = {}
    for number, of_part in groupby(by_part.tolist(), key=lambda place: int(members.part[place])):
        here = list(of_part)
        where = [(int(members.offset[place]), int(members.n_bytes[place])) for place in here]
        found |= zip(here, kept_examples_at(members.stems[number], where), strict=True)
    return [found[place] for place in places.tolist()]
