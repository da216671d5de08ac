"""Files without structure: lines of raw text, and web pages."""

from collections.abc import Iterator
from pathlib import Path

from tuneline.data.rows import MAX_ROW_BYTES, SHOWN_CHARS, BadRow, Row, not_utf8, open_text, read_lines


def read_text(path: Path) -> Iterator[Row | BadRow]:
    """A row {"text": line} per line that is not blank.

    A line and not a paragraph is a document: that is how text collections and their loaders divide plain files, no
    guess about blank lines is needed, and a file of any size can be read. A text with line breaks belongs into JSONL.
    """
    with open_text(path) as file:
        for line in read_lines(file):
            if line.data.strip() or line.problem:
                yield _row("text", line.number, f"{path}:{line.number}", line.data, line.problem)


def read_page(path: Path) -> Iterator[Row | BadRow]:
    """One row {"html": page}. The page must be UTF-8, whatever its own header says."""
    with open_text(path) as file:
        data = file.read(MAX_ROW_BYTES + 1)
    if len(data) <= MAX_ROW_BYTES and not data.strip():
        return
    too_long = f"a page of more than {MAX_ROW_BYTES} bytes" if len(data) > MAX_ROW_BYTES else None
    yield _row("html", 1, f"{path}:1", data[:SHOWN_CHARS] if too_long else data, too_long)


def _row(key: str, number: int, place: str, data: bytes, problem: str | None) -> Row | BadRow:
    if problem is None:
        try:
            return Row(number, place, {key: data.decode("utf-8")})
        except UnicodeDecodeError as error:
            problem = not_utf8(error)
    return BadRow(number, place, problem, data.decode("utf-8", "backslashreplace"))
