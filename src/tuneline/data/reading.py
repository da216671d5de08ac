"""The strict reader: every row of a file comes out once, as an object or with the reason why it is none.

A row that cannot be used never stops the file and never crashes the process; what makes the whole file
unusable (missing, empty, another encoding, cut off) raises `DataError`.
"""

from collections.abc import Iterator
from pathlib import Path

from tuneline.data.json_rows import read_json, read_jsonl
from tuneline.data.rows import BadRow, Row
from tuneline.data.tables import read_csv, read_parquet
from tuneline.errors import DataError


def read_rows(path: Path) -> Iterator[Row | BadRow]:
    """Every row of a .jsonl, .json, .csv or .parquet file, in order; blank lines are no rows.

    Raises `DataError` when the file as a whole cannot be used; a file without rows is such a one.
    """
    _check_is_file(path)
    match path.suffix.lower():
        case ".jsonl":
            rows = read_jsonl(path)
        case ".json":
            rows = read_json(path)
        case ".csv":
            rows = read_csv(path)
        case ".parquet":
            rows = read_parquet(path)
        case suffix:
            raise DataError(f"{path}: extension {suffix!r} is unknown; allowed: .jsonl, .json, .csv, .parquet")
    n_rows = 0
    for row in rows:
        n_rows += 1
        yield row
    if n_rows == 0:
        raise DataError(f"{path}: holds no rows")


def _check_is_file(path: Path) -> None:
    if not path.exists():
        raise DataError(f"{path}: no such file; put it there, or `dvc pull` it, or change data.sources")
    if not path.is_file():
        raise DataError(f"{path}: is no file; data.sources[].path names one file")
    if path.stat().st_size == 0:
        raise DataError(f"{path}: is empty")
