"""Rows of JSONL files and of JSON arrays, as strict as `strict_json`."""

import json
from collections.abc import Iterator
from itertools import count
from pathlib import Path

from tuneline.data.records import Json
from tuneline.data.rows import (
    MAX_ROW_BYTES,
    SHOWN_CHARS,
    BadRow,
    Line,
    Row,
    kind_of,
    open_text,
    read_lines,
    utf8_problem,
)
from tuneline.data.strict_json import MAX_DEPTH, StrictDecoder, end_of_value, is_too_deep
from tuneline.errors import DataError

_JSON_SPACE = " \t\n\r"


def read_jsonl(path: Path) -> Iterator[Row | BadRow]:
    decoder = StrictDecoder()
    with open_text(path) as file:
        for line in read_lines(file):
            if line.data.strip():
                yield _jsonl_row(line, f"{path}:{line.number}", decoder)


def _jsonl_row(line: Line, place: str, decoder: StrictDecoder) -> Row | BadRow:
    raw = line.data.decode("utf-8", "backslashreplace")
    problem = line.problem or utf8_problem(line.data)
    if problem is None and is_too_deep(raw):
        problem = f"nested deeper than {MAX_DEPTH} levels"
    if problem is not None:
        return BadRow(line.number, place, problem, raw)
    try:
        value, end = decoder.decode_at(raw, len(raw) - len(raw.lstrip(_JSON_SPACE)))
    except json.JSONDecodeError as error:
        return BadRow(line.number, place, f"not JSON: {error.msg} at column {error.pos + 1}", raw)
    if raw[end:].strip(_JSON_SPACE):
        return BadRow(line.number, place, f"not JSON: more text after the object, at column {end + 1}", raw)
    return _checked(value, decoder.problems, line.number, place, raw)


def _checked(value: Json, problems: list[str], line: int, place: str, raw: str) -> Row | BadRow:
    if problems:
        return BadRow(line, place, "; ".join(dict.fromkeys(problems)), raw)
    if not isinstance(value, dict):
        return BadRow(line, place, f"the row is {kind_of(value)}; an object is expected", raw)
    return Row(line, place, value)


def read_json(path: Path) -> Iterator[Row | BadRow]:
    with open_text(path) as file:
        text = file.read().decode("utf-8", "surrogateescape")  # a bad byte then spoils its own row only
    start = _skip_space(text, 0)
    if start == len(text):
        return
    if text[start] != "[":
        raise DataError(f"{path}:1: a list of objects is expected; one object a line belongs into a .jsonl file")
    yield from _JsonArray(path, text).rows(start + 1)


class _JsonArray:
    """Walks the elements of one JSON array, each parsed by itself so that a bad one spoils nothing else."""

    def __init__(self, path: Path, text: str) -> None:
        self._path = path
        self._text = text
        self._decoder = StrictDecoder()
        self._line = 1  # physical line of self._counted_to
        self._counted_to = 0

    def rows(self, position: int) -> Iterator[Row | BadRow]:
        text = self._text
        position = _skip_space(text, position)
        more = not text.startswith("]", position)
        for number in count(1):
            if not more:
                break
            row, position = self._element(number, position)
            yield row
            position = _skip_space(text, position)
            more = text.startswith(",", position)
            position = _skip_space(text, position + 1) if more else position
        if not text.startswith("]", position):
            raise self._broken("the list is cut off" if position == len(text) else "',' or ']' is expected", position)
        if _skip_space(text, position + 1) != len(text):
            raise self._broken("more text after the list", position + 1)

    def _element(self, number: int, start: int) -> tuple[Row | BadRow, int]:
        try:
            value, end = self._decoder.decode_at(self._text, start)
        except json.JSONDecodeError as error:
            raise self._broken(error.msg, error.pos) from None
        except RecursionError:
            value, end = None, end_of_value(self._text, start)
        raw = self._text[start:end]
        place = f"{self._path}:{self._line_at(start)}"
        problem = _slice_problem(raw)
        if problem is not None:
            return BadRow(number, place, problem, _shown(raw)), end
        return _checked(value, self._decoder.problems, number, place, raw), end

    def _broken(self, message: str, position: int) -> DataError:
        return DataError(f"{self._path}:{self._line_at(position)}: not JSON: {message}; mend or fetch the file again")

    def _line_at(self, position: int) -> int:
        if position < self._counted_to:
            self._line, self._counted_to = 1, 0
        self._line += self._text.count("\n", self._counted_to, position)
        self._counted_to = position
        return self._line


def _slice_problem(raw: str) -> str | None:
    if len(raw) > MAX_ROW_BYTES:
        return f"a row of {len(raw)} characters; at most {MAX_ROW_BYTES} are allowed"
    if is_too_deep(raw):
        return f"nested deeper than {MAX_DEPTH} levels"
    return None if raw.isascii() else utf8_problem(raw.encode("utf-8", "surrogateescape"))


def _skip_space(text: str, position: int) -> int:
    while position < len(text) and text[position] in _JSON_SPACE:
        position += 1
    return position


def _shown(raw: str) -> str:
    shown = raw if len(raw) <= MAX_ROW_BYTES else raw[:SHOWN_CHARS]
    return shown.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
