"""Overlaps between training rows and held-out rows, as the split stage found them."""

from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

from tuneline.data.record_files import read_objects
from tuneline.data.records import Json
from tuneline.errors import DataError
from tuneline.reporting.showing import escaped, shown

MAX_ROWS = 1000  # in the table; all of them are counted
COLUMNS = ("kind", "row", "row_id", "held_out", "held_out_id", "jaccard", "shared")
_CUT = "..."  # what a shared text ends with that is longer than the split stage writes


@dataclass(slots=True)
class Overlaps:
    """The first pairs as a table, in the order of the training rows, and the number of all by kind."""

    rows: list[tuple[str | float, ...]] = field(default_factory=list)
    kinds: Counter[str] = field(default_factory=Counter)

    def metrics(self) -> dict[str, int]:
        found = {"contamination_n_pairs": self.kinds.total()}
        return found | {f"contamination_n_pairs_{kind}": n for kind, n in self.kinds.items()}


def read_overlaps(path: Path) -> Overlaps:
    """Read what split wrote. Raises `DataError` with file:line for a line that is no overlap."""
    pairs = Overlaps()
    for pair, place in read_objects(path):
        match pair:
            case {
                "kind": str(kind),
                "row": str(row),
                "row_id": str(row_id),
                "held_out": str(held_out),
                "held_out_id": str(held_out_id),
            }:
                pairs.kinds[kind] += 1
                if len(pairs.rows) < MAX_ROWS:
                    pairs.rows.append((kind, escaped(row), row_id, escaped(held_out), held_out_id, *_measure(pair)))
            case _:
                raise DataError(f"{place}: not an overlap (kind, row, held_out, ids); run the split stage again")
    return pairs


def _measure(pair: dict[str, Json]) -> tuple[str | float, str]:
    """(Jaccard similarity or nothing, shared text or nothing)"""
    match pair:
        case {"jaccard": int() | float() as jaccard}:
            return jaccard, ""
        case {"shared": str(text)}:
            # without its last word, which may be the beginning of an address that nothing tells from a word
            return "", shown(f"{text.removesuffix(_CUT).rpartition(' ')[0]} …" if text.endswith(_CUT) else text)
    return "", ""
