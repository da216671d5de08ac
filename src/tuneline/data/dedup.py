"""Copies of a row: the same content, or the same up to case, punctuation and white space."""

import re
import unicodedata
from collections.abc import Callable, Hashable, Sequence

from tuneline.data.records import Example

# Punctuation of prose. Signs that carry meaning in code, SQL and mathematics stay
# (+ - * / < > = % & | ^ ~ # $ @ \ _ and brackets), so that "x > 5" and "x < 5" are no copies of each other.
_PROSE_SIGNS = ".,;:!?'\"`´…·•¡¿‘’‚‛“”„‟«»‹›–—―。，、；：！？「」『』《》〈〉（）·"
_SPACES = re.compile(r"\s+")
_FOLDED_SIGNS = str.maketrans(dict.fromkeys(_PROSE_SIGNS, " "))


def exact_duplicates(examples: Sequence[Example]) -> dict[int, str]:
    """Index -> reason for every example whose messages, text and meta an earlier one has."""
    return _repeated(examples, lambda example: example.id)


def near_duplicates(examples: Sequence[Example]) -> dict[int, str]:
    """Index -> reason for every example that an earlier one equals after `fold`."""
    return _repeated(examples, folded_key)


def folded_key(example: Example) -> tuple[str, ...]:
    """The example's roles and texts, folded: equal keys, near-identical examples."""
    if example.text is not None:
        return ("text", fold(example.text))
    return tuple(part for message in example.messages for part in (message.role, fold(message.content)))


def fold(text: str) -> str:
    """Case-folded, with prose punctuation and white space as one space: 'Who, me?' and 'who me' are equal."""
    if not text.isascii():
        text = unicodedata.normalize("NFC", text)
    folded = _SPACES.sub(" ", text.casefold().translate(_FOLDED_SIGNS)).strip()
    return folded or text  # nothing but punctuation: as it is, or "?" would equal "!"


def _repeated(examples: Sequence[Example], key: Callable[[Example], Hashable]) -> dict[int, str]:
    first: dict[Hashable, Example] = {}
    repeated: dict[int, str] = {}
    for index, example in enumerate(examples):
        earlier = first.setdefault(key(example), example)
        if earlier is not example:
            repeated[index] = f"a copy of {earlier.source}:{earlier.line}"
    return repeated
