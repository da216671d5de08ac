"""Tables for people and `dvc plots`."""

import csv
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TypeAlias

from tuneline.reporting.showing import escaped

Cell: TypeAlias = str | int | float
# What a spreadsheet takes for the start of a formula, with the wide forms (OWASP, CSV injection).
_FORMULA_STARTS = ("=", "+", "-", "@", "\uff1d", "\uff0b", "\uff0d", "\uff20")


def write_table(path: Path, columns: Sequence[str], rows: Iterable[Sequence[Cell]]) -> None:
    """Write a CSV file with a header. A text that a spreadsheet would run as a formula gets an apostrophe before it."""
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(columns)
        writer.writerows([_harmless(cell) for cell in row] for row in rows)


def _harmless(cell: Cell) -> Cell:
    if not isinstance(cell, str):
        return cell
    text = escaped(cell)  # csv leaves a lone carriage return unquoted, and readers end the row there
    return f"'{text}" if text.startswith(_FORMULA_STARTS) else text
