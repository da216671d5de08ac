"""The strict reader: every row of a file comes out once, as an object or with the reason why it is none.

A row that cannot be used never stops the file and never crashes the process; what makes the whole file
unusable (missing, empty, another encoding, cut off) raises `DataError`.
"""

from collections.abc import Iterator
from pathlib import Path

from tuneline.data.compressed import unpacked_suffix
from tuneline.data.json_array import read_json
from tuneline.data.json_rows import read_jsonl
from tuneline.data.plain_text import read_page, read_text
from tuneline.data.rows import BadRow, Row
from tuneline.data.tables import read_csv, read_parquet
from tuneline.errors import DataError

EXTENSIONS = (".jsonl", ".json", ".csv", ".parquet", ".txt", ".html", ".htm")  # each also with .gz or .zst behind it

_FIX = "put rows into it, or name another file"


def read_rows(path: Path) -> Iterator[Row | BadRow]:
    """Every row of the file, in order, one at a time; blank lines are no rows. What a row is:

    .jsonl a line; .json an element of the list, or the one object; .csv a record; .txt a line (a document each);
    .html the page.

    Raises `DataError` when the file as a whole cannot be used; a file without rows is such a one.
    """
    _check_is_file(path)
    n_rows = 0
    for row in _rows(path):
        n_rows += 1
        yield row
    if n_rows == 0:
        raise DataError(f"{path}: holds no rows; {_FIX}")


def _rows(path: Path) -> Iterator[Row | BadRow]:
    match unpacked_suffix(path):
        case ".jsonl":
            return read_jsonl(path)
        case ".json":
            return read_json(path)
        case ".csv":
            return read_csv(path)
        case ".parquet":
            return read_parquet(path)
        case ".txt":
            return read_text(path)
        case ".html" | ".htm":
            return read_page(path)
        case suffix:
            allowed = f"{', '.join(EXTENSIONS)}, and each with .gz or .zst behind it"
            raise DataError(f"{path}: extension {suffix!r} is unknown; allowed: {allowed}")


def _check_is_file(path: Path) -> None:
    if not path.exists():
        raise DataError(f"{path}: no such file; put it there, or `dvc pull` it, or change data.sources")
    if not path.is_file():
        raise DataError(f"{path}: is no file; data.sources[].path names one file, or several with * and ?")
    if path.stat().st_size == 0:
        raise DataError(f"{path}: is empty; {_FIX}")
