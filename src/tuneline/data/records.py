"""The canonical record behind every format, and its JSONL files: one object a line, UTF-8."""

import hashlib
import json
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal, TypeAlias

import orjson

from tuneline.errors import DataError
from tuneline.output import atomic_writer

Json: TypeAlias = "bool | int | float | str | list[Json] | dict[str, Json] | None"
Role = Literal["system", "user", "assistant", "tool"]
TEACHER_KEY = "teacher"  # in a row's meta: the teacher model that wrote it, and how
ROLES: dict[str, Role] = {"system": "system", "user": "user", "assistant": "assistant", "tool": "tool"}

_encode = json.JSONEncoder(ensure_ascii=False, sort_keys=True, allow_nan=False).encode


@dataclass(frozen=True, slots=True)
class ToolCall:
    """One call of a function by the assistant."""

    name: str
    arguments: Mapping[str, Json]


@dataclass(frozen=True, slots=True)
class Message:
    """One turn of a conversation."""

    role: Role
    content: str  # may be empty beside tool calls
    tool_calls: tuple[ToolCall, ...] = ()  # an assistant's only


Kind = Literal["conversation", "text", "preference", "labelled", "prompt"]


@dataclass(frozen=True, slots=True)
class Example:
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
    def kind(self) -> Kind:
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


@dataclass(frozen=True, slots=True)
class Rejected:
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
    return hashlib.sha256(_encode(content).encode("utf-8", "surrogatepass")).hexdigest()[:16]


def make_example(
    source: str, line: int, messages: tuple[Message, ...], text: str | None, meta: Mapping[str, Json]
) -> Example:
    """A conversation or a raw text, whose id is computed from its content."""
    return with_id(Example("", source, line, messages, text, meta))


def contents(example: Example) -> list[str]:
    """Every text of the example in order: the raw text, or each message's content and its calls' arguments."""
    if example.text is not None:
        return [example.text]
    turns = example.turns
    if any([message.tool_calls for message in turns]):  # noqa: C419  (for a handful a list is faster)
        return [text for message in turns for text in message_texts(message)]
    return [message.content for message in turns]  # twice as fast, and every rule comes here


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
    if re.fullmatch(r"[0-9a-f]{16}", id_) is None:
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


def as_line(row: Mapping[str, Json]) -> bytes:
    """One JSON object as a line of a file: sorted keys, UTF-8."""
    # backslashreplace: a lone surrogate is not UTF-8, but must not stop a rejected row from being kept.
    return _encode(row).encode("utf-8", "backslashreplace") + b"\n"


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


def write_examples(path: Path, examples: Iterable[Example]) -> None:
    """Write one example a line, whole file or nothing."""
    _write_lines(path, (as_json(example) for example in examples))


def write_rejected(path: Path, rejected: Iterable[Rejected]) -> None:
    """Write one rejected row a line, whole file or nothing."""
    _write_lines(path, (rejected_as_json(row) for row in rejected))


def iterate_examples(path: Path) -> Iterator[Example]:
    """Read what `write_examples` wrote, one at a time. Raises `DataError` with file:line for a line that is none."""
    for row, place in read_objects(path):
        yield example_from(row, place)


def read_examples(path: Path) -> list[Example]:
    """All of `iterate_examples`."""
    return list(iterate_examples(path))


def iterate_rejected(path: Path) -> Iterator[Rejected]:
    """Read what `write_rejected` wrote, one at a time. Raises `DataError` with file:line for a line that is none."""
    for row, place in read_objects(path):
        yield _rejected(row, place)


def read_rejected(path: Path) -> list[Rejected]:
    """All of `iterate_rejected`."""
    return list(iterate_rejected(path))


def rejected_as_json(row: Rejected) -> dict[str, Json]:
    """The rejected row as it stands in a file."""
    written: dict[str, Json] = {
        "source": row.source,
        "line": row.line,
        "stage": row.stage,
        "rule": row.rule,
        "reason": row.reason,
        "row": row.row,
    }
    if row.file:
        written["file"] = row.file
    return written


