"""Training rows that the test already holds: a score on them would be memory, not skill."""

import re
from collections.abc import Iterable, Sequence

from tuneline.data.records import Example, Message

_WORD = re.compile(r"[^\W_]+")


def group_key(example: Example) -> str:
    """The prompt's words, case-folded: rows that share them are one question, on one side of a split.

    The prompt is everything before the last answer (in text-to-SQL: schema and question), or the raw text.
    System messages are left out: a question stays the same question under other instructions.
    """
    return _prompt_key(example.messages[:-1]) if example.text is None else _words(example.text)


def contaminated(learned: Sequence[Example], held_out: Iterable[Example]) -> dict[int, str]:
    """Index -> reason for every row one of whose prompts is held out; each assistant turn answers a prompt."""
    tests: dict[str, Example] = {}
    for example in held_out:
        tests.setdefault(group_key(example), example)
    found: dict[int, str] = {}
    for index, example in enumerate(learned):
        test = next((tests[key] for key in _prompt_keys(example) if key in tests), None)
        if test is not None:
            found[index] = f"it answers the prompt of {test.source}:{test.line}, a test row"
    return found


def _prompt_keys(example: Example) -> list[str]:
    """The key of what is before each assistant turn, as every such turn is learned; for raw text the text's own."""
    if example.text is not None:
        return [group_key(example)]
    turns = [number for number, message in enumerate(example.messages) if message.role == "assistant"]
    return [_prompt_key(example.messages[:number]) for number in turns]


def _prompt_key(messages: Sequence[Message]) -> str:
    return _words("\n".join(message.content for message in messages if message.role != "system"))


def _words(text: str) -> str:
    folded = text.casefold()
    return " ".join(_WORD.findall(folded)) or folded  # a prompt without a word is its own key
