"""The training rows of several sources, each as often as the mixture wants: exact counts, drawn by hash.

A source with a count gives that many rows, weighted sources share a total, all others give every row once; rows of
sources with role replay come on top, as a share of all. Where fewer rows are wanted than there are, those with the
lowest hash of seed and content are drawn, so that adding rows to a source replaces few of the others. Where more are
wanted, every row comes the same number of whole times, and the rest is drawn.
"""

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from math import lcm

import numpy as np

from tuneline.config.schema import MixtureConfig, SourceConfig
from tuneline.data.arrays import Hashes, Indexes
from tuneline.data.shingles import mixed
from tuneline.errors import DataError


@dataclass(frozen=True, slots=True)
class Mixed:
    """Rows of a mixture."""

    rows: Indexes  # indexes of the rows given: first each that is in, in the order given, then second copies, and so on
    before: Mapping[str, int]  # rows given, by source
    after: Mapping[str, int]  # rows of the mixture, by source

    @property
    def n_left_out(self) -> int:
        """Rows given that are not in the mixture."""
        return sum(self.before.values()) - len(np.unique(self.rows))

    @property
    def n_repeats(self) -> int:
        """Copies beyond the first of each row."""
        return len(self.rows) - len(np.unique(self.rows))

    def notes(self) -> Iterator[str]:
        """For a person: each source whose rows are not simply all there."""
        for name, n_before in self.before.items():
            n_after = self.after[name]
            if n_after != n_before:
                more = "; rows repeat" if n_after > n_before else ""
                yield f"{name}: {n_after} of {n_before} rows in the training mixture{more}"

    def metrics(self) -> dict[str, int]:
        """Rows before the mixture, and what it left out and repeated."""
        found = {
            "n_train_before_mixture": sum(self.before.values()),
            "n_left_out_by_mixture": self.n_left_out,
            "n_repeats_by_mixture": self.n_repeats,
        }
        return found | {f"n_train_before_mixture_from_{name}": n for name, n in self.before.items()}


def mix(source: Indexes, ids: Hashes, sources: Sequence[SourceConfig], mixture: MixtureConfig, seed: int) -> Mixed:
    """The mixture of training rows, given by the index of each one's source and its id as a number.

    Raises `DataError` for a source that is to give rows and has none.
    """
    order = np.lexsort((np.arange(len(ids)), source, mixed(ids ^ np.uint64(_seed_hash(seed)))))
    n_rows = np.bincount(source, minlength=len(sources))
    times = np.zeros(len(source), np.int64)
    for members, n_wanted in _wanted(n_rows.tolist(), sources, mixture):
        drawn = order[np.isin(source[order], members)]
        if n_wanted and not len(drawn):
            raise DataError(_no_rows([sources[member] for member in members], n_wanted))
        if len(drawn):
            times[drawn] = n_wanted // len(drawn)
            times[drawn[: n_wanted % len(drawn)]] += 1
    rows = _in_rounds(times)
    names = [it.name for it in sources]
    after = np.bincount(source[rows], minlength=len(sources)).tolist()
    learned = [number for number, it in enumerate(sources) if it.role in ("pool", "replay")]
    return Mixed(rows, {names[i]: int(n_rows[i]) for i in learned}, {names[i]: after[i] for i in learned})


def _in_rounds(times: Indexes) -> Indexes:
    """Each index as often as said: all first ones, all second ones ..."""
    rows = np.repeat(np.arange(len(times)), times)
    copy = np.arange(len(rows)) - np.repeat(np.cumsum(times) - times, times)
    found: Indexes = rows[np.lexsort((rows, copy))]
    return found


def _seed_hash(seed: int) -> int:
    return int.from_bytes(hashlib.sha256(f"mixture\0{seed}".encode()).digest()[:8], "big")


