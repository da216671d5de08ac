"""Training rows that the test already holds: a score on them would be memory, not skill."""

import re
from collections.abc import Iterable, Sequence

from tuneline.data.records import Example

_WORD = re.compile(r"[^\W_]+")


def group_key(example: Example) -> str:
    """The prompt's words, case-folded: rows that share them are one question, on one side of a split.

    The prompt is everything before the last answer (in text-to-SQL: schema and question), or the raw text.
    """
    texts = [message.content for message in example.messages[:-1]] if example.text is None else [example.text]
    prompt = "\n".join(texts).casefold()
    return " ".join(_WORD.findall(prompt)) or prompt  # a prompt without a word is its own key


def contaminated(pool: Sequence[Example], held_out: Iterable[Example]) -> dict[int, str]:
    """Index -> reason for every pool row whose group is held out."""
    tests: dict[str, Example] = {}
    for example in held_out:
        tests.setdefault(group_key(example), example)
    found: dict[int, str] = {}
    for index, example in enumerate(pool):
        if (test := tests.get(group_key(example))) is not None:
            found[index] = f"its prompt is that of {test.source}:{test.line}, a test row"
    return found
