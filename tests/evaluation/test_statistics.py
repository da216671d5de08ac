"""Intervals and tests against published or hand-computed values."""

import math

import numpy as np
import pytest

from tuneline.evaluation.names import interval_names
from tuneline.evaluation.statistics import (
    bootstrap_mean_interval,
    bootstrap_ratio_interval,
    clustered_ratio_error,
    mcnemar_p_value,
    paired_difference_interval,
    wilson_interval,
)


def test_wilson_interval_agrees_with_newcombes_table() -> None:
    # Newcombe 1998, Statistics in Medicine 17:857, table I, method 3: 81/263, 15/148, 0/20, 1/29
    assert wilson_interval(81, 263, 0.95) == pytest.approx((0.2553, 0.3662), abs=5e-5)
    assert wilson_interval(15, 148, 0.95) == pytest.approx((0.0624, 0.1605), abs=5e-5)
    assert wilson_interval(0, 20, 0.95) == pytest.approx((0.0, 0.1611), abs=5e-5)
    assert wilson_interval(1, 29, 0.95) == pytest.approx((0.0061, 0.1718), abs=5e-5)


def test_wilson_interval_is_exactly_bounded_at_the_ends() -> None:
    assert wilson_interval(0, 500, 0.95)[0] == 0.0
    assert wilson_interval(500, 500, 0.95)[1] == 1.0


def test_wilson_interval_mirrors_successes_and_failures() -> None:
    low, high = wilson_interval(37, 120, 0.9)
    assert wilson_interval(83, 120, 0.9) == pytest.approx((1 - high, 1 - low))


def test_more_confidence_is_a_wider_interval() -> None:
    narrow, wide = wilson_interval(40, 100, 0.8), wilson_interval(40, 100, 0.99)
    assert wide[0] < narrow[0] < 0.4 < narrow[1] < wide[1]


def test_bootstrap_of_many_values_is_the_normal_interval() -> None:
    values = [i / 999 for i in range(1000)]
    reach = 1.959964 * math.sqrt((1000**2 - 1) / 12) / 999 / math.sqrt(1000)  # variance of 0..n-1 is (n^2-1)/12
    low, high = bootstrap_mean_interval(values, 0.95, seed=1)
    assert low == pytest.approx(0.5 - reach, abs=0.001)
    assert high == pytest.approx(0.5 + reach, abs=0.001)


def test_bootstrap_of_equal_values_has_no_width() -> None:
    assert bootstrap_mean_interval([2.5] * 7, 0.95, seed=3) == (2.5, 2.5)


def test_bootstrap_depends_on_nothing_but_its_seed() -> None:
    values = [0.0, 1.0, 1.0, 5.0]
    assert bootstrap_mean_interval(values, 0.9, seed=4) == bootstrap_mean_interval(values, 0.9, seed=4)


def test_a_ratio_weighs_examples_by_their_denominator() -> None:
    # every example has 2 nats per token, however long: so has every resample
    assert bootstrap_ratio_interval([2.0, 20.0, 200.0], [1, 10, 100], 0.95, seed=5) == (2.0, 2.0)


def test_mcnemar_counts_disagreements_only() -> None:
    # 1 against 7 disagreements: 2 * (C(8,0) + C(8,1)) / 2^8 = 18/256, whatever both get right or wrong
    ours = [True] * 7 + [False] * 1 + [True] * 90 + [False] * 9
    theirs = [False] * 7 + [True] * 1 + [True] * 90 + [False] * 9
    assert mcnemar_p_value(ours, theirs) == pytest.approx(18 / 256)
    assert mcnemar_p_value(theirs, ours) == pytest.approx(18 / 256)


def test_mcnemar_of_balanced_or_absent_disagreement_is_one() -> None:
    assert mcnemar_p_value([True, False], [False, True]) == 1.0
    assert mcnemar_p_value([True, False], [True, False]) == 1.0


def test_mcnemar_survives_thousands_of_disagreements() -> None:
    assert mcnemar_p_value([True] * 3000, [False] * 3000) == pytest.approx(0.0, abs=1e-300)


def test_a_paired_difference_is_narrower_than_independent_samples_allow() -> None:
    # both right on the same 50 of 100, ours on 5 more: se = sqrt(0.05 - 0.0025)/10 = 0.0218, unpaired 0.0705
    ours, theirs = [True] * 55 + [False] * 45, [True] * 50 + [False] * 50
    low, high = paired_difference_interval(ours, theirs, 0.95, seed=6)
    assert low == pytest.approx(0.01, abs=0.011)
    assert high == pytest.approx(0.095, abs=0.011)


def test_pairs_must_be_pairs() -> None:
    with pytest.raises(ValueError, match="shorter"):
        mcnemar_p_value([True], [])


@pytest.mark.parametrize(("confidence", "low"), [(0.95, "x_ci95_low"), (0.9, "x_ci90_low"), (0.995, "x_ci99_5_low")])
def test_interval_names_say_the_level(confidence: float, low: str) -> None:
    assert interval_names("x", confidence) == (low, low.replace("low", "high"))


def test_nothing_observed_has_no_interval() -> None:
    with pytest.raises(ValueError, match="at least one"):
        wilson_interval(0, 0, 0.95)
    with pytest.raises(ValueError, match="at least one"):
        bootstrap_mean_interval([], 0.95, seed=0)


def test_error_of_a_ratio_is_the_textbook_one_where_all_clusters_are_of_one_size() -> None:
    """Then it is the error of a mean: standard deviation over the root of n."""
    values = [1.0, 2.0, 4.0, 9.0]
    expected = np.std(values, ddof=1) / 2 / 3
    assert clustered_ratio_error(values, [3.0] * 4) == pytest.approx(expected)


def test_error_of_a_ratio_is_nearly_that_of_the_bootstrap() -> None:
    rng = np.random.default_rng(1)
    sizes = rng.integers(5, 50, size=300).astype(float)
    sums = sizes * rng.normal(0.1, 0.05, size=300)
    low, high = bootstrap_ratio_interval(sums.tolist(), sizes.tolist(), 0.95, seed=2)
    assert clustered_ratio_error(sums.tolist(), sizes.tolist()) == pytest.approx((high - low) / 3.92, rel=0.05)


def test_one_cluster_has_no_error() -> None:
    with pytest.raises(ValueError, match="at least two clusters"):
        clustered_ratio_error([1.0], [2.0])
