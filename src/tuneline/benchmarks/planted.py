"""Pairs of texts whose similarity is known, among which near duplicates must be found and others left alone."""

import random
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from tuneline.benchmarks.corpus import Writer, replaced, row
from tuneline.data.records import Example, Json, contents

_N_SENTENCES = (4, 24)  # of an answer
_DECOYS = 0.5  # share of pairs made to be less similar than asked
_LOWEST = 0.5  # similarity of the most different decoys


@dataclass(frozen=True, slots=True)
class Pair:
    """Two rows, the second made from the first; no other row is like them."""

    lines: tuple[int, int]
    jaccard: float  # of their sets of runs of words, computed on strings


@dataclass(frozen=True, slots=True)
class Found:
    """How many of the pairs that should be found were, and of what was found should have been."""

    n_similar: int
    n_decoys: int
    n_found: int  # pairs
    n_found_similar: int
    n_other: int  # rows taken for copies of a row that is not their pair's

    @property
    def recall(self) -> float:
        return self.n_found_similar / self.n_similar

    @property
    def precision(self) -> float:
        return self.n_found_similar / max(1, self.n_found + self.n_other)


def planted_rows(n_pairs: int, seed: int, min_jaccard: float) -> Iterator[tuple[Example, Example]]:
    """Rows in pairs: half of them evenly spread over similarities from `min_jaccard` to 1, half of them below it."""
    writer = Writer(seed)
    rng = writer.rng
    for number in range(n_pairs):
        question, answer = writer.turn(rng.randint(*_N_SENTENCES))
        n_words = len(_words(f"{question}\n{answer}"))
        is_decoy = rng.random() < _DECOYS
        wanted = rng.uniform(_LOWEST, min_jaccard) if is_decoy else rng.uniform(min_jaccard, 1)
        edited = replaced(rng, answer, _n_edits(rng, n_words, wanted))
        yield row(2 * number + 1, (question, answer)), row(2 * number + 2, (question, edited))


def pairs_of(rows: Sequence[tuple[Example, Example]], ngram: int) -> list[Pair]:
    """The pairs with their true similarity."""
    return [Pair((one.line, other.line), _jaccard(_runs(one, ngram), _runs(other, ngram))) for one, other in rows]


def score(pairs: Sequence[Pair], clusters: Sequence[Mapping[str, Json]], min_jaccard: float) -> Found:
    """Compare with the clusters that cleaning wrote: a kept row and its copies."""
    partner = {line: pair for pair in pairs for line in pair.lines}
    found: set[tuple[int, int]] = set()
    n_other = 0
    for kept, copy in _links(clusters):
        if copy in partner[kept].lines:
            found.add(partner[kept].lines)
        else:
            n_other += 1
    similar = {pair.lines for pair in pairs if pair.jaccard >= min_jaccard}
    return Found(len(similar), len(pairs) - len(similar), len(found), len(found & similar), n_other)


def _n_edits(rng: random.Random, n_words: int, jaccard: float) -> int:
    """A word lies in `ngram` runs, which an edit replaces on both sides: (n - 5k) / (n + 5k) = jaccard, for 5."""
    expected = n_words * (1 - jaccard) / (1 + jaccard) / 5
    return max(1, int(expected + rng.random()))


def _links(clusters: Sequence[Mapping[str, Json]]) -> Iterator[tuple[int, int]]:
    for cluster in clusters:
        match cluster:
            case {"kept": str(kept), "copies": list(copies)}:
                for copy in copies:
                    match copy:
                        case {"place": str(place)}:
                            yield _line(kept), _line(place)


def _line(place: str) -> int:
    return int(place.rpartition(":")[2])


def _runs(example: Example, n: int) -> set[str]:
    words = _words("\n".join(contents(example)))
    return {" ".join(words[start : start + n]) for start in range(max(1, len(words) - n + 1))}


def _words(text: str) -> list[str]:
    return re.findall(r"\w+", text.lower())


def _jaccard(one: set[str], other: set[str]) -> float:
    return len(one & other) / len(one | other)
