"""Training rows that give a held-out row away: a score on that one would be memory, not skill.

exact: a prompt that the row answers is a held-out prompt, or one of its texts is a held-out answer of some length.
ngram: a text of the row shares a run of words with a held-out text (Brown et al. 2020, appendix C); signs are no words.
near: the Jaccard similarity of both rows' sets of runs of 5 words or signs is high.
System messages are left out everywhere: a question stays the same question under other instructions.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np

from tuneline.config.schema import ContaminationConfig
from tuneline.data.arrays import Hashes, Indexes
from tuneline.data.held_out import (
    MAX_PAIRS,
    Index,
    Near,
    Overlap,
    SharedKeys,
    Table,
    answers_of,
    texts_of,
    without_signs,
)
from tuneline.data.prompts import is_answered
from tuneline.data.records import Example, Json
from tuneline.data.shingles import runs, sequence_keys, words
from tuneline.data.sides import StoredRows

ContaminationKind = Literal["exact", "ngram", "near"]

CONTAMINATION_KINDS: tuple[ContaminationKind, ...] = ("exact", "ngram", "near")
_SHOWN_CHARS = 200
_ASCII_SPACE = re.compile(r"[ \t\n\r\f\v]+")


@dataclass(frozen=True, slots=True)
class Pair:
    """A training row and a held-out row that it gives away."""

    row: int
    held_out: int
    kind: ContaminationKind
    link: str  # what the row does to the held-out one, for messages: "it answers the prompt of"
    shared: str  # text in both; empty for near copies
    jaccard: float | None  # of near copies


class Evidence:
    """What training rows share with held-out ones, gathered part by part.

    A run of words (or a whole answer) in more than settings.max_ngram_rows training rows is their template, and gives
    nothing away. What is held in memory of runs and answers is bounded by the held-out rows, however many training rows
    there are; equal prompts and near copies take memory for each training row that has one.
    """

    def __init__(self, index: Index, held_out: StoredRows, settings: ContaminationConfig) -> None:
        self._index, self._held_out, self._ngram = index, held_out, settings.ngram
        self._answers = _Sightings(len(index.answers.keys), settings.max_ngram_rows)
        self._runs = _Sightings(len(index.runs.keys), settings.max_ngram_rows)
        self._near: list[Near] = []

    def add(self, overlap: Overlap) -> None:
        """Take in another part."""
        self._answers.add(overlap.answers)
        self._runs.add(overlap.runs)
        self._near.append(overlap.near)

    def pairs(self, prompts: SharedKeys) -> dict[int, list[Pair]]:
        """Row -> its pairs, given the rows with held-out prompts; the rows are in ascending order.

        Exact ones come first, then runs, then near copies; of each way at most MAX_PAIRS.
        """
        pairs: dict[int, list[Pair]] = {}
        for found in (self._with_prompt(prompts), self._with_answer(), self._with_run(), self._near_copies()):
            for pair in found:
                pairs.setdefault(pair.row, []).append(pair)
        return dict(sorted(pairs.items()))

    def _with_prompt(self, prompts: SharedKeys) -> Iterator[Pair]:
        for match in _closest(prompts, self._index.prompts):
            shared = _shown("\n".join(_prompt(self._held_out[match.held_out])))
            yield Pair(match.row, match.held_out, "exact", "it answers the prompt of", shared, None)

    def _with_answer(self) -> Iterator[Pair]:
        for match in _closest(self._answers.telling(), self._index.answers):
            texts = answers_of(self._held_out[match.held_out])
            keys = sequence_keys(without_signs(words(texts))).tolist()
            shared = _shown(texts[keys.index(int(self._index.answers.keys[match.keys[0]]))])
            yield Pair(match.row, match.held_out, "exact", "it holds the answer of", shared, None)

    def _with_run(self) -> Iterator[Pair]:
        link = f"it has {self._ngram} words in a row in common with"
        for match in _closest(self._runs.telling(), self._index.runs):
            keys = self._index.runs.keys[match.keys]
            shared = _first_stretch(self._held_out[match.held_out], keys, self._ngram or 0)
            yield Pair(match.row, match.held_out, "ngram", link, shared, None)

    def _near_copies(self) -> Iterator[Pair]:
        for near in self._near:
            for row, other, jaccard in zip(*(column.tolist() for column in near), strict=True):
                link = f"it is a near copy (Jaccard similarity {jaccard:.3f}) of"
                yield Pair(row, other, "near", link, "", jaccard)


class _Sightings:
    """Rows that have a key, without keys that more than `max_rows` rows have."""

    def __init__(self, n_keys: int, max_rows: int) -> None:
        self._max_rows = max_rows
        self._n_rows = np.zeros(n_keys, np.int32)
        self._parts: list[SharedKeys] = []  # a key's rows only until they are too many

    def add(self, found: SharedKeys) -> None:
        few = self._n_rows[found.keys] <= self._max_rows
        np.add.at(self._n_rows, found.keys, 1)
        self._parts.append(SharedKeys(found.rows[few], found.keys[few]))

    def telling(self) -> SharedKeys:
        """All rows, by the keys that are no template."""
        none = np.zeros(0, np.int64)
        rows = np.concatenate([none, *(part.rows for part in self._parts)])
        keys = np.concatenate([none, *(part.keys for part in self._parts)])
        rare = self._n_rows[keys] <= self._max_rows
        return SharedKeys(rows[rare], keys[rare])


class _Match(NamedTuple):
    row: int
    held_out: int
    keys: Indexes  # that both have


def _closest(found: SharedKeys, table: Table) -> Iterator[_Match]:
    """For each row the held-out rows with the most keys in common, the earlier one first among equals."""
    order = np.argsort(found.rows, kind="stable")
    rows, keys = found.rows[order], found.keys[order]
    for of_row in np.split(np.arange(len(rows)), np.flatnonzero(np.diff(rows)) + 1) if len(rows) else []:
        having = [table.having(key) for key in keys[of_row].tolist()]
        others, n_shared = np.unique(np.concatenate(having), return_counts=True)
        for best in np.lexsort((others, -n_shared))[:MAX_PAIRS]:
            is_shared = [others[best] in some for some in having]
            yield _Match(int(rows[of_row[0]]), int(others[best]), keys[of_row][is_shared])


def _prompt(example: Example) -> list[str]:
    if example.text is not None:
        return [example.text]
    turns = example.messages[:-1] if is_answered(example) else example.messages
    return [message.content for message in turns if message.role != "system"]


def _first_stretch(example: Example, keys: Hashes, ngram: int) -> str:
    """The words of the first runs with these keys that are one behind the other, as they are written there."""
    for text in texts_of(example):
        pieces = _ASCII_SPACE.split(text)  # every one is between two words
        places = np.repeat(np.arange(len(pieces)), np.diff(without_signs(words(pieces)).offsets))
        plain = without_signs(words([text]))
        if len(plain.hashes) >= ngram:
            found = np.flatnonzero(np.isin(runs(plain, ngram).hashes, keys))
            if len(found):
                last = found[np.flatnonzero(np.diff(found, append=-1) != 1)[0]] + ngram - 1
                return _shown(" ".join(pieces[places[found[0]] : places[last] + 1]))
    return ""


def _shown(text: str) -> str:
    text = " ".join(text.split())
    return text if len(text) <= _SHOWN_CHARS else f"{text[: _SHOWN_CHARS - 3]}..."


def pair_as_json(pair: Pair, row: Example, held_out: Example) -> dict[str, Json]:
    """The pair as it stands in a file."""
    written: dict[str, Json] = {
        "kind": pair.kind,
        "row": row.place,
        "row_id": row.id,
        "held_out": held_out.place,
        "held_out_id": held_out.id,
    }
    if pair.jaccard is None:
        return written | {"shared": pair.shared}
    return written | {"jaccard": round(pair.jaccard, 4)}
