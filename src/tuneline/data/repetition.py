"""Answers that repeat themselves: learned, they teach loops.

The measures of Rae et al. 2021, "Scaling Language Models: Methods, Analysis & Insights from Training Gopher", table A1,
in words instead of characters. A word is what `shingles.words` takes for one.
"""

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from tuneline.config.schema import RepetitionRuleConfig
from tuneline.data.arrays import Hashes, Indexes
from tuneline.data.finding import Finding, Rule
from tuneline.data.judging import learned, place
from tuneline.data.records import Example
from tuneline.data.shingles import Grams, offsets_of, remembered_words, words

_FENCED = re.compile(r"^ {0,3}(```|~~~).*?(?:^ {0,3}\1|\Z)", re.DOTALL | re.MULTILINE)
_TABLE_OR_RULE = re.compile(r"^(?:[ \t]*\|.*|[^\w\n]+)$", re.MULTILINE)
_SLOTS_PER_WORD = 16  # more gives fewer false suspects
_TEXTS_AT_A_TIME = 128
_FACTORS = (0x9E3779B97F4A7C15, 0xC2B2AE3D27D4EB4F, 0x165667B19E3779F9)  # odd: no bit is lost


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
    return _measure(text, words([text]).hashes)


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
            found = _measure(prose, of.hashes[of.offsets[number] : of.offsets[number + 1]])
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


def _reason(found: Repetition, settings: RepetitionRuleConfig) -> str | None:
    for name, share, limit in zip(Repetition._fields, found, _limits(settings), strict=True):
        if share > limit:
            return f"{name}_fraction is {share:.3f}; at most {limit:g} is allowed"
    return None


def _measure(text: str, hashes: Hashes) -> Repetition:
    keys: list[int] = hashes.tolist()
    return Repetition(
        _duplicate_lines(text),
        *(_top_share(keys, n) for n in (2, 3, 4)),
        *(_duplicate_share(keys, n) for n in (5, 10)),
    )


def _duplicate_lines(text: str) -> float:
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


def _suspects(of: Grams, settings: RepetitionRuleConfig) -> NDArray[np.bool_]:
    """[n_texts] False only for texts whose runs of words are within every limit, found without sorting.

    A run of 4 words occurs no more often than its first 3. Words in repeated runs of 5 begin a repeated run of 3 in 3
    of 5 places at least, words in repeated runs of 10 in 8 of 10.
    """
    limits = _limits(settings)
    n_words = np.diff(of.offsets)
    most_twos, _ = _occurrences(of, 2)
    most_threes, n_repeated = _occurrences(of, 3)
    found = n_repeated > min(0.6 * limits.duplicate_fivegram, 0.8 * limits.duplicate_tengram) * n_words
    for n, most, limit in (
        (2, most_twos, limits.top_bigram),
        (3, most_threes, limits.top_trigram),
        (4, most_threes, limits.top_fourgram),
    ):
        found |= (most > 1) & (n * most > limit * n_words)
    return found


def _occurrences(of: Grams, n: int) -> tuple[Indexes, Indexes]:
    """[n_texts] How often the most frequent run of `n` words occurs, and how many runs occur more than once.

    Both may be too high, never too low: two runs that fall in one slot of a text's table count as equal.
    """
    parts = [_occurrences_in(part, n) for part in _parts(of)]
    nothing = np.empty(0, np.int64)
    return np.concatenate([nothing, *(most for most, _ in parts)]), np.concatenate([nothing, *(n for _, n in parts)])


def _parts(of: Grams) -> Iterator[Grams]:
    """A few texts at a time, whose arrays stay in the processor's cache."""
    for first in range(0, len(of.offsets) - 1, _TEXTS_AT_A_TIME):
        offsets = of.offsets[first : first + _TEXTS_AT_A_TIME + 1]
        yield Grams(of.hashes[offsets[0] : offsets[-1]], offsets - offsets[0])


def _occurrences_in(of: Grams, n: int) -> tuple[Indexes, Indexes]:
    slots = _slots(of, n)
    counts = np.concatenate((np.bincount(slots)[slots], [0]))  # one more, where an empty text at the end begins
    repeated = offsets_of((counts > 1).astype(np.int64))
    return np.maximum.reduceat(counts, of.offsets[:-1]), repeated[of.offsets[1:]] - repeated[of.offsets[:-1]]


def _slots(of: Grams, n: int) -> Indexes:
    """[n_words] Where the run that begins at each word falls in a table with a region for each text."""
    hashes = np.concatenate((of.hashes, np.zeros(n - 1, np.uint64)))
    keys = hashes[: len(of.hashes)] * np.uint64(_FACTORS[0])
    for shift, factor in enumerate(_FACTORS[1:n], 1):
        keys += hashes[shift : shift + len(keys)] * np.uint64(factor)
    n_words = np.diff(of.offsets)
    bits = np.ceil(np.log2(np.maximum(n_words, 1) * _SLOTS_PER_WORD)).astype(np.uint64)
    regions = offsets_of(np.left_shift(np.uint64(1), bits).astype(np.int64))
    keys >>= np.repeat(np.uint64(64) - bits, n_words)
    return keys.view(np.int64) + np.repeat(regions[:-1], n_words)
