"""Hashed words and runs of words against the plainest implementation on strings."""

import hashlib
import time
import unicodedata
from collections.abc import Hashable, Sequence
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from tuneline.config.schema import NearDuplicatesRuleConfig
from tuneline.data.near_copies import Candidate, near_copies, run_sets
from tuneline.data.shingles import Grams, runs, sequence_keys, words

SIGNS = "+-*/<>=%&|^~#$@\\()[]{}"  # a word each: code and mathematics
CJK = ((0x3040, 0x30FF), (0x3400, 0x4DBF), (0x4E00, 0x9FFF), (0xF900, 0xFAFF))  # a word each
PROSE = ".,;:!?'\"`´…·•¡¿‘’‚‛“”„‟«»‹›–—―。，、；：！？「」『』《》〈〉（）"  # no word
BLANK = "\u00a0\u00ad\u1680\u2000\u200b\u200f\u2028\u202f\u205f\u2064\u3000\ufeff"  # no word

# Few characters of every class, so that words meet again in other cases, compositions and neighbourhoods.
PIECES = [
    *"abABéÉßſ_09 \n\t",
    *SIGNS,
    *PROSE,
    *BLANK,
    *"中文あア豈",
    "ss",
    "e\u0301",
    "İ",
    "😀",
    "\x00",
    "\x85",
    "\ud800",
]
near = st.lists(st.sampled_from(PIECES), max_size=12).map("".join)
anything = st.text(st.characters(codec=None), max_size=12)
texts_ = st.lists(near | anything, max_size=8)
sizes = st.integers(1, 6)


def naive_words(text: str) -> list[str]:
    """The words of a text, character by character."""
    found: list[str] = []
    is_open = False
    folded = unicodedata.normalize("NFC", text).casefold()
    for place, char in enumerate(folded):
        is_alone = _is_alone(char) or folded[place : place + 2] == "!="  # != is not =
        if is_alone:
            found.append(char)
        elif not _is_between(char):
            found[-1:] = [found[-1] + char] if is_open else [*found[-1:], char]
        is_open = not is_alone and not _is_between(char)
    return found


def _is_alone(char: str) -> bool:
    return char in SIGNS or any(first <= ord(char) <= last for first, last in CJK)


def _is_between(char: str) -> bool:
    if ord(char) < 0x80:
        return not (char.isalnum() or char == "_")
    code = ord(char)
    return (
        char in PROSE
        or char in BLANK
        or 0x2000 <= code <= 0x200F
        or 0x2028 <= code <= 0x202F
        or (0x205F <= code <= 0x2064)
    )


def naive_runs(text: str, n: int) -> list[tuple[str, ...]]:
    found = naive_words(text)
    return [tuple(found[i : i + n]) for i in range(len(found) - n + 1)] or [tuple(found)]


def per_text(grams: Grams) -> list[list[int]]:
    return [grams.hashes[begin:end].tolist() for begin, end in pairwise(grams.offsets.tolist())]


def same_where_same(hashes: Sequence[Sequence[int]], expected: Sequence[Sequence[Hashable]]) -> bool:
    """As many in each text, and equal hashes exactly for equal things, over all texts."""
    if [len(row) for row in hashes] != [len(row) for row in expected]:
        return False
    pairs = {(h, e) for row in zip(hashes, expected, strict=True) for h, e in zip(*row, strict=True)}
    return len(pairs) == len({h for h, _ in pairs}) == len({e for _, e in pairs})


@given(texts_)
@example(["Straße", "STRASSE", "strasse", "\u00e9", "e\u0301", "É"])
@example(["x > 5", "x < 5", "x>5", "don't", "don’t", "dont"])
@example(["a != b", "a = b", "a! = b", "!="])
@example(["中文abc中", "中 文", "abc", "\ud800", "😀a", "a😀"])
@example(["on", "湯", "is", "獩"])  # the bytes of the one are the code point of the other
def test_hashes_are_equal_exactly_for_equal_folded_words(texts: list[str]) -> None:
    assert same_where_same(per_text(words(texts)), [naive_words(text) for text in texts])


@given(texts_, sizes)
def test_hashes_of_runs_are_equal_exactly_for_equal_runs(texts: list[str], n: int) -> None:
    assert same_where_same(per_text(runs(words(texts), n)), [naive_runs(text, n) for text in texts])


def similarity(one: str, other: str, n: int) -> float:
    """Of two rows that share a band."""
    settings = NearDuplicatesRuleConfig.model_construct(ngram=n, min_jaccard=0.0, min_answer_jaccard=0.0)
    rows = [Candidate(row, [(0, 1)], [], found, found) for row, found in enumerate(run_sets([one, other], n))]
    ((_, _, jaccard),) = near_copies(rows, settings)
    return jaccard


@given(near, near, sizes)
def test_similarity_is_the_jaccard_similarity_of_the_sets_of_runs(one: str, other: str, n: int) -> None:
    a, b = set(naive_runs(one, n)), set(naive_runs(other, n))
    assert similarity(one, other, n) == len(a & b) / len(a | b)


