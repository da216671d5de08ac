"""Lengths, their quantiles and bins."""

import random
from collections import Counter
from pathlib import Path

import pytest

from tuneline.data.records import Message, make_example
from tuneline.data.token_counts import token_counter
from tuneline.errors import DataError
from tuneline.reporting.lengths import add_lengths, batches, bin_edges, in_bins, no_lengths, quantile

TOKENIZER = Path("models/base/sqlama/tokenizer.json")


def test_a_rows_length_is_that_of_all_its_texts() -> None:
    counts = no_lengths()
    row = make_example("own", 1, (Message("user", "one two"), Message("assistant", "three")), None, {})
    add_lengths(counts, [row, make_example("own", 2, (), "", {}), make_example("own", 3, (), "四五", {})], None)
    assert counts == {"characters": Counter({12: 1, 0: 1, 2: 1}), "words": Counter({3: 1, 0: 1, 2: 1}), "tokens": {}}


def test_a_batch_ends_by_rows_and_by_characters_and_keeps_the_order() -> None:
    rows = [make_example("own", n, (), "a", {}) for n in range(1030)]
    assert [len(batch) for batch in batches(rows)] == [512, 512, 6]
    long = [make_example("own", n, (), "a" * 2**21, {}) for n in range(5)]
    assert [[row.line for row in batch] for batch in batches(iter(long))] == [[0, 1], [2, 3], [4]]
    assert list(batches([])) == []


def test_quantiles_are_those_of_the_sorted_lengths() -> None:
    for n_rows in (1, 2, 7, 100):
        lengths = sorted(random.Random(n_rows).choices(range(50), k=n_rows))
        for share in (0.01, 0.5, 0.95, 1.0):
            at_most = [length for length in lengths if sum(other <= length for other in lengths) >= share * n_rows]
            assert quantile(Counter(lengths), share) == at_most[0]


def test_bins_grow_by_a_quarter_of_each_doubling_and_do_not_depend_on_the_longest_row() -> None:
    assert bin_edges(20) == [0, 1, 2, 3, 4, 5, 6, 7, 8, 10, 11, 13, 16, 19, 23]  # 8 times the fourth root of 2 ...
    assert bin_edges(0) == bin_edges(7) == list(range(9))
    assert bin_edges(32)[-2:] == [32, 38]
    assert bin_edges(10**6)[:15] == bin_edges(20)
    assert {2**power for power in range(24)} <= set(bin_edges(2**24))


def test_every_length_falls_into_the_bin_that_names_it() -> None:
    edges = bin_edges(40)
    for length in range(41):
        found = in_bins({length: 3}, edges)
        place = found.index(3)
        assert edges[place] <= length < edges[place + 1]
        assert sum(found) == 3


def test_tokens_are_those_of_the_tokenizer_without_special_ones() -> None:
    count = token_counter(TOKENIZER)
    assert count(["", "\ud800"])[0] == 0
    # a byte-level tokenizer has at most a token per byte, and one for a single letter
    assert count(["a"]) == [1]
    assert 1 <= count(["SELECT name FROM farms;"])[0] <= 23


def test_a_missing_or_broken_tokenizer_is_named_with_its_key(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"none\.json: no such tokenizer.*clean\.length\.tokenizer"):
        token_counter(tmp_path / "none.json")
    (tmp_path / "bad.json").write_text("{}", encoding="utf-8")
    with pytest.raises(DataError, match=r"bad\.json: not a tokenizer\.json.*clean\.length\.tokenizer"):
        token_counter(tmp_path / "bad.json")
