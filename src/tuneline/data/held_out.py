"""What training rows share with held-out rows, found by looking up every run of words of each training row.

Held-out rows are few enough for that; so every near copy is found, not only the share of them that meets in a MinHash
band (0.92 at a Jaccard similarity of 0.8, with 14 bands of 8). System messages are left out: many rows share them.
"""

import hashlib
import string
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import cache, cached_property, lru_cache
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from tuneline.config.schema import ContaminationConfig
from tuneline.data.arrays import Hashes, Indexes
from tuneline.data.prompts import prompt_keys
from tuneline.data.records import Example, message_texts
from tuneline.data.shingles import Grams, offsets_of, runs, sequence_keys, words

RowNumbers = NDArray[np.int32]  # half the memory, and enough for held-out rows

MIN_ANSWER_WORDS = 20  # two rows may well come to the same shorter answer on their own
MAX_PAIRS = 3  # per row and way of finding them: the closest are reported
_NEAR_NGRAM = 5  # words in a run, as for near duplicates
_ROWS_AT_ONCE = 200  # their words' hashes then stay in the processor's cache
_BITS_PER_KEY = 16  # of each of two filters before a search: 1 in 256 foreign runs passes both
_MAX_FILTER_BYTES = 2**24  # for more than a million keys more foreign runs pass, and are searched for in vain


class SharedKeys(NamedTuple):
    """Training rows and the keys that they share with held-out rows, each pair once."""

    rows: Indexes  # [n]
    keys: Indexes  # [n] index into Table.keys

    def numbered(self, numbers: Indexes) -> "SharedKeys":
        """The same with each row's number in place of its index."""
        return SharedKeys(numbers[self.rows], self.keys)


