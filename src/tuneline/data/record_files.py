"""Records in JSONL files: one object a line, UTF-8."""

import json
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import TypeVar

import msgspec

from tuneline.data.records import Example, Json, Rejected, as_json, sorted_json
from tuneline.errors import DataError
from tuneline.output import atomic_writer

Record = TypeVar("Record")


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
    for line, place in _lines(path):
        yield example_of(line, place)


def read_examples(path: Path) -> list[Example]:
    """All of `iterate_examples`."""
    return list(iterate_examples(path))


def iterate_rejected(path: Path) -> Iterator[Rejected]:
    """Read what `write_rejected` wrote, one at a time. Raises `DataError` with file:line for a line that is none."""
    for line, place in _lines(path):
        yield _record(_REJECTED, line, place)


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
    for line, place in _lines(path):
        yield parse_object(line, place), place


def _lines(path: Path) -> Iterator[tuple[bytes, str]]:
    """(line, file:line) of every line but blank ones."""
    try:
        file = path.open("rb")
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror}); run the stage that writes it") from None
    with file:
        for number, line in enumerate(file, 1):
            if not line.isspace():
                yield line, f"{path}:{number}"


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
        row: Json = _ANY.decode(line)
    except (msgspec.MsgspecError, UnicodeDecodeError):
        row = json.loads(line)  # accepts the lone surrogates that a rejected row may hold
    return row


def example_of(line: bytes, place: str) -> Example:
    """The example of one line that `write_examples` wrote. Raises `DataError` naming `place` for any other line."""
    example = _record(_EXAMPLE, line, place)
    if bool(example.messages) == (example.text is None):
        return example
    raise DataError(f"{place}: not an example (messages, or text); run its stage again")


def _record(decoder: msgspec.json.Decoder[Record], line: bytes, place: str) -> Record:
    try:
        return decoder.decode(line)
    except (msgspec.MsgspecError, UnicodeDecodeError):
        row = parse_object(line, place)  # what is wrong with the JSON, if anything is
    try:
        record: Record = msgspec.convert(row, decoder.type)
    except (msgspec.ValidationError, UnicodeEncodeError) as error:  # the latter: a key or role with a lone surrogate
        raise DataError(f"{place}: not what its stage writes ({error}); run that stage again") from None
    return record


_EXAMPLE, _REJECTED, _ANY = msgspec.json.Decoder(Example), msgspec.json.Decoder(Rejected), msgspec.json.Decoder()
