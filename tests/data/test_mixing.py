"""The mixture is exact, depends on the rows and the seed only, and repeats no row more often than it must."""

import random
from collections import Counter
from collections.abc import Sequence
from fractions import Fraction
from math import ceil

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tuneline.config.schema import MixtureConfig, SourceConfig
from tuneline.data.mixing import Mixed, apportioned, as_written, largest_total, mix, rows_for_share
from tuneline.errors import DataError

AS_IT_IS = MixtureConfig(n_rows=None, replay_fraction=0.0)


def source(name: str, role: str = "pool", weight: float | None = None, count: int | None = None) -> SourceConfig:
    return SourceConfig.model_validate(
        {
            **{"name": name, "path": f"{name}.jsonl", "hub": None, "format": "auto", "role": role, "columns": {}},
            **{"system_prompt": None, "task_prefix": None, "weight": weight, "count": count},
        }
    )


def mixture(n_rows: int | None = None, replay_fraction: float = 0.0) -> MixtureConfig:
    return MixtureConfig(n_rows=n_rows, replay_fraction=replay_fraction)


def mixed(
    sources: Sequence[SourceConfig], sizes: Sequence[int], config: MixtureConfig = AS_IT_IS, seed: int = 1
) -> Mixed:
    """Rows of the sources one behind the other, with ids 0, 1, 2 ..."""
    of = np.repeat(np.arange(len(sizes)), sizes)
    return mix(of, np.arange(len(of), dtype=np.uint64), sources, config, seed)


def test_without_weights_and_counts_every_row_is_there_once_in_its_order() -> None:
    found = mixed([source("a"), source("b")], [3, 2])
    assert found.rows.tolist() == [0, 1, 2, 3, 4]
    assert list(found.notes()) == []


def test_a_count_takes_every_row_whole_times_and_draws_the_rest() -> None:
    rows = mixed([source("a", count=8), source("b")], [3, 1]).rows.tolist()
    times = Counter(rows)
    assert sorted(times[row] for row in range(3)) == [2, 3, 3]
    assert times[3] == 1


def test_a_smaller_count_draws_rows_without_repeats() -> None:
    rows = mixed([source("a", count=40)], [100]).rows.tolist()
    assert len(set(rows)) == len(rows) == 40
    assert rows != list(range(40))
    assert rows == sorted(rows)


def test_repeats_stand_behind_all_first_copies() -> None:
    rows = mixed([source("a", count=5), source("b")], [2, 2]).rows.tolist()
    assert rows[:6] == [0, 1, 2, 3, 0, 1]
    assert rows[6] in (0, 1)


def test_weights_share_a_given_total_exactly() -> None:
    found = mixed([source("a", weight=3.0), source("b", weight=1.0), source("c")], [100, 5, 7], mixture(n_rows=40))
    assert found.after == {"a": 30, "b": 10, "c": 7}
    assert (found.n_left_out, found.n_repeats) == (70, 5)
    assert list(found.notes()) == [
        "a: 30 of 100 rows in the training mixture",
        "b: 10 of 5 rows in the training mixture; rows repeat",
    ]


def test_weights_without_a_total_give_the_most_that_repeats_no_row() -> None:
    # of 82 rows 61.5 and 20.5, the earlier one is rounded up; of 83 rows 62.25 and 20.75, so that b would need 21
    assert mixed([source("a", weight=0.75), source("b", weight=0.25)], [100, 20]).after == {"a": 62, "b": 20}


def test_a_source_of_weight_zero_gives_nothing() -> None:
    assert mixed([source("a", weight=1.0), source("b", weight=0.0)], [10, 20]).after == {"a": 10, "b": 0}


def test_largest_remainders_get_the_rows_that_are_left() -> None:
    # exact shares of 10: 4.666.., 3.333.., 2: the first is nearer to the next whole number
    assert apportioned(10, [Fraction(7), Fraction(5), Fraction(3)]) == [5, 3, 2]
    assert apportioned(1, [Fraction(1), Fraction(1)]) == [1, 0]


def test_weights_are_the_decimals_that_stand_in_the_file() -> None:
    weights = [as_written(weight) for weight in (0.7, 0.2, 0.1)]
    assert largest_total([7, 2, 1], weights) == 10
    assert apportioned(10, weights) == [7, 2, 1]


def test_replay_rows_are_the_asked_share_of_all_rounded_half_up() -> None:
    # 90 + 10 = 100; 10 / 0.96 = 10.41..: 0.41.. rounds down; 3 rows at a third: 1.5 of 4.5, rounds up
    assert [rows_for_share(*pair) for pair in ((90, 0.1), (10, 0.04), (0, 0.5))] == [10, 0, 0]
    assert rows_for_share(1, 0.6) == 2  # 1.5
    assert rows_for_share(49, 0.02) == 1
    found = mixed([source("a"), source("old", "replay")], [90, 50], mixture(replay_fraction=0.1))
    assert found.after == {"a": 90, "old": 10}


def test_too_few_replay_rows_repeat_and_say_so() -> None:
    found = mixed([source("a"), source("old", "replay")], [90, 4], mixture(replay_fraction=0.1))
    assert sorted(Counter(found.rows[found.rows >= 90].tolist()).values()) == [2, 2, 3, 3]
    assert list(found.notes()) == ["old: 10 of 4 rows in the training mixture; rows repeat"]


