"""Records in JSONL files: one object a line, UTF-8."""

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path

import orjson

from tuneline.data.records import ROLES, Example, Json, Message, Rejected, ToolCall, as_json, sorted_json
from tuneline.errors import DataError
from tuneline.output import atomic_writer


def as_line(row: Mapping[str, Json]) -> bytes:
    """One JSON object as a line of a file: sorted keys, UTF-8."""
    # backslashreplace: a lone surrogate is not UTF-8, but must not stop a rejected row from being kept.
    return sorted_json(row).encode("utf-8", "backslashreplace") + b"\n"


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
