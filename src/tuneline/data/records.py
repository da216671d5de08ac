"""The canonical record behind every format; its files are in `tuneline.data.record_files`."""

import hashlib
import json
import re
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

from msgspec import Struct
from msgspec.structs import replace

from tuneline.errors import DataError

if TYPE_CHECKING:
    Json: TypeAlias = "bool | int | float | str | list[Json] | dict[str, Json] | None"
else:
    Json = Any  # msgspec knows no type that refers to itself
Role = Literal["system", "user", "assistant", "tool"]
_ID = re.compile(r"[0-9a-f]{16}")
TEACHER_KEY = "teacher"  # in a row's meta: the teacher model that wrote it, and how
ROLES: dict[str, Role] = {"system": "system", "user": "user", "assistant": "assistant", "tool": "tool"}

sorted_json = json.JSONEncoder(ensure_ascii=False, sort_keys=True, allow_nan=False).encode  # one text for equal content


class ToolCall(Struct, frozen=True, forbid_unknown_fields=True):
    """One call of a function by the assistant."""

    name: str
    arguments: Mapping[str, Json]


class Message(Struct, frozen=True, forbid_unknown_fields=True):
    """One turn of a conversation."""

    role: Role
    content: str  # may be empty beside tool calls
    tool_calls: tuple[ToolCall, ...] = ()  # an assistant's only


ExampleKind = Literal["conversation", "text", "preference", "labelled", "prompt"]


class Example(Struct, frozen=True, forbid_unknown_fields=True):
    """One row of any kind, whatever format it came in; `kind` says which."""

    id: str  # see content_id
    source: str  # name of the source in data.sources
    line: int  # 1-based: line of a text file, row of a JSON array, Parquet file or hub dataset
    messages: tuple[Message, ...]  # the conversation; of a preference pair or a prompt, what is to be answered
    text: str | None  # raw text, without messages
    meta: Mapping[str, Json]  # the row's data.meta_fields, untouched
    file: str = ""  # path, where the source has several files
    tools: tuple[Json, ...] = ()  # JSON schemas of the functions that the conversation may call
    chosen: tuple[Message, ...] = ()  # preference pair: the better continuation of messages ...
    rejected: tuple[Message, ...] = ()  # ... and the worse one
    label: bool | None = None  # of the last answer: True desirable, False undesirable (KTO); None: not labelled

    @property
    def kind(self) -> ExampleKind:
        """What the row can teach; a training objective takes one kind."""
        if self.text is not None:
            return "text"
        if self.chosen:
            return "preference"
        if self.label is not None:
            return "labelled"
        return "conversation" if self.messages and self.messages[-1].role == "assistant" else "prompt"

    @property
    def turns(self) -> tuple[Message, ...]:
        """Every message, the better continuation of a preference pair before the worse one; none for a raw text."""
        return self.messages + self.chosen + self.rejected if self.chosen else self.messages

    @property
    def place(self) -> str:
        """source:line, or source/file:line, for reasons and messages."""
        return place_of(self.source, self.file, self.line)


def place_of(source: str, file: str, line: int) -> str:
    """Where a row comes from; `file` is empty for a source of one file."""
    return f"{source}/{file}:{line}" if file else f"{source}:{line}"


class Rejected(Struct, frozen=True, forbid_unknown_fields=True):
    """A row that a stage took out, with the reason; kept + rejected == read in every stage."""

    source: str
    line: int
    stage: str
    rule: str
    reason: str
    row: Json  # as read; the raw text where it is not acceptable JSON
    file: str = ""  # see Example.file

    @property
    def place(self) -> str:
        """As Example.place."""
        return place_of(self.source, self.file, self.line)


def with_id(example: Example) -> Example:
    """The example with the id of its content."""
    return replace(example, id=content_id(example))


def content_id(example: Example) -> str:
    """16 hex digits of the SHA-256 over all that a row teaches: equal content has an equal id anywhere."""
    content: list[Json] = [
        [[message.role, message.content] for message in example.messages],
        example.text,
        dict(example.meta),
    ]
    if more := _rare_fields(example):
        content.append(more)
    if any(message.tool_calls for message in example.messages):
        content.append([_calls_as_json(message) for message in example.messages])
    return hashlib.sha256(sorted_json(content).encode("utf-8", "surrogatepass")).hexdigest()[:16]


