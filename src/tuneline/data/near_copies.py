"""Rows that are nearly the same: candidates share a MinHash band, and are verified by their exact Jaccard similarity.

What stays depends on the rows alone, as for equal rows: see dedup.ranks.
"""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from tuneline.config.schema import NearDuplicatesRuleConfig
from tuneline.data.arrays import Flags, Hashes, Indexes
from tuneline.data.shingles import runs, words

Edges = tuple[Indexes, Indexes]  # [n_edges] each: the rows that an edge connects
Key = tuple[int, int]  # band and the key in it

MAX_COMPARED = 100  # kept rows of one band that a row is compared with: of one template, all would take quadratic time


@dataclass(frozen=True, slots=True)
class Candidate:
    """A row that shares a band with another, as far as comparing needs it."""

    row: int
    keys: Sequence[Key]  # those that another row has too
    last: Sequence[Key]  # those of them that no later row has
    runs: Hashes  # of all its words; see run_sets
    answers: Hashes  # of its answers' words


def equal_neighbours(column: Hashes, alive: Flags) -> Edges:
    """Edges that connect the alive rows of each key."""
    rows = np.flatnonzero(alive)
    rows = rows[np.argsort(column[rows], kind="stable")]
    same = column[rows[1:]] == column[rows[:-1]]
    return rows[:-1][same], rows[1:][same]


def candidate_groups(edges: Iterable[Edges], n_rows: int) -> list[Indexes]:
    """Groups of rows connected by edges; rows of different groups need no comparison."""
    root = np.arange(n_rows, dtype=np.int64)
    is_member = np.zeros(n_rows, np.bool_)
    for one, other in edges:
        is_member[one] = is_member[other] = True
        root = _united(root, one, other)
    members = np.flatnonzero(is_member)
    members = members[np.argsort(root[members], kind="stable")]
    return np.split(members, np.flatnonzero(np.diff(root[members])) + 1) if len(members) else []


def _united(root: Indexes, one: Indexes, other: Indexes) -> Indexes:
    """[n_rows] The smallest row that each row is connected with, when the edges are added."""
    while True:
        low, high = np.minimum(root[one], root[other]), np.maximum(root[one], root[other])
        if np.array_equal(low, high):
            return root
        np.minimum.at(root, high, low)
        root = roots(root)


def roots(parent: Indexes) -> Indexes:
    """[n_rows] The row without another parent than itself that is above each row."""
    while not np.array_equal(above := parent[parent], parent):
        parent = above
    return parent


def shared_keys(bands: Hashes) -> tuple[Flags, Flags]:
    """([n_rows, n_bands], the same) Whether another row has the key too, and whether no later row has it."""
    is_shared, is_last = np.empty(bands.shape, np.bool_), np.zeros(bands.shape, np.bool_)
    for band, column in enumerate(bands.T):
        _, from_end, key, n_rows = np.unique(column[::-1], return_index=True, return_inverse=True, return_counts=True)
        is_shared[:, band] = (n_rows > 1)[key][::-1]
        is_last[len(column) - 1 - from_end, band] = True
    return is_shared, is_last


def near_copies(
    candidates: Iterable[Candidate], settings: NearDuplicatesRuleConfig
) -> Iterator[tuple[int, int, float]]:
    """(row, kept row, Jaccard similarity) for each row that an earlier kept one nearly equals.

    Rows come in order of rank, of one group or of several, and are compared with the kept ones that share a band:
    each row that goes has a kept row to show for it. No two kept rows that share a band are so similar, unless more
    than MAX_COMPARED rows share it: those behind that many are compared with the first ones only. Kept rows stay in
    memory until the last row that shares one of their bands has come.
    """
    kept_in: defaultdict[Key, list[tuple[int, Candidate]]] = defaultdict(list)
    for place, candidate in enumerate(candidates):
        rivals = dict(rival for key in candidate.keys for rival in kept_in.get(key, ()))
        found = _most_similar(candidate, rivals, settings.min_answer_jaccard)
        is_copy = found is not None and found[1] >= settings.min_jaccard
        if found is not None and is_copy:
            yield candidate.row, rivals[found[0]].row, found[1]
        for key in candidate.last:
            kept_in.pop(key, None)
        for key in () if is_copy else candidate.keys:
            if key not in candidate.last and len(kept_in[key]) < MAX_COMPARED:
                kept_in[key].append((place, candidate))


def run_sets(texts: Sequence[str], n: int) -> list[Hashes]:
    """For each text its runs of `n` words as a set: ascending, each once. A shorter text is one run."""
    grams = runs(words(texts), n)
    return [_distinct(grams.hashes[begin:end]) for begin, end in pairwise(grams.offsets.tolist())]


def _distinct(hashes: Hashes) -> Hashes:
    ascending = np.sort(hashes)
    return ascending[np.concatenate(([True], ascending[1:] != ascending[:-1]))]


def _most_similar(
    candidate: Candidate, rivals: dict[int, Candidate], min_answer_jaccard: float
) -> tuple[int, float] | None:
    """(place, similarity) of the rival that is most similar, the first one of several, among those that teach alike."""
    similarities = [
        (_jaccard(candidate.runs, rival.runs), -place)
        for place, rival in rivals.items()
        if min_answer_jaccard == 0 or _jaccard(candidate.answers, rival.answers) >= min_answer_jaccard
    ]
    if not similarities:
        return None
    best = max(similarities)
    return -best[1], best[0]


def _jaccard(one: Hashes, other: Hashes) -> float:
    """Of two sorted sets."""
    merged = np.concatenate((one, other))
    merged.sort()
    n_both = int(np.count_nonzero(merged[1:] == merged[:-1]))
    return n_both / (len(merged) - n_both)
