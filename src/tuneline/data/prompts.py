"""Which question a row answers: the words of its prompt, as a key that equal prompts share."""

import hashlib
import re
from collections.abc import Iterator, Sequence

from tuneline.data.records import Example, Message

_WORD = re.compile(r"[^\W_]+")
_ASCII_WORDS = bytes(byte if byte < 0x80 and chr(byte).isalnum() else 0x20 for byte in range(256))


def group_key(example: Example) -> str:
    """The prompt's words, case-folded: rows that share them are one question, on one side of a split.

    The prompt is everything before the last answer (in text-to-SQL: schema and question); of raw text, and of a row
    without anything before the answer, it is the whole.
    """
    return prompt_keys(example)[-1]


def prompt_keys(example: Example) -> list[str]:
    """The key of what is before each assistant turn, as every such turn is learned; the last one is `group_key`."""
    if example.text is not None:
        return [_key(example.text)]
    pair = [example.messages + example.chosen, example.messages + example.rejected] if example.chosen else []
    prompts = [prompt for messages in pair or [example.messages] for prompt in _answered(messages)]
    if not is_answered(example):
        prompts.append(example.messages)
    return list(filter(None, map(_prompt_key, prompts))) or [_prompt_key(example.messages)]


def is_answered(example: Example) -> bool:
    """Whether the messages hold the answer too, not only what is to be answered."""
    return bool(example.messages) and example.messages[-1].role == "assistant" and not example.chosen


def _answered(messages: Sequence[Message]) -> Iterator[Sequence[Message]]:
    """What is before each assistant turn."""
    return (messages[:number] for number, message in enumerate(messages) if message.role == "assistant")


def _prompt_key(messages: Sequence[Message]) -> str:
    return _key("\n".join(message.content for message in messages if message.role != "system"))


def _key(text: str) -> str:
    if text.isascii():
        found = b" ".join(text.lower().encode().translate(_ASCII_WORDS).split()).decode()
        return found or text.lower()
    folded = text.casefold()
    return " ".join(_WORD.findall(folded)) or folded  # a prompt without a word is its own key


def key_hash(key: str) -> int:
    """64 bits of the key's BLAKE2b."""
    return int.from_bytes(hashlib.blake2b(key.encode("utf-8", "surrogatepass"), digest_size=8).digest(), "big")