def make_example(
    source: str, line: int, messages: tuple[Message, ...], text: str | None, meta: Mapping[str, Json]
) -> Example:
    """A conversation or a raw text, whose id is computed from its content."""
    return with_id(Example("", source, line, messages, text, meta))


def contents(example: Example) -> list[str]:
    """Every text of the example in order: the raw text, or each message's content and its calls' arguments."""
    if example.text is not None:
        return [example.text]
    texts: list[str] = []
    for message in example.turns:
        if message.tool_calls:
            texts += message_texts(message)
        else:
            texts.append(message.content)  # most are such, and every rule comes here
    return texts


def with_contents(example: Example, texts: list[str]) -> Example:
    """The example with other texts, in the order of `contents`, and therefore another id."""
    if example.text is not None:
        (text,) = texts
        return with_id(replace(example, text=text))
    rest = iter(texts)
    parts = [
        tuple(_with_texts(message, rest) for message in part)
        for part in (example.messages, example.chosen, example.rejected)
    ]
    if next(rest, None) is not None:
        raise ValueError("more texts than the example has")
    return with_id(replace(example, messages=parts[0], chosen=parts[1], rejected=parts[2]))


def id_of(number: int) -> str:
    """The id that `id_number` read."""
    return f"{number:016x}"


def id_number(id_: str) -> int:
    """The id as a number of 64 bits. Raises `DataError` for one that no stage wrote."""
    if _ID.fullmatch(id_) is None:
        raise DataError(f"id {id_!r} is not 16 hex digits; run the stage that writes the row again")
    return int(id_, 16)


def as_json(example: Example) -> dict[str, Json]:
    """The example as it stands in a file; keys that few rows have are left out where they are empty."""
    row: dict[str, Json] = {
        "id": example.id,
        "source": example.source,
        "line": example.line,
        "messages": [_message_as_json(message) for message in example.messages],
        "text": example.text,
        "meta": dict(example.meta),
    }
    if example.file:
        row["file"] = example.file
    return row | _rare_fields(example)


def rejection(example: Example, stage: str, rule: str, reason: str) -> Rejected:
    """The example as a row that a stage took out."""
    return Rejected(example.source, example.line, stage, rule, reason, as_json(example), example.file)


def message_texts(message: Message) -> Iterator[str]:
    """Its content, and the texts inside its calls' arguments."""
    yield message.content
    for call in message.tool_calls:
        yield from _leaves(dict(call.arguments))


def _with_texts(message: Message, texts: Iterator[str]) -> Message:
    content = next(texts)
    calls = tuple(ToolCall(call.name, _with_leaves(call.arguments, texts)) for call in message.tool_calls)
    return Message(message.role, content, calls)


def _leaves(value: Json) -> Iterator[str]:
    """The texts inside a JSON value, in the order of `_replaced`."""
    match value:
        case str():
            yield value
        case list():
            for item in value:
                yield from _leaves(item)
        case dict():
            for item in value.values():
                yield from _leaves(item)


def _with_leaves(values: Mapping[str, Json], texts: Iterator[str]) -> dict[str, Json]:
    return {key: _replaced(item, texts) for key, item in values.items()}


def _replaced(value: Json, texts: Iterator[str]) -> Json:
    match value:
        case str():
            return next(texts)
        case list():
            return [_replaced(item, texts) for item in value]
        case dict():
            return _with_leaves(value, texts)
    return value


def _rare_fields(example: Example) -> dict[str, Json]:
    row: dict[str, Json] = {}
    if example.tools:
        row["tools"] = list(example.tools)
    if example.chosen:
        row["chosen"] = [_message_as_json(message) for message in example.chosen]
        row["rejected"] = [_message_as_json(message) for message in example.rejected]
    if example.label is not None:
        row["label"] = example.label
    return row


def _message_as_json(message: Message) -> dict[str, Json]:
    row: dict[str, Json] = {"role": message.role, "content": message.content}
    if message.tool_calls:
        row["tool_calls"] = _calls_as_json(message)
    return row


def _calls_as_json(message: Message) -> list[Json]:
    return [{"name": call.name, "arguments": dict(call.arguments)} for call in message.tool_calls]
