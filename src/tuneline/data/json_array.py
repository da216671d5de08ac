"""Rows of .json files: the elements of one list, or one object. However large the list, little of it is in memory."""

import codecs
import json
from collections.abc import Iterator
from itertools import count
from pathlib import Path
from typing import BinaryIO

from tuneline.data.json_rows import JSON_SPACE, checked
from tuneline.data.records import Json
from tuneline.data.rows import MAX_ROW_BYTES, SHOWN_CHARS, BadRow, Row, open_text, utf8_problem
from tuneline.data.strict_json import MAX_DEPTH, StrictDecoder, end_of_value, is_too_deep, what_is_wrong
from tuneline.errors import DataError

_WINDOW_CHARS = 2**20


def read_json(path: Path) -> Iterator[Row | BadRow]:
    """Rows of a list, each parsed by itself so that a bad one spoils nothing else; an object alone is one row.

    `line` is the number of the element, the place in messages is its line. Raises `DataError` where the list itself is
    broken, and for an element of more than MAX_ROW_BYTES characters, behind which nothing can be told apart.
    """
    with open_text(path) as file:
        elements = _Elements(path, file)
        match elements.next_sign():
            case "":
                return
            case "[":
                yield from elements.of_list()
            case "{":
                yield elements.alone()
            case _:
                raise elements.broken("a list of objects, or one object, is expected")


class _Elements:
    """Walks over the text through a window that moves with it."""

    def __init__(self, path: Path, file: BinaryIO) -> None:
        self._path = path
        self._file = file
        # a bad byte then spoils its own row only
        self._decode = codecs.getincrementaldecoder("utf-8")("surrogateescape").decode
        self._decoder = StrictDecoder()
        self._text = ""
        self._position = 0
        self._line = 1  # of _counted_to
        self._counted_to = 0
        self._at_end = False

    def next_sign(self) -> str:
        """The next character that is no white space, without going past it; "" at the end."""
        while True:
            while self._position < len(self._text):
                if self._text[self._position] not in JSON_SPACE:
                    return self._text[self._position]
                self._position += 1
            if not self._see_more():
                return ""

    def of_list(self) -> Iterator[Row | BadRow]:
        self._position += 1
        more = self.next_sign() != "]"
        for number in count(1):
            if not more:
                break
            yield self._element(number)
            more = self.next_sign() == ","
            self._position += more
        if (sign := self.next_sign()) != "]":
            raise self.broken("',' or ']' is expected" if sign else "the list is cut off")
        self._position += 1
        if self.next_sign():
            raise self.broken("more text after the list")

    def alone(self) -> Row | BadRow:
        row = self._element(1)
        if self.next_sign():
            raise DataError(f"{row.place}: more text after the object; one object a line belongs into a .jsonl file")
        return row

    def broken(self, message: str) -> DataError:
        return DataError(f"{self._path}:{self._line_here()}: not JSON: {message}; mend or fetch the file again")

    def _element(self, number: int) -> Row | BadRow:
        self.next_sign()
        value, end = self._value()
        place = f"{self._path}:{self._line_here()}"
        raw = self._text[self._position : end]
        self._position = end
        if (problem := _problem(raw)) is not None:
            return BadRow(number, place, problem, _shown(raw))
        return checked(value, self._decoder.problems, number, place, raw)

    def _value(self) -> tuple[Json, int]:
        """The value here and where it ends; what touches the window's edge may go on behind it."""
        while True:
            value: Json
            try:
                value, end = self._decoder.decode_at(self._text, self._position)
            except json.JSONDecodeError as error:
                if self._see_more():
                    continue
                raise self._broken_at(error) from None
            except RecursionError:
                value, end = None, end_of_value(self._text, self._position)
            if end < len(self._text) or not self._see_more():
                return value, end

    def _broken_at(self, error: json.JSONDecodeError) -> DataError:
        if not self._at_end:
            return self.broken(f"an element of more than {MAX_ROW_BYTES} characters, or {what_is_wrong(error)}")
        self._position = error.pos
        return self.broken("the list is cut off" if error.pos == len(self._text) else what_is_wrong(error))

    def _see_more(self) -> bool:
        """Widen the window, away from what lies behind; False at the end, or when one element fills too much of it."""
        if self._at_end or len(self._text) - self._position > MAX_ROW_BYTES:
            return False
        self._line_here()
        rest = self._text[self._position :]
        data = self._file.read(max(_WINDOW_CHARS, len(rest)))
        self._at_end = not data
        self._text = rest + self._decode(data, final=self._at_end)
        self._position = self._counted_to = 0
        return True

    def _line_here(self) -> int:
        if self._position < self._counted_to:
            self._line -= self._text.count("\n", self._position, self._counted_to)
        else:
            self._line += self._text.count("\n", self._counted_to, self._position)
        self._counted_to = self._position
        return self._line


def _problem(raw: str) -> str | None:
    if len(raw) > MAX_ROW_BYTES:
        return f"a row of {len(raw)} characters; at most {MAX_ROW_BYTES} are allowed"
    if is_too_deep(raw):
        return f"nested deeper than {MAX_DEPTH} levels"
    return None if raw.isascii() else utf8_problem(raw.encode("utf-8", "surrogateescape"))


def _shown(raw: str) -> str:
    shown = raw if len(raw) <= MAX_ROW_BYTES else raw[:SHOWN_CHARS]
    return shown.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
