"""The cleaning rules in their order. A rule is a pure function, a section of conf/clean and a counter.

To add one: its function in a module of this room, its section (`settings.Cleaning`, the schema, conf/clean),
and its line in `_row_rules` or `_set_rules`. Nothing else knows the rules by name.
"""

from collections import Counter
from collections.abc import Callable, Container, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial

from tuneline.data.dedup import exact_duplicates, near_duplicates
from tuneline.data.encoding import encoding_problem
from tuneline.data.lengths import empty_problem, length_problem
from tuneline.data.pii import KINDS, Redacted, redact_example
from tuneline.data.records import Example, Rejected, as_json
from tuneline.data.refusals import refusal_problem
from tuneline.data.settings import Cleaning, Length, Pii, Source, Switch
from tuneline.errors import DataError

RowRule = Callable[[Example], str | Redacted | None]  # a reason to reject, a changed row, or None: nothing found
SetRule = Callable[[Sequence[Example]], Mapping[int, str]]  # index -> reason, for rows that others make superfluous


@dataclass(slots=True)
class Cleaned:
    """What came out, ordered by source, then line."""

    examples: list[Example] = field(default_factory=list)
    rejected: list[Rejected] = field(default_factory=list)
    n_redacted_rows: int = 0  # also of rows that turned out to be copies then
    n_redactions: Counter[str] = field(default_factory=Counter)  # by kind

    def redaction_counts(self) -> dict[str, int | float]:
        """Rows that a redaction changed, and placeholders put in by kind, as metrics."""
        counts: dict[str, int | float] = {f"n_redacted_{kind}s": self.n_redactions[kind] for kind in KINDS}
        return counts | {"n_redacted_rows": self.n_redacted_rows}


def _row_rules(rules: Cleaning) -> list[tuple[str, Switch, RowRule]]:
    """Rules that look at one row, cheapest and most damning first; redaction last, on rows that will stay."""
    return [
        ("encoding", rules.encoding, encoding_problem),
        ("empties", rules.empties, empty_problem),
        ("length", rules.length, _length_rule(rules.length)),
        ("refusals", rules.refusals, refusal_problem),
        ("pii", rules.pii, _pii_rule(rules.pii)),
    ]


def _set_rules(rules: Cleaning) -> list[tuple[str, Switch, SetRule]]:
    """Rules that compare rows; after redaction, as rows that differ in an address only are copies."""
    return [
        ("exact_duplicates", rules.exact_duplicates, exact_duplicates),
        ("near_duplicates", rules.near_duplicates, near_duplicates),
    ]


def rule_names(rules: Cleaning) -> list[str]:
    """Every rule in its order, switched on or not."""
    return [name for name, _, _ in _row_rules(rules)] + [name for name, _, _ in _set_rules(rules)]


def clean(examples: Iterable[Example], sources: Sequence[Source], rules: Cleaning) -> Cleaned:
    """Apply the rules to the pool; of several copies the one with the smallest (source order, line) stays.

    Rows of test sources are held out as given: no rule touches them, so that any two ways to clean are scored on the
    same rows. A pool row with a test row's prompt stays here too; it is the split's business (contamination).
    """
    order = {source.name: number for number, source in enumerate(sources)}
    tests = {source.name for source in sources if source.role == "test"}
    cleaned = Cleaned()
    pool = _pool(_known(examples, order), tests, cleaned.examples)
    passed = _apply_row_rules(pool, _row_rules(rules), cleaned)
    passed.sort(key=lambda example: (order[example.source], example.line))
    cleaned.examples += _apply_set_rules(passed, _set_rules(rules), cleaned)
    cleaned.examples.sort(key=lambda example: (order[example.source], example.line))
    cleaned.rejected.sort(key=lambda row: (order[row.source], row.line))
    return cleaned


def _known(examples: Iterable[Example], names: Container[str]) -> Iterator[Example]:
    for example in examples:
        if example.source not in names:
            raise DataError(f"{example.source}:{example.line}: no such source in data.sources; run ingest again")
        yield example


def _pool(examples: Iterable[Example], tests: Container[str], held_out: list[Example]) -> Iterator[Example]:
    """The rows that are cleaned, one by one for the progress bar; those of test sources go to `held_out`."""
    for example in examples:
        if example.source in tests:
            held_out.append(example)
        else:
            yield example


def _apply_row_rules(
    examples: Iterable[Example], rules: Sequence[tuple[str, Switch, RowRule]], cleaned: Cleaned
) -> list[Example]:
    enabled = [(name, rule) for name, switch, rule in rules if switch.enabled]
    passed = []
    for read in examples:
        example = read
        for name, rule in enabled:
            found = rule(example)
            if isinstance(found, str):
                cleaned.rejected.append(_rejected(read, name, found))
                break
            if found is not None:
                example = found.example
                cleaned.n_redacted_rows += 1
                cleaned.n_redactions.update(found.counts)
        else:
            passed.append(example)
    return passed


def _apply_set_rules(
    examples: list[Example], rules: Sequence[tuple[str, Switch, SetRule]], cleaned: Cleaned
) -> list[Example]:
    for name, switch, rule in rules:
        if switch.enabled:
            found = rule(examples)
            cleaned.rejected += [_rejected(examples[index], name, reason) for index, reason in found.items()]
            examples = [example for index, example in enumerate(examples) if index not in found]
    return examples


def _length_rule(limits: Length) -> RowRule:
    return partial(length_problem, min_chars=limits.min_chars, max_chars=limits.max_chars)


def _pii_rule(pii: Pii) -> RowRule:
    match pii.action:
        case "redact":
            return redact_example
        case "drop":
            return _pii_problem


def _pii_problem(example: Example) -> str | None:
    found = redact_example(example)
    return None if found is None else "holds " + " and ".join(f"{n} {kind}" for kind, n in found.counts.items() if n)


def _rejected(example: Example, rule: str, reason: str) -> Rejected:
    return Rejected(example.source, example.line, "clean", rule, reason, as_json(example))