def _wanted(
    n_rows: Sequence[int], sources: Sequence[SourceConfig], mixture: MixtureConfig
) -> Iterator[tuple[list[int], int]]:
    """(sources, rows wanted of them together) for the pool's sources, then for replay."""
    n_learned = 0
    pool = [number for number, source in enumerate(sources) if source.role == "pool"]
    for number, n_wanted in _of_pool(pool, n_rows, sources, mixture.n_rows).items():
        n_learned += n_wanted
        yield [number], n_wanted
    replay = [number for number, source in enumerate(sources) if source.role == "replay"]
    n_replay = rows_for_share(n_learned, mixture.replay_fraction)
    weights = _weights(replay, sources)
    if weights:
        for number, n_wanted in zip(weights, apportioned(n_replay, list(weights.values())), strict=True):
            yield [number], n_wanted
    elif replay:
        yield replay, n_replay


def _of_pool(
    pool: Sequence[int], n_rows: Sequence[int], sources: Sequence[SourceConfig], n_weighted: int | None
) -> dict[int, int]:
    wanted = {number: n_rows[number] for number in pool}
    wanted |= {number: count for number in pool if (count := sources[number].count) is not None}
    weights = _weights(pool, sources)
    if weights:
        shares = list(weights.values())
        _check_weighted([sources[number] for number in weights if n_rows[number] == 0 and weights[number] > 0])
        total = n_weighted if n_weighted is not None else largest_total([n_rows[number] for number in weights], shares)
        wanted |= dict(zip(weights, apportioned(total, shares), strict=True))
    return wanted


def _weights(numbers: Sequence[int], sources: Sequence[SourceConfig]) -> dict[int, Fraction]:
    return {number: as_written(weight) for number in numbers if (weight := sources[number].weight) is not None}


def as_written(number: float) -> Fraction:
    """The decimal number that stands in conf/: 0.1 is a tenth, not the nearest binary fraction."""
    return Fraction(repr(number))


def apportioned(total: int, weights: Sequence[Fraction]) -> list[int]:
    """Whole numbers in proportion to the weights that add up to the total (largest remainder, then the earlier one).

    Raises `DataError` when the weights sum to zero.
    """
    if not sum(weights):
        raise DataError("data.sources: the weights sum to 0, so nothing has a share; raise one, or set all to null")
    unit = lcm(*(weight.denominator for weight in weights))
    parts = [int(weight * unit) for weight in weights]
    quotas = [divmod(total * part, sum(parts)) for part in parts]
    n_left = total - sum(whole for whole, _ in quotas)
    first = sorted(range(len(parts)), key=lambda number: (-quotas[number][1], number))[:n_left]
    return [whole + (number in first) for number, (whole, _) in enumerate(quotas)]


def largest_total(n_rows: Sequence[int], weights: Sequence[Fraction]) -> int:
    """The largest total of which `apportioned` wants no more of any source than it has.

    A share is rounded by less than one row, so the search begins where one more row than there are would do, and is
    over at the latest where every exact share is there.
    """
    if not sum(weights):
        return 0
    sizes = [(n, weight / sum(weights)) for n, weight in zip(n_rows, weights, strict=True) if weight]
    total = min(int((n + 1) / share) for n, share in sizes)
    while any(wanted > n for wanted, n in zip(apportioned(total, weights), n_rows, strict=True)):
        total -= 1
    return total


def rows_for_share(n_others: int, fraction: float) -> int:
    """How many rows are this fraction of themselves and the others together, rounded half up."""
    share = as_written(fraction)
    exact = n_others * share / (1 - share)
    return int(exact + Fraction(1, 2))


def _check_weighted(empty: Sequence[SourceConfig]) -> None:
    if empty:
        raise DataError(
            f"data.sources: {empty[0].name!r} has weight {empty[0].weight:g}, but no training row of it is left;"
            " set its weight to 0.0 or null, or look into the rejected rows"
        )


def _no_rows(sources: Sequence[SourceConfig], n_wanted: int) -> str:
    names = ", ".join(source.name for source in sources)
    return (
        f"data.sources: {n_wanted} training rows of {names} are wanted, but none is left;"
        " take the source out of the mixture, or look into the rejected rows"
    )
