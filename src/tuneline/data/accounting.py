"""Counts of rows as metrics, and the limits on what may be lost."""

from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path

from tuneline.data.records import Example, Rejected
from tuneline.data.settings import Source
from tuneline.errors import DataError

_REASON_CHARS = 200


def count_rows(
    kept: Sequence[Example], rejected: Sequence[Rejected], rules: Iterable[str], sources: Iterable[Source]
) -> dict[str, int | float]:
    """Rows read, kept and rejected: in all, by rule (zero for one that found nothing) and by source."""
    by_rule = Counter(row.rule for row in rejected)
    kept_from = Counter(example.source for example in kept)
    rejected_from = Counter(row.source for row in rejected)
    metrics: dict[str, int | float] = {
        "n_read": len(kept) + len(rejected),
        "n_kept": len(kept),
        "n_rejected": len(rejected),
        "rejected_fraction": _fraction(len(rejected), len(kept) + len(rejected)),
    }
    metrics |= {f"n_rejected_by_{rule}": by_rule[rule] for rule in rules}
    for source in sources:
        metrics[f"n_kept_from_{source.name}"] = kept_from[source.name]
        metrics[f"n_rejected_from_{source.name}"] = rejected_from[source.name]
    return metrics


def check_survivors(
    n_kept: int, rejected: Sequence[Rejected], max_rejected_fraction: float, key: str, path: Path
) -> None:
    """Raises `DataError` when no row is left, or more than the share that `key` allows was rejected.

    `path` is the file of rejected rows, written before: a failed run leaves the reasons, not the result.
    """
    n_read = n_kept + len(rejected)
    fraction = _fraction(len(rejected), n_read)
    if n_read and n_kept and fraction <= max_rejected_fraction:
        return
    limit = f"more than {key} {max_rejected_fraction:g}" if n_kept else "so no row is left"
    raise DataError(
        f"{len(rejected)} of {n_read} rows rejected ({fraction:.3g}), {limit}; {_most_frequent(rejected)}"
        f" all of them: {path}; mend the rows" + (f" or raise {key}" if n_kept else "")
    )


def _most_frequent(rejected: Sequence[Rejected]) -> str:
    if not rejected:
        return ""
    rule, n_rows = Counter(row.rule for row in rejected).most_common(1)[0]
    first = next(row for row in rejected if row.rule == rule)
    return f"most often {rule} ({n_rows}), first {first.source}:{first.line} ({first.reason[:_REASON_CHARS]});"


def _fraction(part: int, whole: int) -> float:
    return part / whole if whole else 0.0
