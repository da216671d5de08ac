"""Where the rows went: from those read, over every rule of every stage, to the sides of the split."""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

from tuneline.data.accounting import Tally

Stage = Literal["ingest", "clean", "augment", "clean_augmented", "split"]
STAGES: tuple[Stage, ...] = ("ingest", "clean", "augment", "clean_augmented", "split")
TAUGHT: tuple[Stage, ...] = ("augment", "clean_augmented")  # with a teacher only; their rows are one step of the way
Side = Literal["train", "val", "test"]
SIDES: tuple[Side, ...] = ("train", "val", "test")


class Step(NamedTuple):
    """One step from the rows read to the training rows."""

    name: str
    stage: str
    change: int  # rows that it adds (below zero: takes away)


class SourceRows(NamedTuple):
    """Rows of one source at every stage."""

    source: str
    n_read: int
    n_ingested: int
    n_clean: int
    on_side: dict[Side, int]

    @property
    def n_on_sides(self) -> int:
        return sum(self.on_side.values())

    def cells(self) -> list[str | int]:
        """For a table, one per side at the end."""
        return [self.source, self.n_read, self.n_ingested, self.n_clean, *self.on_side.values()]


@dataclass(slots=True)
class Flow:
    """Rows by source: what each stage kept and rejected, what a teacher added, and the sides of the split."""

    tallies: dict[Stage, Tally] = field(default_factory=lambda: {stage: Tally() for stage in STAGES})
    added: Counter[str] = field(default_factory=Counter)  # written by a teacher, and clean
    dropped: Counter[str] = field(default_factory=Counter)  # clean ones that were none beside the teacher's
    sides: dict[Side, Counter[str]] = field(default_factory=lambda: {side: Counter() for side in SIDES})

    @property
    def n_read(self) -> int:
        """Rows that ingest met."""
        return self.tallies["ingest"].n_kept + self.tallies["ingest"].n_rejected

    @property
    def n_added(self) -> int:
        """Rows that split divides and a teacher wrote."""
        return self.added.total()

    def divided(self, source: str) -> int:
        """Rows of the source that split divides."""
        return self.tallies["clean"].kept[source] + self.added[source] - self.dropped[source]

    def sources(self) -> list[str]:
        """Every source with a row anywhere, by name."""
        found: set[str] = set().union(*self.sides.values(), self.added)
        for tally in self.tallies.values():
            found |= tally.kept.keys() | {source for source, _ in tally.rejected}
        return sorted(found)

    def rejected_from(self, stage: Stage, source: str) -> int:
        return sum(n for (name, _), n in self.tallies[stage].rejected.items() if name == source)

    def beside(self, source: str) -> int:
        """Rows of the source that the sides have beyond those that split met and did not reject.

        Above zero: a mixture repeats rows. Below: it leaves rows out, or the source is a benchmark.
        """
        on_sides = sum(self.sides[side][source] for side in SIDES)
        return on_sides + self.rejected_from("split", source) - self.divided(source)

    def steps(self) -> Iterator[Step]:
        """From all rows read (not a step) to the training rows; in a stage the rule that took most comes first."""
        for stage in _on_the_way():
            yield from (Step(rule, stage, -n) for rule, n in _by_count(self.tallies[stage]))
            if stage == "clean":
                yield from self._teacher_steps()
        beside = [self.beside(source) for source in self.sources()]
        changes = {
            "for the test": -self.sides["test"].total(),
            "for validation": -self.sides["val"].total(),
            "on no side": sum(n for n in beside if n < 0),
            "repeated": sum(n for n in beside if n > 0),
        }
        yield from (Step(name, "split", change) for name, change in changes.items() if change)

    def _teacher_steps(self) -> Iterator[Step]:
        changes = {
            "written by a teacher": self.n_added,
            "dropped beside the teacher's rows": -self.dropped.total(),
        }
        yield from (Step(name, "clean", change) for name, change in changes.items() if change)

    def rule_rows(self) -> Iterator[tuple[str, str, str, int]]:
        """(stage, rule, source, rejected rows) in the order of `steps`, then by source."""
        for stage in STAGES:
            tally = self.tallies[stage]
            for rule, _ in _by_count(tally):
                yield from ((stage, rule, s, n) for (s, r), n in sorted(tally.rejected.items()) if r == rule)

    def source_rows(self) -> Iterator[SourceRows]:
        """One for each source, by name."""
        for source in self.sources():
            ingested, clean = (self.tallies[stage].kept[source] for stage in ("ingest", "clean"))
            n_read = ingested + self.rejected_from("ingest", source)
            yield SourceRows(source, n_read, ingested, clean, {side: self.sides[side][source] for side in SIDES})

    def metrics(self) -> dict[str, int]:
        """Per stage, rule and source; read == kept + rejected in every stage.

        Of split: read + repeated == kept + rejected + on no side. Of a teacher's stages only what they rejected.
        """
        found: dict[str, int] = {}
        for stage in _on_the_way():
            found |= _stage_metrics(stage, self.tallies[stage])
        for stage in TAUGHT:
            found |= _rejected_metrics(stage, self.tallies[stage]) if self.tallies[stage].n_rejected else {}
        beside = {source: self.beside(source) for source in self.sources()}
        found["clean_n_added"] = self.n_added
        found["clean_n_dropped_beside_added"] = self.dropped.total()
        found["split_n_read"] = sum(map(self.divided, beside))
        found["split_n_on_no_side"] = -sum(n for n in beside.values() if n < 0)
        found["split_n_repeated"] = sum(n for n in beside.values() if n > 0)
        for side in SIDES:
            found[f"split_n_{side}"] = self.sides[side].total()
            found |= {f"split_n_{side}_from_{source}": self.sides[side][source] for source in beside}
        return found


def _by_count(tally: Tally) -> list[tuple[str, int]]:
    """Rules and the rows they rejected, the most first."""
    return sorted(tally.by_rule().items(), key=lambda item: (-item[1], item[0]))


def _on_the_way() -> Iterator[Stage]:
    """Stages that take rows from those read."""
    yield from (stage for stage in STAGES if stage not in TAUGHT)


def _stage_metrics(stage: Stage, tally: Tally) -> dict[str, int]:
    found = {f"{stage}_n_read": tally.n_kept + tally.n_rejected, f"{stage}_n_kept": tally.n_kept}
    found |= {f"{stage}_n_kept_from_{source}": n for source, n in tally.kept.items()}
    return found | _rejected_metrics(stage, tally)


def _rejected_metrics(stage: Stage, tally: Tally) -> dict[str, int]:
    found = {f"{stage}_n_rejected": tally.n_rejected}
    found |= {f"{stage}_n_rejected_by_{rule}": n for rule, n in tally.by_rule().items()}
    return found | {f"{stage}_n_rejected_from_{source}_by_{rule}": n for (source, rule), n in tally.rejected.items()}
