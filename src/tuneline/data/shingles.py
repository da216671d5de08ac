"""Texts as hashed words and hashed runs of words, many texts at once: what every comparison of rows is made of.

A word is a run of letters, digits and underscores; each Chinese or Japanese character is a word, and so is each sign
that carries meaning in code and mathematics. Case, white space and the punctuation of prose are folded away.
"""

import hashlib
import unicodedata
from collections.abc import Sequence
from itertools import pairwise
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from tuneline.data.arrays import Hashes, Indexes

# The other ASCII signs (+ - * / < > = % & | ^ ~ # $ @ \ and brackets) are words, so that "x > 5" is not "x < 5".
_PROSE_SIGNS = ".,;:!?'\"`´…·•¡¿‘’‚‛“”„‟«»‹›–—―。，、；：！？「」『』《》〈〉（）"
_UNSEEN = (
    *((0xA0, 0xA0), (0xAD, 0xAD), (0x1680, 0x1680), (0x2000, 0x200F), (0x2028, 0x202F), (0x205F, 0x2064)),
    *((0x3000, 0x3000), (0xFEFF, 0xFEFF)),
)
_CJK = ((0x3040, 0x30FF), (0x3400, 0x4DBF), (0x4E00, 0x9FFF), (0xF900, 0xFAFF))
_BETWEEN, _IN_WORD, _ALONE = 0, 1, 2
_PIECE_BYTES = 2**17  # of text at a time: the arrays then stay in the processor's cache
_MASK = 2**64 - 1
_MARK, _EQUALS = np.frombuffer(b"!=", np.uint8)
_CHUNK_BYTES, _LONG_BYTES = 8, 64
_MASKS = np.array([2 ** (8 * n_bytes) - 1 for n_bytes in range(_CHUNK_BYTES + 1)], np.uint64)  # of the first n bytes
_NO_PLACES, _NO_HASHES = np.empty(0, np.int64), np.empty(0, np.uint64)


class Grams(NamedTuple):
    """Hashes of the words (or runs of words) of several texts, one behind the other."""

    hashes: Hashes  # [n_grams]
    offsets: Indexes  # [n_texts + 1]: text i has hashes[offsets[i]:offsets[i + 1]]


def words(texts: Sequence[str]) -> Grams:
    """The words of every text in order, as 64-bit hashes that are equal on every machine and in every run."""
    pieces = [_words(piece) for piece in _pieces([_folded(text) for text in texts])]
    hashes = np.concatenate([piece.hashes for piece in pieces]) if pieces else np.empty(0, np.uint64)
    counts = np.concatenate([np.diff(piece.offsets) for piece in pieces]) if pieces else np.empty(0, np.int64)
    return Grams(hashes, offsets_of(counts))


def remembered_words(texts: Sequence[str]) -> Grams:
    """`words`, which `recalled_words` need not hash again until the next call."""
    of = words(texts)
    ends = of.offsets.tolist()
    _remembered.clear()
    for text, begin, end in zip(texts, ends, ends[1:], strict=False):
        _remembered[id(text)] = (text, of.hashes[begin:end])
    return of


def recalled_words(texts: Sequence[str]) -> Grams:
    """`words`, where half of the texts may just have passed another rule."""
    found = [_recalled(text) for text in texts]
    unknown = words([text for text, hashes in zip(texts, found, strict=True) if hashes is None])
    rest = pairwise(unknown.offsets.tolist())
    parts = [unknown.hashes[slice(*next(rest))] if hashes is None else hashes for hashes in found]
    counts = np.fromiter(map(len, parts), np.int64, len(parts))
    return Grams(np.concatenate(parts) if parts else unknown.hashes, offsets_of(counts))


# By identity, as a text is hashed faster by us than by a dict; the text beside it keeps its id from being used again.
_remembered: dict[int, tuple[str, Hashes]] = {}


def _recalled(text: str) -> Hashes | None:
    found = _remembered.get(id(text))
    return None if found is None else found[1]


