"""Copies of a row: the same content, the same words, or nearly the same runs of words.

Of several copies stays the one of the earliest source, of those the longest, of those the one with the smallest id:
what is kept depends on the rows alone, not on their order. Of rows with equal content the first one stays.
"""

import hashlib
import json
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from tuneline.config.schema import CleanConfig, NearDuplicatesRuleConfig
from tuneline.data.arrays import Flags, Hashes, Indexes
from tuneline.data.minhash import band_keys
from tuneline.data.records import Example, id_number
from tuneline.data.shingles import Grams, mixed, offsets_of, recalled_words, runs, sequence_keys, sums

_ROWS_AT_ONCE = 200  # their words' hashes then stay in the processor's cache
_PIECE_BYTES = 2**16  # of text at a time: arrays of that size are not fetched from the system again and again
_ZERO, _N_DIGITS = np.uint8(ord("0")), np.uint8(10)
_DOT, _COMMA, _COLON = np.frombuffer(b".,:", np.uint8)
_SYSTEM = 1
_CALL = 10**12
_ROLES = {"system": _SYSTEM, "user": 2, "assistant": 3, "tool": 4}
_KINDS = {"conversation": 1, "text": 2, "preference": 3, "labelled": 4, "prompt": 5}


class CopyKeys(NamedTuple):
    """What rows are compared by; rows of two kinds, labels, tools or system texts share no number."""

    content: Hashes  # [n_rows] the id: equal ones, equal rows
    folded: Hashes  # [n_rows] equal for the same words in order, signs inside numbers and roles
    bands: Hashes  # [n_rows, n_bands] an equal number in one column makes two rows candidates, no copies yet


class Copies(NamedTuple):
    """Rows that another one makes superfluous."""

    rows: Indexes  # [n_copies] ascending
    kept: Indexes  # [n_copies] the row that stays instead
    jaccard: NDArray[np.float64]  # [n_copies] 1.0 for equal ones


def keys_of(examples: Sequence[Example], rules: CleanConfig) -> CopyKeys:
    """The keys that the enabled rules need; without near duplicates `bands` has no column."""
    pieces = [_keys_of(examples[i : i + _ROWS_AT_ONCE], rules) for i in range(0, len(examples), _ROWS_AT_ONCE)]
    if not pieces:
        n_bands = rules.near_duplicates.bands if rules.near_duplicates.enabled else 0
        return CopyKeys(*(np.empty(shape, np.uint64) for shape in (0, 0, (0, n_bands))))
    content, folded, bands = ([piece[column] for piece in pieces] for column in range(3))
    return CopyKeys(np.concatenate(content), np.concatenate(folded), np.concatenate(bands))


def _keys_of(examples: Sequence[Example], rules: CleanConfig) -> CopyKeys:
    content = np.array([id_number(example.id) for example in examples], np.uint64)
    if not (rules.folded_duplicates.enabled or rules.near_duplicates.enabled):
        return CopyKeys(content, content, np.empty((len(examples), 0), np.uint64))
    parts = [list(_parts(example)) for example in examples]
    of_parts = recalled_words([text for row in parts for _, text in row])
    numbers = np.array([number for row in parts for number, _ in row], np.uint64)
    n_parts = np.fromiter(map(len, parts), np.int64, len(parts))
    of_texts, edges = mixed(_folded_keys(of_parts, parts) + numbers), offsets_of(n_parts)
    folded = sums(of_texts, edges)
    # Rows of other kinds, labels or tools never meet: one answer marked good and marked bad is no copy.
    apart = np.array([_apart(example) for example in examples], np.uint64)
    # Nor do rows under other system texts, which ask for something else: "translate to French".
    apart += sums(np.where(numbers % 100 == _SYSTEM, of_texts, np.uint64(0)), edges)
    bands = _bands(of_parts, numbers, n_parts, folded, apart, rules.near_duplicates)
    return CopyKeys(content, mixed(folded + apart), bands)


def _apart(example: Example) -> int:
    """A number that rows which may be copies share."""
    plain = _KINDS[example.kind] + 10 * bool(example.label)
    return plain ^ _hashed(json.dumps(example.tools, sort_keys=True)) if example.tools else plain


def _hashed(text: str) -> int:
    return int.from_bytes(hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest()[:8], "big")


def compared_text(example: Example) -> str:
    """What near copies are judged by: all texts but the system messages, which many rows share."""
    return "\n".join(text for number, text in _parts(example) if number % 100 != _SYSTEM)


def answer_text(example: Example) -> str:
    """What the row teaches: all texts of the assistant, of both answers of a pair; none of raw text and prompts."""
    return "\n".join(text for number, text in _parts(example) if number % 100 == _ROLES["assistant"])