def test_several_replay_sources_share_by_weight_or_are_drawn_from_as_one() -> None:
    sizes = [80, 100, 100]
    weighted = [source("a"), source("x", "replay", weight=3.0), source("y", "replay", weight=1.0)]
    assert mixed(weighted, sizes, mixture(replay_fraction=0.2)).after == {"a": 80, "x": 15, "y": 5}
    after = mixed([source("a"), source("x", "replay"), source("y", "replay")], sizes, mixture(None, 0.2)).after
    assert after["x"] + after["y"] == 20
    assert min(after["x"], after["y"]) > 2


def test_a_source_that_is_to_give_rows_and_has_none_is_an_error() -> None:
    with pytest.raises(DataError, match="'b' has weight 1, but no training row of it is left"):
        mixed([source("a", weight=1.0), source("b", weight=1.0)], [10, 0])
    with pytest.raises(DataError, match="5 training rows of b are wanted, but none is left"):
        mixed([source("a"), source("b", count=5)], [10, 0])
    with pytest.raises(DataError, match="10 training rows of old are wanted, but none is left"):
        mixed([source("a"), source("old", "replay")], [90, 0], mixture(replay_fraction=0.1))
    with pytest.raises(DataError, match="the weights sum to 0"):
        mixed([source("a", weight=0.0)], [10])


def test_another_seed_draws_other_rows() -> None:
    draws = {tuple(mixed([source("a", count=10)], [100], seed=seed).rows.tolist()) for seed in range(20)}
    assert len(draws) == 20


def test_an_added_row_replaces_at_most_one_that_was_drawn() -> None:
    before = set(mixed([source("a", count=50)], [200]).rows.tolist())
    after = set(mixed([source("a", count=50)], [201]).rows.tolist())
    assert len(before - after) <= 1


WEIGHTS = st.lists(st.sampled_from([0.1, 0.2, 0.25, 0.7, 1.0, 2.0, 3.0, 5.5]), min_size=1, max_size=4)


@given(total=st.integers(0, 1000), weights=WEIGHTS)
def test_shares_add_up_and_are_rounded_by_less_than_one_row(total: int, weights: list[float]) -> None:
    exact = [as_written(weight) for weight in weights]
    shares = apportioned(total, exact)
    assert sum(shares) == total
    assert all(abs(share - total * weight / sum(exact)) < 1 for share, weight in zip(shares, exact, strict=True))


@given(weights=WEIGHTS, data=st.data())
def test_no_larger_total_repeats_no_row(weights: list[float], data: st.DataObject) -> None:
    exact = [as_written(weight) for weight in weights]
    sizes = data.draw(st.lists(st.integers(0, 12), min_size=len(exact), max_size=len(exact)))

    def fits(total: int) -> bool:
        return all(wanted <= size for wanted, size in zip(apportioned(total, exact), sizes, strict=True))

    assert largest_total(sizes, exact) == max(total for total in range(sum(sizes) + 1) if fits(total))


@given(n_others=st.integers(0, 10**6), hundredths=st.integers(0, 99))
def test_the_replay_share_is_as_near_as_whole_rows_allow(n_others: int, hundredths: int) -> None:
    n_rows = rows_for_share(n_others, hundredths / 100)
    # n / (n + others) = hundredths / 100, so n = others * hundredths / (100 - hundredths)
    assert -(100 - hundredths) < 2 * (n_rows * (100 - hundredths) - n_others * hundredths) <= 100 - hundredths


COUNTS = st.tuples(st.integers(1, 30), st.none() | st.integers(1, 100), st.none() | st.sampled_from([0.5, 1.0, 3.0]))


@settings(deadline=None, max_examples=60)
@given(
    pool=st.lists(COUNTS, min_size=1, max_size=4),
    n_replay=st.integers(1, 20),
    fraction=st.sampled_from([0.01, 0.1, 0.5]),
    n_rows=st.none() | st.integers(1, 60),
    seed=st.integers(0, 99),
)
def test_counts_are_exact_no_row_repeats_more_than_it_must_and_order_does_not_matter(
    pool: list[tuple[int, int | None, float | None]], n_replay: int, fraction: float, n_rows: int | None, seed: int
) -> None:
    weighted = [None if count is not None else weight for _, count, weight in pool]
    sources = [source(f"s{n}", "pool", weighted[n], count) for n, (_, count, _) in enumerate(pool)]
    sources.append(source("old", "replay"))
    sizes = [*(size for size, _, _ in pool), n_replay]
    of = np.repeat(np.arange(len(sizes)), sizes)
    ids = np.arange(len(of), dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15)
    config = mixture(n_rows, fraction)
    found = mix(of, ids, sources, config, seed)
    for number, (size, count, _) in enumerate(pool):
        if weighted[number] is None:
            assert found.after[f"s{number}"] == (size if count is None else count)
    if n_rows is not None and any(weight is not None for weight in weighted):
        assert sum(found.after[f"s{n}"] for n, weight in enumerate(weighted) if weight is not None) == n_rows
    assert found.after["old"] == rows_for_share(len(found.rows) - found.after["old"], fraction)
    times = Counter(found.rows.tolist())
    for row, n_times in times.items():
        assert n_times <= ceil(found.after[sources[of[row]].name] / sizes[of[row]])
    assert found.n_left_out + len(times) == len(of)
    order = np.array(random.Random(seed).sample(range(len(of)), len(of)))
    shuffled = mix(of[order], ids[order], sources, config, seed)
    assert Counter(order[shuffled.rows].tolist()) == times