def runs(of: Grams, n: int) -> Grams:
    """Every run of `n` words in a row of every text; a shorter text has one run, of all its words.

    A text without a word has one run too, so that texts without words are alike.
    """
    counts = np.diff(of.offsets)
    n_runs = np.maximum(counts - n + 1, 1)
    hashes = np.zeros(len(of.hashes) + n, np.uint64)  # room behind the last word for runs that end there
    for place in range(min(n, len(of.hashes))):  # past the end of a text the next one's words: no run begins there
        hashes[: len(of.hashes) - place] += of.hashes[place:] * np.uint64(_odd(place))
    starts = np.repeat(of.offsets[:-1], n_runs) + _within(n_runs)
    found = mixed(hashes[starts])
    short = np.flatnonzero(counts < n)
    found[offsets_of(n_runs)[short]] = [_of_all(of.hashes[of.offsets[i] : of.offsets[i + 1]]) for i in short]
    return Grams(found, offsets_of(n_runs))


def sequence_keys(of: Grams) -> Hashes:
    """[n_texts] One hash per text over all its words in order: equal keys, equal folded texts."""
    counts = np.diff(of.offsets)
    weights = mixed(np.arange(1, counts.max(initial=0) + 1, dtype=np.uint64)) | np.uint64(1)
    return mixed(sums(of.hashes * weights[_within(counts)], of.offsets) + counts.astype(np.uint64))


def sums(values: Hashes, offsets: Indexes) -> Hashes:
    """[n_texts] The sum of each text's values, modulo 2^64; 0 for a text without any."""
    running = np.zeros(len(values) + 1, np.uint64)
    np.cumsum(values, out=running[1:])
    found: Hashes = running[offsets[1:]] - running[offsets[:-1]]
    return found


def _folded(text: str) -> bytes:
    if not text.isascii():
        text = unicodedata.normalize("NFC", text).casefold()
    return text.encode("utf-8", "surrogatepass")


def _pieces(texts: list[bytes]) -> list[list[bytes]]:
    pieces: list[list[bytes]] = []
    n_bytes = _PIECE_BYTES
    for text in texts:
        if n_bytes >= _PIECE_BYTES:
            pieces.append([])
            n_bytes = 0
        pieces[-1].append(text)
        n_bytes += len(text)
    return pieces


def _words(texts: list[bytes]) -> Grams:
    # A line feed before the first word and eight behind the last one: edges on both sides, and room to read ahead.
    buffer = (b"\n" + b"\n".join(texts) + b"\n" * _CHUNK_BYTES).lower()
    data, kind = np.frombuffer(buffer, np.uint8), np.frombuffer(bytearray(buffer.translate(_KIND)), np.uint8)
    marks = np.flatnonzero(data == _MARK)
    kind[marks[data[marks + 1] == _EQUALS]] = _ALONE  # != is not =
    standing_alone = _mark_wide(data, kind) if not buffer.isascii() else _Alone(_NO_PLACES, _NO_HASHES)
    before, behind = kind[:-1], kind[1:]
    is_edge = (behind != before) | (behind == _ALONE)
    # two searches: to take the beginnings and the ends out of all edges takes longer
    starts = np.flatnonzero(is_edge & (behind != _BETWEEN)) + 1
    ends = np.flatnonzero(is_edge & (before != _BETWEEN)) + 1
    hashes = _hash_words(buffer, starts, ends)
    # Shifted: the bytes of "on" are the code point of 湯, but those of no word begin with a zero.
    hashes[np.searchsorted(starts, standing_alone.starts)] = mixed(standing_alone.points << np.uint64(8))
    text_ends = np.cumsum([len(text) + 1 for text in texts]) + 1
    return Grams(hashes, np.concatenate(([0], np.searchsorted(starts, text_ends))))


class _Alone(NamedTuple):
    """Characters of several bytes that are words of their own."""

    starts: Indexes  # [n] ascending
    points: Hashes  # [n] code points


def _mark_wide(data: NDArray[np.uint8], kind: NDArray[np.uint8]) -> _Alone:
    """Corrects `kind` for characters of two and three bytes, which are between words or words of their own."""
    two, three = np.flatnonzero(data >> 5 == 0b110), np.flatnonzero(data >> 4 == 0b1110)
    points = _bits(data, two, 5) << 6 | _bits(data, two + 1, 6)
    between = two[_WIDE_KIND[points] == _BETWEEN]
    kind[between] = kind[between + 1] = _BETWEEN
    points = _bits(data, three, 4) << 12 | _bits(data, three + 1, 6) << 6 | _bits(data, three + 2, 6)
    wide = _WIDE_KIND[points]
    apart = three[wide != _IN_WORD]
    kind[apart] = wide[wide != _IN_WORD]
    kind[apart + 1] = kind[apart + 2] = _BETWEEN
    return _Alone(three[wide == _ALONE], points[wide == _ALONE])