def _folded_keys(of_parts: Grams, parts: list[list[tuple[int, str]]]) -> Hashes:
    keys = sequence_keys(of_parts)
    texts = [text for row in parts for _, text in row]
    for index in np.flatnonzero(np.diff(of_parts.offsets) == 0):  # nothing but punctuation: "?" is not "!"
        keys[index] = _hashed(texts[index])
    return keys + _signs_in_numbers(texts)


def _between_digits(data: NDArray[np.uint8], begin: int) -> Indexes:
    """Places between two digits in a piece of the bytes."""
    is_digit = (data[begin : begin + _PIECE_BYTES + 2] - _ZERO) < _N_DIGITS  # unsigned: what is below 0 becomes large
    return np.flatnonzero(is_digit[:-2] & is_digit[2:]) + (begin + 1)


def _signs_in_numbers(texts: list[str]) -> Hashes:
    """[n_texts] A hash of the signs between two digits in their order: 3.14 is not 3:14; 0 for a text without any.

    All texts at once and byte by byte: an expression that looks for them takes longer than all the rest of the key.
    """
    joined = "\n".join(texts)
    encoded = joined.encode("utf-8", "surrogatepass")
    data = np.frombuffer(encoded, np.uint8)
    places = np.concatenate([_between_digits(data, begin) for begin in range(0, max(len(data), 1), _PIECE_BYTES)])
    signs = data[places]
    is_sign = (signs == _DOT) | (signs == _COMMA) | (signs == _COLON)
    if not is_sign.any():
        return np.zeros(len(texts), np.uint64)
    sizes = map(len, texts) if len(encoded) == len(joined) else (len(t.encode("utf-8", "surrogatepass")) for t in texts)
    ends = np.cumsum(np.fromiter(sizes, np.int64, len(texts)) + 1)
    counts = np.bincount(np.searchsorted(ends, places[is_sign], side="right"), minlength=len(texts))
    keys = sequence_keys(Grams(mixed(signs[is_sign].astype(np.uint64)), offsets_of(counts)))
    keys[counts == 0] = 0
    return keys


def _bands(
    of_parts: Grams,
    numbers: Hashes,
    n_parts: Indexes,
    folded: Hashes,
    apart: Hashes,
    settings: NearDuplicatesRuleConfig,
) -> Hashes:
    if not settings.enabled:
        return np.empty((len(n_parts), 0), np.uint64)
    n_words = np.where(numbers % 100 == _SYSTEM, 0, np.diff(of_parts.offsets))
    is_compared = np.repeat(numbers % 100 != _SYSTEM, np.diff(of_parts.offsets))
    in_parts = offsets_of(n_words)[offsets_of(n_parts)]  # where each row begins among the words that are left
    of_rows = Grams(of_parts.hashes[is_compared], in_parts)
    without_words = np.where(np.diff(in_parts) == 0, folded, np.uint64(0))  # "?" and "!" share the run of no word
    return mixed(band_keys(runs(of_rows, settings.ngram), settings) + (apart + without_words)[:, None])


def _parts(example: Example) -> Iterator[tuple[int, str]]:
    """Each text with a number that tells role, and place (in the pair, among the turns, in the calls), apart."""
    if example.text is not None:
        yield 0, example.text
    turns = ((100, example.messages), (100_000, example.chosen), (100_000_000, example.rejected))
    for unit, messages in turns:
        for place, message in enumerate(messages, 1):
            yield place * unit + _ROLES[message.role], message.content
            for number, call in enumerate(message.tool_calls, 1):
                written = json.dumps([call.name, dict(call.arguments)], sort_keys=True, ensure_ascii=False)
                yield place * unit + number * _CALL + _ROLES[message.role], written


def ranks(source: Indexes, n_chars: Indexes, content: Hashes) -> Indexes:
    """[n_rows] 0 for the row that stays whatever it is compared with; see the head of this module."""
    order = np.lexsort((np.arange(len(source)), content, -n_chars, source))
    ranked = np.empty(len(order), np.int64)
    ranked[order] = np.arange(len(order))
    return ranked


def equal_keys(keys: Hashes, rank: Indexes, alive: Flags) -> Copies:
    """Alive rows with the key of a row that ranks before them."""
    rows = np.flatnonzero(alive)
    rows = rows[np.lexsort((rank[rows], keys[rows]))]
    is_first = np.ones(len(rows), np.bool_)
    is_first[1:] = keys[rows[1:]] != keys[rows[:-1]]
    winners = rows[np.maximum.accumulate(np.where(is_first, np.arange(len(rows)), 0))]
    copies, kept = rows[~is_first], winners[~is_first]
    order = np.argsort(copies)
    return Copies(copies[order], kept[order], np.ones(len(copies)))
