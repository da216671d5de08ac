"""Clusters of copies: how many there are of each size, and the largest ones."""

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from heapq import nsmallest
from pathlib import Path

from tuneline.data.record_files import read_objects
from tuneline.data.records import Json
from tuneline.errors import DataError
from tuneline.reporting.showing import escaped

N_LARGEST = 20
_PLACES = 10  # of a cluster's copies that are named


@dataclass(frozen=True, slots=True)
class Cluster:
    """A row that stayed, and the rows that went for it."""

    kept: str  # place
    n_rows: int  # with the one that stayed
    copies: tuple[str, ...]  # places of the first few
    rules: str  # that found them
    min_jaccard: float  # similarity of the least similar one


def read_clusters(path: Path) -> Iterator[Cluster]:
    """What the clean stage wrote. Raises `DataError` with file:line for a line that is no cluster."""
    for row, place in read_objects(path):
        match row:
            case {"kept": str(kept), "copies": [_, *_] as copies}:
                yield _cluster(kept, copies, place)
            case _:
                raise DataError(f"{place}: not a cluster (kept, copies); run the clean stage again")


def _cluster(kept: str, copies: list[Json], place: str) -> Cluster:
    places: list[str] = []
    rules: set[str] = set()
    lowest = 1.0
    for copy in copies:
        match copy:
            case {"place": str(found), "rule": str(rule), "jaccard": int() | float() as jaccard}:
                rules.add(rule)
                lowest = min(lowest, jaccard)
                places += [escaped(found)] if len(places) < _PLACES else []
            case _:
                raise DataError(f"{place}: not a copy (place, rule, jaccard); run the clean stage again")
    return Cluster(escaped(kept), len(copies) + 1, tuple(places), " ".join(sorted(rules)), lowest)


@dataclass(slots=True)
class Clusters:
    """All clusters' sizes, and the largest clusters."""

    sizes: Counter[int]  # clusters by their number of rows
    largest: list[Cluster]  # at most 20, the largest first

    def size_rows(self) -> Iterator[tuple[int, int, int]]:
        """(rows in a cluster, clusters of that size, copies that went)"""
        yield from ((size, n, n * (size - 1)) for size, n in sorted(self.sizes.items()))

    def largest_rows(self) -> Iterator[tuple[str | int | float, ...]]:
        """(rows, kept, rules, lowest Jaccard similarity, copies)"""
        for found in self.largest:
            more = f" and {n} more" if (n := found.n_rows - 1 - len(found.copies)) else ""
            yield found.n_rows, found.kept, found.rules, found.min_jaccard, " ".join(found.copies) + more

    def metrics(self) -> dict[str, int]:
        return {
            "duplicates_n_clusters": self.sizes.total(),
            "duplicates_n_copies": sum(copies for _, _, copies in self.size_rows()),
            "duplicates_largest_cluster_rows": max(self.sizes, default=0),
        }


def collect(clusters: Iterable[Cluster]) -> Clusters:
    """Sizes and the largest clusters; of equal ones those whose kept row's place comes first."""
    sizes: Counter[int] = Counter()

    def counted() -> Iterator[Cluster]:
        for cluster in clusters:
            sizes[cluster.n_rows] += 1
            yield cluster

    largest = nsmallest(N_LARGEST, counted(), key=lambda cluster: (-cluster.n_rows, cluster.kept))
    return Clusters(sizes, largest)
