"""Lengths of rows in characters, words and tokens.

Every length is counted exactly: n different lengths take n * n / 2 characters of data, so their number stays small
however much data there is.
"""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Literal, TypeAlias

import numpy as np

from tuneline.data.records import Example, contents
from tuneline.data.shingles import offsets_of, words
from tuneline.data.token_counts import CountTokens

Unit = Literal["characters", "words", "tokens"]
UNITS: tuple[Unit, ...] = ("characters", "words", "tokens")
LengthCounts: TypeAlias = dict[Unit, Counter[int]]  # rows by their length

_ROWS_AT_ONCE = 512
_CHARS_AT_ONCE = 2**22  # of long rows fewer: a batch's texts and tokens are in memory together


def batches(examples: Iterable[Example]) -> Iterator[list[Example]]:
    """The examples in lists for `add_lengths`; a list ends with the row that makes it 512 rows or 4 Mi characters."""
    batch: list[Example] = []
    n_chars = 0
    for example in examples:
        batch.append(example)
        n_chars += sum(map(len, contents(example)))
        if len(batch) == _ROWS_AT_ONCE or n_chars >= _CHARS_AT_ONCE:
            yield batch
            batch, n_chars = [], 0
    if batch:
        yield batch


def no_lengths() -> LengthCounts:
    return {unit: Counter() for unit in UNITS}


def add_lengths(counts: LengthCounts, examples: Sequence[Example], count_tokens: CountTokens | None) -> None:
    """Count the rows' lengths: of all their texts together, without a chat template; words as rows are compared by.

    Without `count_tokens` only characters and words are counted.
    """
    texts = [contents(example) for example in examples]
    ends = offsets_of(np.fromiter(map(len, texts), np.int64, len(texts)))
    flat = [text for row in texts for text in row]
    counts["characters"].update(_sums([len(text) for text in flat], ends))
    counts["words"].update(_sums(np.diff(words(flat).offsets).tolist(), ends))
    if count_tokens is not None:
        counts["tokens"].update(_sums(count_tokens(flat), ends))


def quantile(counts: Mapping[int, int], share: float) -> int:
    """The smallest length that at least `share` of the rows do not exceed (nearest rank); 0 without rows."""
    wanted = share * sum(counts.values())
    n_rows = 0
    for length in sorted(counts):
        n_rows += counts[length]
        if n_rows >= wanted:
            return length
    return 0


def bin_edges(longest: int) -> list[int]:
    """0, 1, 2 ... 8, 10, 11, 13, 16, 19 ... to beyond the longest: the same edges for any data.

    Above 8 each bin is wider than the one before by the same factor; bins that widen now and then would show teeth.
    """
    edges = list(range(9))
    while edges[-1] <= longest:
        edges.append(round(8 * 2 ** ((len(edges) - 8) / 4)))
    return edges


def in_bins(counts: Mapping[int, int], edges: Sequence[int]) -> list[int]:
    """Rows whose length is at least edges[i] and below edges[i + 1], for each i."""
    lengths = np.fromiter(counts.keys(), np.int64, len(counts))
    n_rows = np.fromiter(counts.values(), np.int64, len(counts))
    places = np.searchsorted(np.asarray(edges), lengths, side="right") - 1
    found: list[int] = np.bincount(places, n_rows, minlength=len(edges) - 1).astype(np.int64).tolist()
    return found


def length_metrics(name: str, counts: LengthCounts) -> Iterator[tuple[str, int]]:
    """Median, 95th percentile and maximum per unit, for one side of the split."""
    for unit in UNITS:
        if counts[unit]:
            yield f"{name}_{unit}_median", quantile(counts[unit], 0.5)
            yield f"{name}_{unit}_p95", quantile(counts[unit], 0.95)
            yield f"{name}_{unit}_max", max(counts[unit])


def _sums(values: Sequence[int], ends: "np.typing.NDArray[np.int64]") -> list[int]:
    """Sum of the values between each end and the next."""
    running = offsets_of(np.asarray(values, np.int64))
    found: list[int] = (running[ends[1:]] - running[ends[:-1]]).tolist()
    return found