def test_similarity_by_hand() -> None:
    # runs of 2: {a b, b c, c d} and {b c, c d, d e}, of which two are shared and four are there
    assert similarity("a b c d", "b c d e", 2) == 0.5
    assert similarity("a a a a b", "a a b", 2) == 1.0  # repeats count once
    assert (similarity("", ".", 2), similarity("a b c d", "", 2)) == (1.0, 0.0)


@given(texts_)
def test_sequence_keys_are_equal_exactly_for_texts_of_the_same_words_in_order(texts: list[str]) -> None:
    keys = sequence_keys(words(texts)).tolist()
    assert same_where_same([keys], [[tuple(naive_words(text)) for text in texts]])


@given(texts_, sizes)
def test_a_texts_hashes_do_not_depend_on_its_neighbours(texts: list[str], n: int) -> None:
    assert per_text(words(texts)) == [per_text(words([text]))[0] for text in texts]
    assert per_text(runs(words(texts), n)) == [per_text(runs(words([text]), n))[0] for text in texts]
    assert sequence_keys(words(texts)).tolist() == [int(sequence_keys(words([text]))[0]) for text in texts]


@pytest.mark.parametrize("n_bytes", [1, 2**16, 2**17 - 1, 2**17, 2**17 + 1, 2**18])
def test_texts_around_the_size_of_a_piece_are_hashed_as_alone(n_bytes: int) -> None:
    texts = ["head", "x " * (n_bytes // 2) + "y" * (n_bytes % 2), "", "tail"]
    found = per_text(words(texts))
    assert found == [per_text(words([text]))[0] for text in texts]
    assert len(found[1]) == n_bytes // 2 + n_bytes % 2


@pytest.mark.parametrize("texts", [[], [""], ["", " \n", "...", "…"]])
def test_texts_without_words_have_one_run_that_is_the_same_for_all(texts: list[str]) -> None:
    of = words(texts)
    assert of.offsets.tolist() == [0] * (len(texts) + 1)
    found = runs(of, 5)
    assert found.offsets.tolist() == list(range(len(texts) + 1))
    assert len(set(found.hashes.tolist())) <= 1
    assert len(sequence_keys(of)) == len(texts)


def test_hashes_are_the_same_on_every_machine_and_in_every_run() -> None:
    """Computed here with Python's integers alone: eight bytes at a time, each mixed with those before; or BLAKE2.

    Of a Chinese character, its code point.
    """
    mask = 2**64 - 1

    def mixed(x: int) -> int:
        x = ((x ^ (x >> 30)) * 0xBF58476D1CE4E5B9) & mask
        x = ((x ^ (x >> 27)) * 0x94D049BB133111EB) & mask
        return x ^ (x >> 31)

    def hashed(word: bytes) -> int:
        found = 0
        for place in range(0, len(word), 8):
            found = mixed(found ^ int.from_bytes(word[place : place + 8], "little"))
        return found

    short = ("select", "x_1", "grösse", "internationalization", "12345678", "a" * 64)
    long = "b" * 65
    expected = [hashed(word.encode()) for word in short]
    expected.append(int.from_bytes(hashlib.blake2b(long.encode(), digest_size=8).digest(), "little"))
    expected.append(mixed(ord("中") << 8))
    assert words([" ".join(short).upper() + f", {long}中"]).hashes.tolist() == expected


def test_a_long_word_is_another_one_when_any_byte_of_it_is_another() -> None:
    word = "abcdefghijklmnopqrstuvwxyz" * 3
    texts = [word[:n] for n in range(1, len(word))] + [
        f"{word[:n]}!{word[n + 1 :]}".replace("!", "_") for n in range(78)
    ]
    hashes = [words([text]).hashes.tolist() for text in texts]
    assert [len(of) for of in hashes] == [1] * len(texts)
    assert len({of[0] for of in hashes}) == len(texts)
    assert words([" ".join(texts)]).hashes.tolist() == [of[0] for of in hashes]


@pytest.mark.slow
@pytest.mark.parametrize("text", ["word " * 2_000_000, "w" * 10_000_000, "é" * 5_000_000, "中" * 3_333_333])
def test_ten_megabytes_take_linear_time(text: str) -> None:
    """A quadratic pass would take hours; the bound leaves room for a busy machine."""
    started = time.perf_counter()
    found = runs(words([text]), 5)
    assert time.perf_counter() - started < 20
    n_words = {"w": 2_000_000, "中": 3_333_333}.get(text[0], 1) if text[:2] != "ww" else 1
    assert len(found.hashes) == max(1, n_words - 4)


@pytest.mark.slow
def test_a_million_words_have_a_million_hashes() -> None:
    text = " ".join(f"{number:x}" for number in range(1_000_000))
    hashes = words([text]).hashes
    assert len(hashes) == len(np.unique(hashes)) == 1_000_000


@pytest.mark.slow
def test_a_million_runs_have_a_million_hashes() -> None:
    """Runs over ten words only, so that they differ in places and not in words: 10^6 runs of 6 digits."""
    digits = " ".join(" ".join(f"{number:06}") for number in range(1_000_000))
    found = runs(words([digits]), 6).hashes[::6]
    assert len(found) == len(np.unique(found)) == 1_000_000
