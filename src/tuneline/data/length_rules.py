"""Rows that say nothing, or too much."""

import re
from collections.abc import Iterable
from pathlib import Path

from tuneline.config.schema import LengthRuleConfig
from tuneline.data.finding import Finding, Rule, each
from tuneline.data.judging import place
from tuneline.data.records import Example, Message, contents, message_texts
from tuneline.data.token_counts import CountTokens, token_counter

_VISIBLE = re.compile(r"[^\s\u00ad\u200b-\u200f\u2028-\u202f\u2060-\u2064\ufeff]")
# NFKC makes 33 bytes of the 3 bytes of U+FDFA; no normalisation that tokenizers use makes more of a character.
_MOST_BYTES_OF_ONE = 11


def empties_rule() -> Rule:
    """Rows with a message or text without a visible character go; zero-width characters are not visible.

    An assistant message that calls tools says something without a word.
    """
    return each(_empty)


def length_rule(settings: LengthRuleConfig) -> Rule:
    """Rows with a message or text of fewer or more characters than allowed go, and rows of too many tokens.

    A message's tool calls count with it; a message that calls tools is never too short. Raises `DataError` when
    max_tokens is set and the tokenizer cannot be read.
    """
    limit = settings.max_tokens
    if limit is None:
        return each(lambda example: _out_of_bounds(example, settings))
    count = token_counter(Path(settings.tokenizer))
    return each(lambda example: _out_of_bounds(example, settings) or _too_many_tokens(example, limit, count))


def _empty(example: Example) -> Finding:
    if example.text is not None:
        return None if _VISIBLE.search(example.text) else "the text is empty"
    for index, message in enumerate(example.turns):
        if not _VISIBLE.search(message.content) and not message.tool_calls:
            return f"{place(example, index)} is empty"
    return None


def _out_of_bounds(example: Example, settings: LengthRuleConfig) -> Finding:
    if example.text is not None:
        sizes: Iterable[int] = (len(example.text),)
    else:
        sizes = (_n_chars(message, settings.min_chars) for message in example.turns)
    for index, size in enumerate(sizes):
        if not settings.min_chars <= size <= settings.max_chars:
            allowed = f"allowed are {settings.min_chars} to {settings.max_chars}"
            return f"{place(example, index)} has {size} characters; {allowed}"
    return None


def _n_chars(message: Message, at_least: int) -> int:
    if not message.tool_calls:
        return len(message.content)
    return max(sum(len(text) for text in message_texts(message)), at_least)


def _too_many_tokens(example: Example, limit: int, count: CountTokens) -> Finding:
    texts = contents(example)
    if sum(_most_tokens(text) for text in texts) <= limit:
        return None
    n_tokens = sum(count(texts))
    return f"{n_tokens} tokens; allowed are {limit}" if n_tokens > limit else None


def _most_tokens(text: str) -> int:
    """No fewer than the text's tokens: a token stands for a byte at least, or for the blank put before a text."""
    if text.isascii():
        return len(text) + 1
    return len(text.encode("utf-8", "surrogatepass")) * _MOST_BYTES_OF_ONE + 1
