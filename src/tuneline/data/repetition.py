"""Answers that repeat themselves: learned, they teach loops.

The measures of Rae et al. 2021, "Scaling Language Models: Methods, Analysis & Insights from Training Gopher", table A1,
in words instead of characters. A word is what `shingles.words` takes for one.
"""

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np

from tuneline.config.schema import RepetitionRuleConfig
from tuneline.data.arrays import Flags, Hashes, Indexes
from tuneline.data.finding import Finding, Rule
from tuneline.data.judging import learned, place
from tuneline.data.records import Example
from tuneline.data.shingles import Grams, offsets_of, remembered_words, words

_FENCED = re.compile(r"^ {0,3}(```|~~~).*?(?:^ {0,3}\1|\Z)", re.DOTALL | re.MULTILINE)
_TABLE_OR_RULE = re.compile(r"^(?:[ \t]*\|.*|[^\w\n]+)$", re.MULTILINE)
_TEXT_BITS = 7
_TEXTS_AT_A_TIME = 2**_TEXT_BITS
_FACTORS = np.array([0x9E3779B97F4A7C15, 0xC2B2AE3D27D4EB4F], np.uint64)  # odd: no bit is lost
_ROUNDING = 1e-6  # of a share times a number of words: a count just over its limit is not missed


class Repetition(NamedTuple):
    """How much of a text is repeated, 0 to 1 each."""

    duplicate_line: float  # of the lines with a letter or digit, those seen before; blanks around a line do not count
    # n x occurrences / words of the most frequent run of n words, at most 1; 0 where no run occurs twice
    top_bigram: float
    top_trigram: float
    top_fourgram: float
    # of the words, those inside a run of n words that occurs more than once, the first occurrence included
    duplicate_fivegram: float
    duplicate_tengram: float


class _Text(NamedTuple):
    row: int
    turn: int
    prose: str


def repetition_rule(settings: RepetitionRuleConfig) -> Rule:
    """Rows with an answer or raw text that repeats itself more than the settings allow go.

    Each assistant message is judged for itself, without fenced code, rows of tables and ruled lines, which repeat
    themselves by nature. Prompts are not judged.
    """
    return lambda examples: _judge(examples, settings)


def measure(text: str) -> Repetition:
    """All measures of one text."""
    return Repetition(*_measures(text, words([text]).hashes))


def _judge(examples: Sequence[Example], settings: RepetitionRuleConfig) -> list[Finding]:
    findings: list[Finding] = [None] * len(examples)
    # A word is a character at least: shorter texts have too few words.
    texts = [text for text in _texts(examples) if len(text.prose) >= settings.min_words]
    of = remembered_words([text.prose for text in texts])
    enough = (np.diff(of.offsets) >= settings.min_words).tolist()
    suspects = _suspects(of, settings).tolist()
    most_lines = settings.max_duplicate_line_fraction
    for number, (row, turn, prose) in enumerate(texts):
        if enough[number] and (suspects[number] or _duplicate_lines(prose) > most_lines) and findings[row] is None:
            found = _measures(prose, of.hashes[of.offsets[number] : of.offsets[number + 1]])
            if reason := _reason(found, settings):
                findings[row] = f"{place(examples[row], turn)} repeats itself: {reason}"
    return findings


def _texts(examples: Sequence[Example]) -> Iterator[_Text]:
    for row, example in enumerate(examples):
        if example.text is not None:
            yield _Text(row, 0, _prose(example.text))
        for turn, message in enumerate(learned(example)):
            if message.role == "assistant":
                yield _Text(row, turn, _prose(message.content))


def _prose(text: str) -> str:
    # One sign is found faster than three.
    if "`" in text or "~" in text:
        text = _FENCED.sub("", text)
    if "|" in text or ("-" in text and "---" in text):
        text = _TABLE_OR_RULE.sub("", text)
    return text


def _limits(settings: RepetitionRuleConfig) -> Repetition:
    return Repetition(
        settings.max_duplicate_line_fraction,
        settings.max_top_bigram_fraction,
        settings.max_top_trigram_fraction,
        settings.max_top_fourgram_fraction,
        settings.max_duplicate_fivegram_fraction,
        settings.max_duplicate_tengram_fraction,
    )


def _reason(found: Iterator[float], settings: RepetitionRuleConfig) -> str | None:
    """Of the first measure over its limit; those behind it are not taken."""
    for name, share, limit in zip(Repetition._fields, found, _limits(settings), strict=True):
        if share > limit:
            return f"{name}_fraction is {share:.3f}; at most {limit:g} is allowed"
    return None


def _measures(text: str, hashes: Hashes) -> Iterator[float]:
    """The fields of `Repetition` in their order."""
    keys: list[int] = hashes.tolist()
    yield _duplicate_lines(text)
    for n in (2, 3, 4):
        yield _top_share(keys, n)
    for n in (5, 10):
        yield _duplicate_share(keys, n)


def _duplicate_lines(text: str) -> float:
    if "\n" not in text:
        return 0.0
    lines = [stripped for line in text.split("\n") if (stripped := line.strip())]
    if len(set(lines)) == len(lines):
        return 0.0
    told = [line for line in lines if any(map(str.isalnum, line))]  # rules such as --- may come often
    return 1 - len(set(told)) / len(told) if told else 0.0