def _write_lines(path: Path, rows: Iterable[dict[str, Json]]) -> None:
    with atomic_writer(path) as file:
        file.writelines(as_line(row) for row in rows)


def read_objects(path: Path) -> Iterator[tuple[dict[str, Json], str]]:
    """(object, file:line) of every line. Raises `DataError` with file:line for a line that is no object."""
    try:
        file = path.open("rb")
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror}); run the stage that writes it") from None
    with file:
        for number, line in enumerate(file, 1):
            if not line.isspace():
                yield parse_object(line, f"{path}:{number}"), f"{path}:{number}"


def parse_object(line: bytes, place: str) -> dict[str, Json]:
    """The JSON object of one line of a file that a stage wrote."""
    try:
        row: Json = _parsed(line)
    except ValueError as error:
        raise DataError(f"{place}: not JSON ({error}); run the stage that writes this file again") from None
    if not isinstance(row, dict):
        raise DataError(f"{place}: not an object; run the stage that writes this file again")
    return row


def _parsed(line: bytes) -> Json:
    try:
        row: Json = orjson.loads(line)
    except ValueError:
        row = json.loads(line)  # accepts the lone surrogates that a rejected row may hold
    return row


def example_from(row: dict[str, Json], place: str) -> Example:
    """The example that `as_json` wrote. Raises `DataError` naming `place` for anything else."""
    id_, source, line = row.get("id"), row.get("source"), row.get("line")
    turns, text, meta = row.get("messages"), row.get("text", 0), row.get("meta")
    # Plain tests: a match statement on the whole row takes three times as long, and every row passes here often.
    if (
        isinstance(id_, str)
        and isinstance(source, str)
        and isinstance(line, int)
        and isinstance(turns, list)
        and isinstance(meta, dict)
        and (text is None or isinstance(text, str))
        and bool(turns) == (text is None)
    ):
        example = Example(id_, source, line, _messages(turns, place), text, meta)
        return example if len(row) == _N_COMMON_KEYS else _with_rare_fields(example, row, place)
    raise DataError(f"{place}: not an example (id, source, line, messages, text, meta); run its stage again")


_N_COMMON_KEYS = 6


def _with_rare_fields(example: Example, row: dict[str, Json], place: str) -> Example:
    match row.get("file", ""), row.get("tools", []), row.get("chosen", []), row.get("rejected", []), row.get("label"):
        case str(file), list(tools), list(chosen), list(rejected), None | bool() as label:
            pair = _messages(chosen, place), _messages(rejected, place)
            return replace(example, file=file, tools=tuple(tools), chosen=pair[0], rejected=pair[1], label=label)
    raise DataError(f"{place}: not an example (file, tools, chosen, rejected, label); run its stage again")


def _messages(turns: list[Json], place: str) -> tuple[Message, ...]:
    return tuple([_message(turn, place) for turn in turns])


def _message(message: Json, place: str) -> Message:
    if isinstance(message, dict):
        role, content = message.get("role"), message.get("content")
        if isinstance(role, str) and role in ROLES and isinstance(content, str):
            calls = _tool_calls(message["tool_calls"], place) if "tool_calls" in message else ()
            return Message(ROLES[role], content, calls)
    raise DataError(f"{place}: not a message (role: {', '.join(ROLES)}; content: text); run its stage again")


def _tool_calls(calls: object, place: str) -> tuple[ToolCall, ...]:
    found: list[ToolCall] = []
    for call in calls if isinstance(calls, list) else [calls]:
        match call:
            case {"name": str(name), "arguments": dict(arguments)}:
                found.append(ToolCall(name, arguments))
            case _:
                raise DataError(f"{place}: not a tool call (name, arguments); run its stage again")
    return tuple(found)


def _rejected(row: dict[str, Json], place: str) -> Rejected:
    match row:
        case {
            "source": str(source),
            "line": int(line),
            "stage": str(stage),
            "rule": str(rule),
            "reason": str(reason),
            "row": kept,
        }:
            return Rejected(source, line, stage, rule, reason, kept, str(row.get("file", "")))
    raise DataError(f"{place}: not a rejected row (source, line, stage, rule, reason, row); run its stage again")