@dataclass(frozen=True)
class Table:
    """Which held-out rows have a key."""

    keys: Hashes  # [n_keys] ascending
    offsets: Indexes  # [n_keys + 1] key i is in held_out[offsets[i]:offsets[i + 1]]
    held_out: RowNumbers  # numbers of held-out rows, ascending for each key

    @cached_property
    def _filters(self) -> list[tuple[int, NDArray[np.bool_]]]:
        """Which values some bits of the keys have, and the place of those bits: cheaper than a search."""
        size = min(1 << (max(len(self.keys), 2**12) * _BITS_PER_KEY - 1).bit_length(), _MAX_FILTER_BYTES)
        filters = [(shift, np.zeros(size, np.bool_)) for shift in (0, 32)]
        for shift, is_there in filters:
            for first in range(0, len(self.keys), size):
                is_there[_bits(self.keys[first : first + size], shift, size)] = True
        return filters

    def find(self, of: "LookupKeys") -> SharedKeys:
        """Rows that have one of the table's keys."""
        hashes, offsets = of.grams
        places = np.flatnonzero(self._passes(0, hashes))
        places = places[self._passes(1, hashes[places])]
        keys = np.searchsorted(self.keys, hashes[places])
        keys[keys == len(self.keys)] = 0
        is_key = self.keys[keys] == hashes[places] if len(self.keys) else np.zeros(0, np.bool_)
        rows = of.row[np.searchsorted(offsets, places[is_key], side="right") - 1]
        n_keys = max(len(self.keys), 1)
        pairs = np.unique(rows[rows >= 0] * n_keys + keys[is_key][rows >= 0])
        return SharedKeys(pairs // n_keys, pairs % n_keys)

    def _passes(self, number: int, hashes: Hashes) -> NDArray[np.bool_]:
        shift, is_there = self._filters[number]
        return is_there[_bits(hashes, shift, len(is_there))]

    def having(self, key: int) -> RowNumbers:
        """Held-out rows that have the key."""
        return self.held_out[self.offsets[key] : self.offsets[key + 1]]


_N_TABLES = 4
_N_ARRAYS = 3 * _N_TABLES + 1


def _bits(hashes: Hashes, shift: int, n: int) -> Indexes:
    """From 0 to n - 1, n being a power of two."""
    return (hashes.view(np.int64) >> shift) & (n - 1)


class LookupKeys(NamedTuple):
    """What training rows are looked up by."""

    grams: Grams  # of some texts
    row: Indexes  # [n_texts] the row that each is of; -1: the text is too short to be compared


@dataclass(slots=True)
class _Gathered:
    """The keys of held-out rows, taken in piece by piece: what is held of a row is each of its keys once."""

    hashes: list[Hashes] = field(default_factory=list)
    rows: list[RowNumbers] = field(default_factory=list)

    def add(self, keys: LookupKeys, first_row: int) -> None:
        """Take in rows that come behind all others."""
        rows = np.repeat(keys.row, np.diff(keys.grams.offsets))
        order = np.lexsort((keys.grams.hashes, rows))
        hashes, rows = keys.grams.hashes[order], rows[order]
        is_new = rows >= 0
        is_new[1:] &= (hashes[1:] != hashes[:-1]) | (rows[1:] != rows[:-1])
        self.hashes.append(hashes[is_new])
        self.rows.append((rows[is_new] + first_row).astype(np.int32))

    def table(self) -> Table:
        """Of all that was taken in, which is gone then."""
        hashes, rows = _emptied(self.hashes, np.uint64), _emptied(self.rows, np.int32)
        order = np.argsort(hashes, kind="stable")  # rows are ascending already
        hashes, rows = hashes[order], rows[order]
        del order
        is_first = np.ones(len(hashes), np.bool_)
        is_first[1:] = hashes[1:] != hashes[:-1]
        return Table(hashes[is_first], np.append(np.flatnonzero(is_first), len(hashes)), rows)


def _emptied(parts: list[NDArray[Any]], dtype: type) -> NDArray[Any]:
    whole = np.concatenate([np.zeros(0, dtype), *parts])
    parts.clear()
    return whole


class Near(NamedTuple):
    """Near copies of held-out rows."""

    rows: Indexes  # [n]
    held_out: Indexes  # [n]
    jaccard: NDArray[np.float64]  # [n]

    def numbered(self, numbers: Indexes) -> "Near":
        """The same with each row's number in place of its index."""
        return Near(numbers[self.rows], self.held_out, self.jaccard)


class Overlap(NamedTuple):
    """What some training rows share with held-out ones."""

    answers: SharedKeys
    runs: SharedKeys
    near: Near

    def numbered(self, numbers: Indexes) -> "Overlap":
        """The same with each row's number in place of its index."""
        return Overlap(self.answers.numbered(numbers), self.runs.numbered(numbers), self.near.numbered(numbers))


@dataclass(frozen=True)
class Index:
    """What held-out rows are recognised by."""

    prompts: Table  # by the last of their prompt_keys
    answers: Table  # by the words of an answer, without signs
    runs: Table  # by runs of settings.ngram words, without signs
    shingles: Table  # by runs of _NEAR_NGRAM words and signs
    n_shingles: Indexes  # [n_held_out] different ones, of each row

    def save(self, folder: Path) -> Path:
        """Write the index where several processes can read it; the name follows from the content."""
        arrays = self._arrays()
        digest = hashlib.blake2b(digest_size=16)
        for array in arrays:
            digest.update(np.ascontiguousarray(array).data)
        path = folder / f"held_out-{digest.hexdigest()}"
        path.mkdir(exist_ok=True)
        for number, array in enumerate(arrays):
            np.save(path / f"{number}.npy", array)
        return path

    def _arrays(self) -> list[NDArray[Any]]:
        tables = (self.prompts, self.answers, self.runs, self.shingles)
        return [array for it in tables for array in (it.keys, it.offsets, it.held_out)] + [self.n_shingles]


@lru_cache(maxsize=1)  # read once per process, not once per part
def load_index(path: Path) -> Index:
    """What `Index.save` wrote. All processes share one copy in memory, which the system may drop and read again."""
    arrays = [np.asarray(np.load(path / f"{number}.npy", mmap_mode="r")) for number in range(_N_ARRAYS)]
    prompts, answers, of_ngram, shingles = (Table(*arrays[first : first + 3]) for first in range(0, 12, 3))
    return Index(prompts, answers, of_ngram, shingles, arrays[12])


def index_of(held_out: Iterable[Example], settings: ContaminationConfig) -> Index:
    """The index of all held-out rows; a few of them are in memory at a time."""
    rows, n_rows = iter(held_out), 0
    gathered = prompts, answers, of_ngram, shingles = tuple(_Gathered() for _ in range(_N_TABLES))
    while piece := list(islice(rows, _ROWS_AT_ONCE)):
        read = _read([texts_of(example) for example in piece])
        own = np.array([prompt_keys(example)[-1] for example in piece], np.uint64)
        prompts.add(one_each(own, np.arange(len(piece))), n_rows)
        answers.add(_long_texts(_read([answers_of(example) for example in piece])), n_rows)
        of_ngram.add(_of_texts(read, settings.ngram), n_rows)
        shingles.add(_of_rows(read, _NEAR_NGRAM if settings.min_jaccard is not None else None), n_rows)
        n_rows += len(piece)
    first, second, third, near = (found.table() for found in gathered)
    return Index(first, second, third, near, np.bincount(near.held_out, minlength=n_rows))


def look(examples: Sequence[Example], index: Index, settings: ContaminationConfig) -> Overlap:
    """What the rows, numbered from 0, share with held-out ones; prompts aside."""
    numbers = np.arange(len(examples))
    pieces = [slice(first, first + _ROWS_AT_ONCE) for first in range(0, len(examples), _ROWS_AT_ONCE)]
    found = [_look(examples[piece], index, settings).numbered(numbers[piece]) for piece in pieces]
    none = np.zeros(0, np.int64)
    nothing = Overlap(SharedKeys(none, none), SharedKeys(none, none), Near(none, none, np.zeros(0, np.float64)))
    answers, shared, near = zip(nothing, *found, strict=True)
    return Overlap(SharedKeys(*_joined(answers)), SharedKeys(*_joined(shared)), Near(*_joined(near)))


def _joined(parts: Sequence[Sequence[NDArray[Any]]]) -> list[NDArray[Any]]:
    return [np.concatenate(arrays) for arrays in zip(*parts, strict=True)]


def _look(examples: Sequence[Example], index: Index, settings: ContaminationConfig) -> Overlap:
    read = _read([texts_of(example) for example in examples])
    answers = index.answers.find(_long_texts(read))
    shared = index.runs.find(_of_texts(read, settings.ngram))
    near = _near(_of_rows(read, _NEAR_NGRAM), index, settings.min_jaccard) if settings.min_jaccard else []
    rows, others, jaccard = zip(*near, strict=True) if near else ((), (), ())
    return Overlap(answers, shared, Near(np.array(rows, np.int64), np.array(others, np.int64), np.array(jaccard)))


def texts_of(example: Example) -> list[str]:
    """What is compared."""
    if example.text is not None:
        return [example.text]
    turns = example.messages + example.chosen + example.rejected
    return [text for message in turns if message.role != "system" for text in message_texts(message)]


def answers_of(example: Example) -> list[str]:
    """What answers the row's prompt; raw text is all answer."""
    if example.text is not None:
        return [example.text]
    ends = [messages[-1] for messages in (example.messages, example.chosen, example.rejected) if messages]
    return [message.content for message in ends if message.role == "assistant"]


class _Read(NamedTuple):
    """The words of rows, each with several texts."""

    texts: Grams  # words and signs of all texts
    plain: Grams  # words of all texts
    row: Indexes  # [n_texts] the row of each
    first: Indexes  # [n_rows + 1] the first text of each


def _read(texts: Sequence[list[str]]) -> _Read:
    counts = np.fromiter(map(len, texts), np.int64, len(texts))
    of_texts = words([text for row in texts for text in row])
    return _Read(of_texts, without_signs(of_texts), np.repeat(np.arange(len(texts)), counts), offsets_of(counts))


def without_signs(of: Grams) -> Grams:
    """The words that are no signs of mathematics or code.

    With them thirteen words are little: 40% of the training rows of GSM8K share "2 * 10 = $ < < 2 * 10 = 20 >" or
    the like with some test row.
    """
    is_sign, signs = _signs()
    place = np.flatnonzero(is_sign[_bits(of.hashes, 0, len(is_sign))])
    keep = np.ones(len(of.hashes), np.bool_)
    keep[place[np.isin(of.hashes[place], signs)]] = False
    return Grams(of.hashes[keep], offsets_of(keep.astype(np.int64))[of.offsets])


@cache
def _signs() -> tuple[NDArray[np.bool_], Hashes]:
    """A filter by some bits of a word, and the signs themselves: the punctuation that counts as words."""
    signs = words([" ".join(string.punctuation.replace("_", ""))]).hashes
    is_sign = np.zeros(2**14, np.bool_)
    is_sign[_bits(signs, 0, len(is_sign))] = True
    return is_sign, signs


def _long_texts(read: _Read) -> LookupKeys:
    """Each text as one key."""
    return one_each(sequence_keys(read.plain), _if_long(read.plain, read.row, MIN_ANSWER_WORDS))


def one_each(hashes: Hashes, row: Indexes) -> LookupKeys:
    """Keys of which each has its row."""
    return LookupKeys(Grams(hashes, np.arange(len(hashes) + 1)), row)


def _of_texts(read: _Read, n: int | None) -> LookupKeys:
    """Every run of n words inside a text."""
    return _runs(read.plain, read.row, n)


def _of_rows(read: _Read, n: int | None) -> LookupKeys:
    """Every run of n words of a whole row."""
    return _runs(Grams(read.texts.hashes, read.texts.offsets[read.first]), np.arange(len(read.first) - 1), n)


def _runs(of: Grams, row: Indexes, n: int | None) -> LookupKeys:
    """Full runs only: the one run of a shorter text is not compared. None at all where n is null."""
    if n is None or len(of.hashes) < n:
        return one_each(np.zeros(0, np.uint64), np.zeros(0, np.int64))
    return LookupKeys(runs(of, n), _if_long(of, row, n))


def _if_long(of: Grams, row: Indexes, min_words: int) -> Indexes:
    return np.where(np.diff(of.offsets) >= min_words, row, -1)


def _near(keys: LookupKeys, index: Index, min_jaccard: float) -> list[tuple[int, int, float]]:
    """(row, held-out row, similarity)"""
    found = index.shingles.find(keys)
    near: list[tuple[int, int, float]] = []
    hashes, offsets = keys.grams
    for row, n_found in zip(*(column.tolist() for column in np.unique_counts(found.rows)), strict=True):
        size = len(np.unique(hashes[offsets[row] : offsets[row + 1]]))
        # |A n B| >= t |A u B| >= t |A|: a row that shares less with all held-out rows together is near none of them.
        if n_found / size >= min_jaccard:
            similar = _similar(found.keys[found.rows == row], size, index, min_jaccard)
            near += [(row, other, jaccard) for other, jaccard in similar]
    return near


def _similar(keys: Indexes, size: int, index: Index, min_jaccard: float) -> list[tuple[int, float]]:
    """The most similar held-out rows of a row with these keys, and their exact Jaccard similarity."""
    n_both = np.bincount(np.concatenate([index.shingles.having(key) for key in keys.tolist()]))
    others = np.flatnonzero(n_both)
    jaccard = n_both[others] / (size + index.n_shingles[others] - n_both[others])
    best = np.lexsort((others, -jaccard))[:MAX_PAIRS]
    return [(int(others[i]), float(jaccard[i])) for i in best if jaccard[i] >= min_jaccard]
