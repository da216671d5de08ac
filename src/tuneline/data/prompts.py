"""Which question a row answers: keys that equal prompts share."""

import re
import unicodedata
from collections.abc import Iterator, Sequence
from hashlib import blake2b

from tuneline.data.records import Example, Message

_WORD = re.compile(r"[^\W_]+")
_ASCII_WORDS = bytes(byte if byte < 0x80 and chr(byte).isalnum() else 0x20 for byte in range(256))
# Between the words of a prompt; every other sign makes another prompt: "Is 7 > 5?" is not "Is 7 < 5?".
_BETWEEN = re.compile(r"""(?:[\s.,;:?'"`´…·‘’‚“”„«»–—。，、；：？！「」『』（）]|!(?!=))+""")


def group_key(example: Example) -> str:
    """The prompt's words, case-folded and without any sign: rows that share them are on one side of a split.

    The prompt is everything before the last answer (in text-to-SQL: schema and question); of raw text, and of a row
    without anything before the answer, it is the whole.
    """
    if example.text is not None:
        return _loose(example.text)
    prompt = example.messages[:-1] if is_answered(example) else example.messages
    return _loose(_text(prompt)) or _loose(_text(example.messages))


def prompt_keys(example: Example) -> list[int]:
    """64 bits for what is before each assistant turn, as every such turn is learned; the last one is the row's own.

    Case, white space and the punctuation of prose make no difference, other signs do. Each message is folded once, so
    the time is linear in the row.
    """
    if example.text is not None:
        return [_digest([example.text])]
    pair = (example.messages + example.chosen, example.messages + example.rejected)
    dialogues = pair if example.chosen else (example.messages,)
    keys = [key for messages in dialogues for key in _keys_before_answers(messages)]
    return keys if keys and is_answered(example) else [*keys, _digest(_contents(example.messages))]


def is_answered(example: Example) -> bool:
    """Whether the messages hold the answer too, not only what is to be answered."""
    return bool(example.messages) and example.messages[-1].role == "assistant" and not example.chosen


def _keys_before_answers(messages: Sequence[Message]) -> Iterator[int]:
    running = blake2b(digest_size=8)
    is_empty = True
    for message in messages:
        if message.role == "assistant" and not is_empty:
            yield int.from_bytes(running.copy().digest(), "big")
        if message.role != "system":
            running.update(_strict(message.content))
            is_empty = False


def _digest(texts: Sequence[str]) -> int:
    running = blake2b(digest_size=8)
    for text in texts:
        running.update(_strict(text))
    return int.from_bytes(running.digest(), "big")


def _strict(text: str) -> bytes:
    folded = unicodedata.normalize("NFC", text).casefold()
    kept = _BETWEEN.sub(" ", folded).strip() or folded  # a prompt of nothing but signs is its own key
    return kept.encode("utf-8", "surrogatepass") + b"\n"


def _contents(messages: Sequence[Message]) -> list[str]:
    return [message.content for message in messages if message.role != "system"]


def _text(messages: Sequence[Message]) -> str:
    return "\n".join(_contents(messages))


def _loose(text: str) -> str:
    if text.isascii():
        found = b" ".join(text.lower().encode().translate(_ASCII_WORDS).split()).decode()
        return found or text.lower()
    folded = unicodedata.normalize("NFC", text).casefold()
    return " ".join(_WORD.findall(folded)) or folded  # a prompt without a word is its own key
