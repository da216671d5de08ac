"""Counts of rows as metrics, and the limits on what may be lost."""

from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path

from tuneline.config.schema import SourceConfig
from tuneline.data.pii import mask
from tuneline.data.records import Example, Rejected
from tuneline.errors import DataError

_REASON_CHARS = 200
_MASKED_CHARS = 2000  # more than is shown, so that nothing shown is the cut-off half of an address


@dataclass(slots=True)
class Tally:
    """Rows kept and rejected so far; tallies of parts of the rows add up to the tally of all."""

    kept: Counter[str] = field(default_factory=Counter)  # by source
    rejected: Counter[tuple[str, str]] = field(default_factory=Counter)  # by source and rule
    changed: Counter[str] = field(default_factory=Counter)  # what rules mended, by kind
    first: dict[str, tuple[str, str]] = field(default_factory=dict)  # rule -> the first row it rejected, and why

    def keep(self, example: Example) -> None:
        self.kept[example.source] += 1

    def reject(self, row: Rejected) -> None:
        self.rejected[row.source, row.rule] += 1
        if row.rule not in self.first:
            self.first[row.rule] = row.place, row.reason[:_MASKED_CHARS]

    def add(self, later: "Tally") -> None:
        """Take in the tally of rows behind those counted so far."""
        self.kept += later.kept
        self.rejected += later.rejected
        self.changed += later.changed
        self.first = later.first | self.first

    @property
    def n_kept(self) -> int:
        return self.kept.total()

    @property
    def n_rejected(self) -> int:
        return self.rejected.total()

    def by_rule(self) -> Counter[str]:
        """Rejected rows of every source, by rule."""
        counts: Counter[str] = Counter()
        for (_, rule), n_rows in self.rejected.items():
            counts[rule] += n_rows
        return counts

    def metrics(self, rules: Iterable[str], sources: Iterable[SourceConfig]) -> dict[str, int | float]:
        """Rows read, kept and rejected: in all, by rule (zero for one that found nothing), by source and by both."""
        by_rule = self.by_rule()
        n_read = self.n_kept + self.n_rejected
        metrics: dict[str, int | float] = {
            "n_read": n_read,
            "n_kept": self.n_kept,
            "n_rejected": self.n_rejected,
            "rejected_fraction": self.n_rejected / n_read if n_read else 0.0,
        }
        metrics |= {f"n_rejected_by_{rule}": by_rule[rule] for rule in rules}
        for name in [source.name for source in sources]:
            metrics[f"n_kept_from_{name}"] = self.kept[name]
            metrics[f"n_rejected_from_{name}"] = sum(n for (source, _), n in self.rejected.items() if source == name)
            of_rules = {rule: n for (source, rule), n in self.rejected.items() if source == name}
            metrics |= {f"n_rejected_from_{name}_by_{rule}": n for rule, n in of_rules.items()}
        return metrics

    def changed_metrics(self, kinds: Iterable[str]) -> dict[str, int | float]:
        """What rules mended, by kind; zero for what none did."""
        return {f"n_mended_{kind}": self.changed[kind] for kind in kinds}

    def check(self, max_rejected_fraction: float, key: str, path: Path) -> None:
        """Raises `DataError` when no row is left, or more than the share that `key` allows was rejected.

        `path` is the file of rejected rows, written before: a failed run leaves the reasons, not the result.
        """
        n_read = self.n_kept + self.n_rejected
        fraction = self.n_rejected / n_read if n_read else 0.0
        if self.n_kept and fraction <= max_rejected_fraction:
            return
        limit = f"more than {key} {max_rejected_fraction:g}" if self.n_kept else "so no row is left"
        raise DataError(
            f"{self.n_rejected} of {n_read} rows rejected ({fraction:.3g}), {limit}; {self._most_frequent()}"
            f" all of them: {path}; mend the rows" + (f" or raise {key}" if self.n_kept else "")
        )

    def _most_frequent(self) -> str:
        if not self.rejected:
            return ""
        rule, n_rows = self.by_rule().most_common(1)[0]
        place, reason = self.first[rule]
        return f"most often {rule} ({n_rows}), first {place} ({mask(reason)[:_REASON_CHARS]});"


Check = Callable[[Tally], None]  # sees the counts before any file of examples appears, and may raise