def _top_share(keys: list[int], n: int) -> float:
    most = max(_counts(keys, n), default=0)
    return min(n * most / len(keys), 1.0) if most > 1 else 0.0


def _duplicate_share(keys: list[int], n: int) -> float:
    n_inside, end = 0, 0  # words inside a repeated run, up to `end`
    for begin, count in enumerate(_counts(keys, n)):
        if count > 1:
            n_inside += begin + n - max(begin, end)
            end = begin + n
    return n_inside / len(keys) if keys else 0.0


def _counts(keys: list[int], n: int) -> list[int]:
    """[words - n + 1] How often the run that begins at each word occurs in the text."""
    found = list(zip(*(keys[shift:] for shift in range(n)), strict=False))
    counts = Counter(found)
    return [counts[run] for run in found]


def _suspects(of: Grams, settings: RepetitionRuleConfig) -> Flags:
    """[n_texts] False only for texts whose runs of words are within every limit; most are known by their pairs alone.

    A run of 3 or 4 words occurs no more often than its first 2 or 3. Words in repeated runs of 5 begin a repeated pair
    in 4 of 5 places at least and a repeated run of 3 in 3 of 5, words in repeated runs of 10 in 9 and in 8 of 10.
    """
    limits = _limits(settings)
    bigram, trigram = limits.top_bigram / 2, min(limits.top_trigram / 3, limits.top_fourgram / 4)
    fivegram, tengram = limits.duplicate_fivegram, limits.duplicate_tengram
    found = _over(of, 2, min(bigram, trigram), min(0.8 * fivegram, 0.9 * tengram))
    rest = _chosen(of, found)  # of which the top pair is looked at by itself; no text has a larger share than 1.0
    found[found] = _over(rest, 2, bigram, 1.0) | _over(rest, 3, trigram, min(0.6 * fivegram, 0.8 * tengram))
    return found


def _chosen(of: Grams, flags: Flags) -> Grams:
    n_words = np.diff(of.offsets)
    return Grams(of.hashes[np.repeat(flags, n_words)], offsets_of(n_words[flags]))


def _over(of: Grams, n: int, top_share: float, inside_share: float) -> Flags:
    """[n_texts] Whether a run of `n` words occurs more often, or more places begin a repeated one, than these shares.

    Of the words, 0 to 1. Runs that end in the next text count too: the answer may be a wrong yes, never a wrong no.
    """
    n_words = np.diff(of.offsets)
    n_over, n_repeated = _least_over(top_share, n_words), _least_over(inside_share, n_words)
    found = np.empty(len(n_words), np.bool_)
    for first in range(0, len(n_words), _TEXTS_AT_A_TIME):
        part = slice(first, first + _TEXTS_AT_A_TIME)
        edges = of.offsets[first : first + _TEXTS_AT_A_TIME + 1]
        seen = _occurrences(_keys(of.hashes[edges[0] : edges[-1]], n), n_words[part], n_over[part])
        found[part] = seen.is_over | (seen.n_repeated >= n_repeated[part])
    return found


def _least_over(share: float, n_words: Indexes) -> Indexes:
    """[n_texts] The least count that is over this share of the words; 2 at least, as what is repeated comes twice."""
    least: Indexes = np.maximum(np.floor(share * n_words - _ROUNDING).astype(np.int64) + 1, 2)
    return least


def _keys(hashes: Hashes, n: int) -> Hashes:
    """[n_words] A number for the run that begins at each word."""
    keys = hashes.copy()
    for shift, factor in enumerate(_FACTORS[: n - 1], 1):
        keys[: len(keys) - shift] += hashes[shift:] * factor
    return keys


class _Occurrences(NamedTuple):
    """Of runs of words in some texts."""

    is_over: Flags  # [n_texts] whether a run occurs as often as asked
    n_repeated: Indexes  # [n_texts] places that begin a run which occurs more than once


def _occurrences(keys: Hashes, n_words: Indexes, n_over: Indexes) -> _Occurrences:
    # The text's number in front of each key: all are sorted at once, and stay in their texts.
    numbers = np.arange(len(n_words), dtype=np.uint64) << np.uint64(64 - _TEXT_BITS)
    keys = np.sort((keys >> np.uint64(_TEXT_BITS)) | np.repeat(numbers, n_words))
    is_repeated = np.zeros(len(keys) + 1, np.bool_)
    is_repeated[1:-1] = keys[1:] == keys[:-1]
    is_repeated = is_repeated[1:] | is_repeated[:-1]
    behind = np.concatenate((keys, np.zeros(n_over.max(), np.uint64)))
    is_over = keys == behind[np.arange(len(keys)) + np.repeat(n_over - 1, n_words)]
    offsets = offsets_of(n_words)
    return _Occurrences(_counted(is_over, offsets) > 0, _counted(is_repeated, offsets))


def _counted(flags: Flags, offsets: Indexes) -> Indexes:
    """[n_texts] How many flags are set in each text."""
    running = offsets_of(flags.astype(np.int64))
    counts: Indexes = running[offsets[1:]] - running[offsets[:-1]]
    return counts