def _bits(data: NDArray[np.uint8], places: Indexes, n_bits: int) -> Hashes:
    """The low bits of the bytes at these places."""
    return data[places].astype(np.uint64) & np.uint64(2**n_bits - 1)


def _hash_words(buffer: bytes, starts: Indexes, ends: Indexes) -> Hashes:
    """Each word's hash: eight bytes at a time, mixed with the hash of those before; a very long word's from BLAKE2."""
    # the eight bytes that begin at each place, in an order that is the same on every machine
    chunks = np.ndarray((len(buffer) - _CHUNK_BYTES + 1,), np.dtype("<u8"), buffer, strides=(1,))
    n_left = ends - starts
    hashes = mixed(chunks.take(starts) & _MASKS[np.minimum(n_left, _CHUNK_BYTES)])
    for place in range(_CHUNK_BYTES, _LONG_BYTES, _CHUNK_BYTES):
        longer = np.flatnonzero(n_left > place)
        if len(longer) == 0:
            return hashes
        chunk = chunks[starts[longer] + place] & _MASKS[np.minimum(n_left[longer] - place, _CHUNK_BYTES)]
        hashes[longer] = mixed(hashes[longer] ^ chunk)
    for word in np.flatnonzero(n_left > _LONG_BYTES):
        digest = hashlib.blake2b(buffer[starts[word] : ends[word]], digest_size=8).digest()
        hashes[word] = int.from_bytes(digest, "little")
    return hashes


def _of_all(hashes: Hashes) -> int:
    found = len(hashes)
    for value in hashes:
        found = _scrambled(found ^ int(value))
    return found


def _within(counts: Indexes) -> Indexes:
    """0, 1 ... count - 1 for each count, one behind the other."""
    offsets = offsets_of(counts)
    return np.arange(offsets[-1], dtype=np.int64) - np.repeat(offsets[:-1], counts)


def offsets_of(counts: Indexes) -> Indexes:
    """[n + 1] Where each of n parts begins, and where the last one ends, from their sizes."""
    offsets = np.zeros(len(counts) + 1, np.int64)
    np.cumsum(counts, out=offsets[1:])
    return offsets


def mixed(values: Hashes) -> Hashes:
    """Finaliser of SplitMix64 (Steele, Lea and Flood 2014): every bit of the input moves every bit of the output."""
    values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return values ^ (values >> np.uint64(31))


def _scrambled(value: int) -> int:
    """`mixed` of one Python integer, a step of the golden ratio further."""
    value = (value + 0x9E3779B97F4A7C15) & _MASK
    value = ((value ^ (value >> 30)) * 0xBF58476D1CE4E5B9) & _MASK
    value = ((value ^ (value >> 27)) * 0x94D049BB133111EB) & _MASK
    return value ^ (value >> 31)


def _odd(number: int) -> int:
    return _scrambled(number) | 1


def _kinds() -> bytes:
    kinds = [_IN_WORD if byte >= 0x80 or chr(byte).isalnum() or byte == ord("_") else _BETWEEN for byte in range(256)]
    for sign in "+-*/<>=%&|^~#$@\\()[]{}":
        kinds[ord(sign)] = _ALONE
    return bytes(kinds)


_KIND = _kinds()


def _wide_kinds() -> NDArray[np.uint8]:
    """[2**16] by code point"""
    kinds = np.full(2**16, _IN_WORD, np.uint8)
    for first, last in _CJK:
        kinds[first : last + 1] = _ALONE
    for first, last in _UNSEEN:
        kinds[first : last + 1] = _BETWEEN
    for sign in _PROSE_SIGNS:
        kinds[ord(sign)] = _BETWEEN
    return kinds


_WIDE_KIND = _wide_kinds()
