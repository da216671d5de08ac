"""Rows of JSONL files, as strict as `strict_json`; a large file can be read in parts, each by itself."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tuneline.data.records import Json
from tuneline.data.rows import BadRow, Line, Row, kind_of, not_utf8, open_text, read_lines, skip_line
from tuneline.data.strict_json import MAX_DEPTH, StrictDecoder, is_too_deep, what_is_wrong

JSON_SPACE = " \t\n\r"


@dataclass(frozen=True, slots=True)
class LinesOfFile:
    """Some whole lines of a file that is not packed."""

    path: Path
    begin: int  # offset of the first byte
    n_bytes: int
    first_line: int  # 1-based, in the file


def lines_in_parts(path: Path, n_bytes: int) -> Iterator[LinesOfFile]:
    """The file's lines in parts of at least `n_bytes` (but for the last one)."""
    with open_text(path) as file:
        first_line = 1
        begin = file.tell()
        while piece := file.read(n_bytes):
            n_lines = piece.count(b"\n")
            if not piece.endswith(b"\n"):
                skip_line(file)
                n_lines += 1
            yield LinesOfFile(path, begin, file.tell() - begin, first_line)
            first_line += n_lines
            begin = file.tell()


def read_part(part: LinesOfFile) -> Iterator[Row | BadRow]:
    with part.path.open("rb") as file:
        file.seek(part.begin)
        yield from _rows(part.path, read_lines(file, part.first_line, part.n_bytes))


def read_jsonl(path: Path) -> Iterator[Row | BadRow]:
    with open_text(path) as file:
        yield from _rows(path, read_lines(file))


def checked(value: Json, problems: list[str], line: int, place: str, raw: str) -> Row | BadRow:
    """The parsed value as a row, if it is an object and the decoder had no problems with it."""
    if problems:
        return BadRow(line, place, "; ".join(dict.fromkeys(problems)), raw)
    if not isinstance(value, dict):
        return BadRow(line, place, f"the row is {kind_of(value)}; an object is expected", raw)
    return Row(line, place, value)


def _rows(path: Path, lines: Iterator[Line]) -> Iterator[Row | BadRow]:
    decoder = StrictDecoder()
    for line in lines:
        if line.data.strip() or line.problem:
            yield _row(line, f"{path}:{line.number}", decoder)


def _row(line: Line, place: str, decoder: StrictDecoder) -> Row | BadRow:
    try:
        raw = line.data.decode("utf-8")
        problem = line.problem
    except UnicodeDecodeError as error:
        raw = line.data.decode("utf-8", "backslashreplace")
        problem = line.problem or not_utf8(error)
    if problem is None and is_too_deep(raw):
        problem = f"nested deeper than {MAX_DEPTH} levels"
    if problem is not None:
        return BadRow(line.number, place, problem, raw)
    return _parsed(line.number, place, raw, decoder)


def _parsed(number: int, place: str, raw: str, decoder: StrictDecoder) -> Row | BadRow:
    try:
        value, end = decoder.decode_at(raw, len(raw) - len(raw.lstrip(JSON_SPACE)))
    except json.JSONDecodeError as error:
        return BadRow(number, place, f"not JSON: {what_is_wrong(error)} at column {error.pos + 1}", raw)
    if raw[end:].strip(JSON_SPACE):
        return BadRow(number, place, f"not JSON: more text after the object, at column {end + 1}", raw)
    return checked(value, decoder.problems, number, place, raw)
