"""How sure a score is: intervals for one system, and the comparison of two systems on the same examples."""

import math
from collections.abc import Sequence
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

N_RESAMPLES = 10_000
CHUNK = 1_000  # resamples drawn at once: bounds memory

Interval = tuple[float, float]


def wilson_interval(successes: int, n: int, confidence: float) -> Interval:
    """Score interval for a proportion (Wilson 1927, JASA 22:209, without continuity correction).

    Stays inside [0, 1] and keeps its width at 0 and n successes, where the usual p +- z*s/sqrt(n) has none.
    """
    if n == 0:
        raise ValueError("an interval needs at least one observation")
    z = NormalDist().inv_cdf((1 + confidence) / 2)
    p = successes / n
    centre = p + z * z / (2 * n)
    reach = z * math.sqrt(p * (1 - p) / n + z * z / (4 * n * n))
    scale = 1 + z * z / n
    low = 0.0 if successes == 0 else (centre - reach) / scale  # exactly, without rounding noise
    high = 1.0 if successes == n else (centre + reach) / scale
    return low, high


def bootstrap_mean_interval(values: Sequence[float], confidence: float, seed: int) -> Interval:
    """Percentile bootstrap interval of the mean (Efron & Tibshirani 1993, chapter 13)."""
    return bootstrap_ratio_interval(values, [1.0] * len(values), confidence, seed)


def bootstrap_ratio_interval(
    numerators: Sequence[float], denominators: Sequence[float], confidence: float, seed: int
) -> Interval:
    """Percentile bootstrap interval of sum(numerators) / sum(denominators), resampling examples (pairs).

    For a token-weighted mean the example is what was drawn at random, not the token.
    """
    if len(numerators) == 0:
        raise ValueError("an interval needs at least one observation")
    rng = np.random.default_rng(seed)
    pairs = np.array([numerators, denominators], dtype=np.float64)
    chunks = [_resampled_ratios(pairs, rng) for _ in range(N_RESAMPLES // CHUNK)]
    low, high = np.quantile(np.concatenate(chunks), [(1 - confidence) / 2, (1 + confidence) / 2])
    return float(low), float(high)


def clustered_ratio_error(numerators: Sequence[float], denominators: Sequence[float]) -> float:
    """Standard error of sum(numerators) / sum(denominators), where a pair is a cluster drawn at random.

    By linearisation (Cochran, Sampling Techniques, 3rd ed., equation 6.13, without the finite population): tokens of
    one row depend on each other, so that counting them one by one would promise too much. One cluster says nothing
    about the spread: raises `ValueError`.
    """
    n = len(numerators)
    if n < 2:
        raise ValueError("a standard error needs at least two clusters")
    total = sum(denominators)
    ratio = sum(numerators) / total
    squares = sum((a - ratio * b) ** 2 for a, b in zip(numerators, denominators, strict=True))
    return math.sqrt(squares * n / (n - 1)) / total


def discordant_pairs(ours: Sequence[bool], theirs: Sequence[bool]) -> tuple[int, int]:
    """On how many examples only we are right, and on how many only they are."""
    pairs = list(zip(ours, theirs, strict=True))
    return sum(a and not b for a, b in pairs), sum(b and not a for a, b in pairs)


def paired_difference_interval(ours: Sequence[bool], theirs: Sequence[bool], confidence: float, seed: int) -> Interval:
    """Bootstrap interval of mean(ours) - mean(theirs), both measured on the same examples."""
    differences = [float(a) - float(b) for a, b in zip(ours, theirs, strict=True)]
    return bootstrap_mean_interval(differences, confidence, seed)


def mcnemar_p_value(ours: Sequence[bool], theirs: Sequence[bool]) -> float:
    """Exact two-sided McNemar test: could the examples on which two systems differ be tosses of a fair coin?

    Twice the binomial tail of the rarer kind of disagreement, at most 1 (McNemar 1947; exact form as in
    Agresti, Categorical Data Analysis, 3rd ed., section 11.1.1).
    """
    only_ours, only_theirs = discordant_pairs(ours, theirs)
    n = only_ours + only_theirs
    tail = sum(math.comb(n, k) for k in range(min(only_ours, only_theirs) + 1))
    return min(1.0, float(2 * tail / 2**n))


def _resampled_ratios(pairs: NDArray[np.float64], rng: np.random.Generator) -> NDArray[np.float64]:
    n = pairs.shape[1]
    drawn = rng.integers(n, size=(CHUNK, n))
    sums = pairs[:, drawn].sum(axis=2)
    ratios: NDArray[np.float64] = sums[0] / sums[1]
    return ratios
