"""Files of lines: objects that a stage wrote, and tables for people and `dvc plots`."""

import csv
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from tuneline.data.records import Json, parse_object
from tuneline.errors import DataError


def read_objects(path: Path) -> Iterator[tuple[dict[str, Json], str]]:
    """(object, file:line) of every line. Raises `DataError` with file:line for a line that is no object."""
    try:
        file = path.open("rb")
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror}); run the stage that writes it") from None
    with file:
        for number, line in enumerate(file, 1):
            yield parse_object(line, f"{path}:{number}"), f"{path}:{number}"


def write_table(path: Path, columns: Sequence[str], rows: Iterable[Sequence[str | int | float]]) -> None:
    """Write a CSV file with a header."""
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(columns)
        writer.writerows(rows)
