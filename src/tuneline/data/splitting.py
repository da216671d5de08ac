"""Train, validation and test, drawn by hash: a row's side depends on its own prompt and nothing else."""

import hashlib
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

from tuneline.data.contamination import contaminated, group_key
from tuneline.data.records import Example, Rejected, as_json
from tuneline.data.settings import Source, Splitting
from tuneline.errors import DataError


@dataclass(frozen=True, slots=True)
class Splits:
    """The sides, each in the order of the rows given, and the pool rows that the test holds too."""

    train: list[Example]
    val: list[Example]
    test: list[Example]
    rejected: list[Rejected]


def split(examples: Sequence[Example], sources: Sequence[Source], settings: Splitting) -> Splits:
    """Sources with role test go to test whole; the pool is drawn by the hash of each row's group.

    So a group is never on two sides, and a row's side changes neither when rows are reordered nor when others
    are added (unless the test now holds one of its prompts). Test rows stay test rows whatever `val_fraction` is.
    Raises `DataError` for an empty side, or for contamination where that is to fail.
    """
    tests = {source.name for source in sources if source.role == "test"}
    assert not tests or settings.test_fraction == 0, "the configuration says which of the two gives the test"
    drawn = [(example, "test" if example.source in tests else _side(example, settings)) for example in examples]
    held_out = [example for example, side in drawn if side == "test"]
    learned = [(example, side) for example, side in drawn if side != "test"]
    rejected = _contamination([example for example, _ in learned], held_out, settings.on_contamination)
    sides: dict[str, list[Example]] = {"train": [], "val": []}
    for index, (example, side) in enumerate(learned):
        if index not in rejected:
            sides[side].append(example)
    splits = Splits(sides["train"], sides["val"], held_out, list(rejected.values()))
    _check_sides(splits, settings)
    return splits


def count_sides(splits: Splits, sources: Iterable[Source]) -> dict[str, int | float]:
    """Rows and groups on each side, in all and by source, and rejected rows, as metrics."""
    metrics: dict[str, int | float] = {
        "n_read": len(splits.train) + len(splits.val) + len(splits.test) + len(splits.rejected),
        "n_rejected_by_contamination": len(splits.rejected),
    }
    names = [source.name for source in sources]
    for side, rows in (("train", splits.train), ("val", splits.val), ("test", splits.test)):
        found = Counter(example.source for example in rows)
        metrics |= {f"n_{side}": len(rows), f"n_{side}_groups": len({group_key(example) for example in rows})}
        metrics |= {f"n_{side}_from_{name}": found[name] for name in names}
    return metrics


def place_on_unit_line(salt: str, key: str) -> float:
    """A number in [0, 1), uniform over keys, from the first 53 bits of the SHA-256 of salt and key."""
    digest = hashlib.sha256(f"{salt}\0{key}".encode("utf-8", "surrogatepass")).digest()
    return (int.from_bytes(digest[:8], "big") >> 11) / 2**53


def _side(example: Example, settings: Splitting) -> Literal["train", "val", "test"]:
    """Test from the bottom of the unit line, validation from its top, so that neither moves the other's bound."""
    place = place_on_unit_line(settings.salt, group_key(example))
    # raw text has no answer to score: it is learned from or validated on
    if place < settings.test_fraction and example.text is None:
        return "test"
    return "val" if place >= 1 - settings.val_fraction else "train"


def _contamination(
    learned: list[Example], held_out: list[Example], action: Literal["drop", "fail"]
) -> dict[int, Rejected]:
    found = contaminated(learned, held_out)
    if found and action == "fail":
        index, reason = next(iter(found.items()))
        raise DataError(
            f"{learned[index].source}:{learned[index].line}: {reason}; {len(found)} such rows;"
            " remove them, or set split.on_contamination: drop"
        )
    return {index: _rejected(learned[index], reason) for index, reason in found.items()}


def _rejected(example: Example, reason: str) -> Rejected:
    return Rejected(example.source, example.line, "split", "contamination", reason, as_json(example))


def _check_sides(splits: Splits, settings: Splitting) -> None:
    n_pool = len(splits.train) + len(splits.val) + len(splits.rejected)
    if not splits.train:
        raise DataError(f"split: no training row is left of {n_pool} pool rows; add data or lower the fractions")
    if not splits.val and settings.val_fraction > 0:
        raise DataError(f"split: split.val_fraction {settings.val_fraction} of {n_pool} pool rows is no row; raise it")
    if not splits.test:
        raise DataError("split: there is no test row; give a source role test, or raise split.test_fraction")
