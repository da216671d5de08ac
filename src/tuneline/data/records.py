"""The canonical record behind every format, and its JSONL files: one object a line, UTF-8."""

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeAlias

from tuneline.errors import DataError
from tuneline.output import atomic_file

Json: TypeAlias = "bool | int | float | str | list[Json] | dict[str, Json] | None"
Role = Literal["system", "user", "assistant", "tool"]
ROLES: dict[str, Role] = {"system": "system", "user": "user", "assistant": "assistant", "tool": "tool"}

_encode = json.JSONEncoder(ensure_ascii=False, sort_keys=True, allow_nan=False).encode


@dataclass(frozen=True, slots=True)
class Message:
    """One turn of a conversation."""

    role: Role
    content: str


@dataclass(frozen=True, slots=True)
class Example:
    """A conversation (`messages`, `text` is None) or a raw text (`messages` is empty)."""

    id: str  # see content_id
    source: str  # name of the source in data.sources
    line: int  # 1-based: line of a text file, row of a JSON array, Parquet file or hub dataset
    messages: tuple[Message, ...]
    text: str | None
    meta: Mapping[str, Json]  # the row's data.meta_fields, untouched


@dataclass(frozen=True, slots=True)
class Rejected:
    """A row that a stage took out, with the reason; kept + rejected == read in every stage."""

    source: str
    line: int
    stage: str
    rule: str
    reason: str
    row: Json  # as read; the raw text where it is not acceptable JSON


def content_id(messages: Iterable[Message], text: str | None, meta: Mapping[str, Json]) -> str:
    """16 hex digits of the SHA-256 over messages, text and meta: equal content has an equal id anywhere."""
    content = [[[message.role, message.content] for message in messages], text, dict(meta)]
    return hashlib.sha256(_encode(content).encode("utf-8", "surrogatepass")).hexdigest()[:16]


def make_example(
    source: str, line: int, messages: tuple[Message, ...], text: str | None, meta: Mapping[str, Json]
) -> Example:
    """An example whose id is computed from its content."""
    return Example(content_id(messages, text, meta), source, line, messages, text, meta)


def contents(example: Example) -> list[str]:
    """Every text of the example in order: the messages' contents, or the one raw text."""
    return [message.content for message in example.messages] if example.text is None else [example.text]


def with_contents(example: Example, texts: list[str]) -> Example:
    """The example with other texts, in the order of `contents`, and therefore another id."""
    if example.text is not None:
        (text,) = texts
        return make_example(example.source, example.line, (), text, example.meta)
    messages = tuple(Message(message.role, text) for message, text in zip(example.messages, texts, strict=True))
    return make_example(example.source, example.line, messages, None, example.meta)


def as_json(example: Example) -> dict[str, Json]:
    """The example as it stands in a file."""
    return {
        "id": example.id,
        "source": example.source,
        "line": example.line,
        "messages": [{"role": message.role, "content": message.content} for message in example.messages],
        "text": example.text,
        "meta": dict(example.meta),
    }


def write_examples(path: Path, examples: Iterable[Example]) -> None:
    """Write one example a line, whole file or nothing."""
    _write_lines(path, (as_json(example) for example in examples))


def write_rejected(path: Path, rejected: Iterable[Rejected]) -> None:
    """Write one rejected row a line, whole file or nothing."""
    _write_lines(path, (_rejected_as_json(row) for row in rejected))


def read_examples(path: Path) -> list[Example]:
    """Read what `write_examples` wrote. Raises `DataError` with file:line for a line that is no example."""
    return [_example(row, place) for row, place in _read_objects(path)]


def read_rejected(path: Path) -> list[Rejected]:
    """Read what `write_rejected` wrote. Raises `DataError` with file:line for a line that is none."""
    return [_rejected(row, place) for row, place in _read_objects(path)]


def _rejected_as_json(row: Rejected) -> dict[str, Json]:
    return {
        "source": row.source,
        "line": row.line,
        "stage": row.stage,
        "rule": row.rule,
        "reason": row.reason,
        "row": row.row,
    }


def _write_lines(path: Path, rows: Iterable[dict[str, Json]]) -> None:
    # backslashreplace: a lone surrogate is not UTF-8, but must not stop a rejected row from being kept.
    with (
        atomic_file(path) as temporary,
        temporary.open("w", encoding="utf-8", errors="backslashreplace", newline="\n") as file,
    ):
        file.writelines(_encode(row) + "\n" for row in rows)


def _read_objects(path: Path) -> list[tuple[dict[str, Json], str]]:
    try:
        lines = path.read_bytes().split(b"\n")
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror}); run the stage that writes it") from None
    return [(_object(line, f"{path}:{number}"), f"{path}:{number}") for number, line in enumerate(lines, 1) if line]


def _object(line: bytes, place: str) -> dict[str, Json]:
    try:
        row: Json = json.loads(line)
    except ValueError as error:
        raise DataError(f"{place}: not JSON ({error}); run the stage that writes this file again") from None
    if not isinstance(row, dict):
        raise DataError(f"{place}: not an object; run the stage that writes this file again")
    return row


def _example(row: dict[str, Json], place: str) -> Example:
    match row:
        case {
            "id": str(id_),
            "source": str(source),
            "line": int(line),
            "messages": list(messages),
            "text": None | str() as text,
            "meta": dict(meta),
        } if bool(messages) == (text is None):
            return Example(id_, source, line, tuple(_message(m, place) for m in messages), text, meta)
    raise DataError(f"{place}: not an example (id, source, line, messages, text, meta); run its stage again")


def _message(message: Json, place: str) -> Message:
    match message:
        case {"role": str(role), "content": str(content)} if role in ROLES:
            return Message(ROLES[role], content)
    raise DataError(f"{place}: not a message (role: {', '.join(ROLES)}; content: text); run its stage again")


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
            return Rejected(source, line, stage, rule, reason, kept)
    raise DataError(f"{place}: not a rejected row (source, line, stage, rule, reason, row); run its stage again")
