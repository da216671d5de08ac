"""What cleaning says of copies: a line a cluster and a reason a copy, in memory for their numbers and little more."""

import tracemalloc
from collections import deque
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from tuneline.data.accounting import Tally
from tuneline.data.comparing import SET_RULES, Removed
from tuneline.data.parts import CleanedPart
from tuneline.data.writing import _by_part, _clusters, _Numbered

N_PARTS, N_ROWS = 60, 1000  # rows a part


def part(number: int) -> CleanedPart:
    rows, zeros, hashes = np.arange(N_ROWS), np.zeros(N_ROWS, np.int64), np.arange(N_ROWS, dtype=np.uint64)
    none = np.empty(0, np.int64)
    return CleanedPart(
        ("pool",), Path("part"), Tally(), rows, rows, ("",), zeros, number * N_ROWS + rows + 1, zeros,
        np.zeros(N_ROWS, np.bool_), rows, np.ones(N_ROWS, np.bool_), hashes, hashes, none, none,
    )  # fmt: skip


def pairs() -> tuple[_Numbered, Removed]:
    """Every second row is a copy of the one before it."""
    gone = np.arange(1, N_PARTS * N_ROWS, 2)
    rule = np.full(len(gone), SET_RULES.index("near_duplicates"), np.uint8)
    return _Numbered([part(number) for number in range(N_PARTS)]), Removed(gone, gone - 1, gone / gone[-1], rule)


def peak_bytes(items: Iterator[object]) -> int:
    tracemalloc.start()
    try:
        deque(items, maxlen=0)
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def test_each_copy_is_named_with_the_row_that_stays() -> None:
    rows, copies = pairs()
    reasons = list(_by_part(rows, copies))
    assert [sorted(of_part) for of_part in reasons] == [list(range(1, N_ROWS, 2))] * N_PARTS
    last = "a near copy of pool:59999 (Jaccard similarity 1.000)"
    assert reasons[-1][N_ROWS - 1] == ("near_duplicates", last)
    *_, cluster = clusters = list(_clusters(rows, copies))
    assert len(clusters) == len(copies.rows)
    copy = {"place": "pool:60000", "rule": "near_duplicates", "jaccard": 1.0}
    assert cluster == {"kept": "pool:59999", "kept_id": f"{N_ROWS - 2:016x}", "copies": [copy]}


def test_what_is_said_of_copies_does_not_pile_up_in_memory() -> None:
    rows, copies = pairs()
    n_copies = len(copies.rows)
    assert peak_bytes(_by_part(rows, copies)) < 30 * n_copies  # with lists of all numbers 49
    assert peak_bytes(_clusters(rows, copies)) < 90 * n_copies  # arrays take 66; lists of the same 105
