"""The cleaning rules that look at one row, in their order.

A rule is a pure function, a section of conf/clean and a counter. To add one: its function in a module of this room,
its section (the schema, conf/clean), and its line in `row_rules`. Nothing else knows the rules by name.
"""

from collections.abc import Callable, Sequence
from functools import cache, partial

from tuneline.config.schema import CleanConfig
from tuneline.data.accounting import Tally
from tuneline.data.encoding import encoding_rule
from tuneline.data.finding import Changed, Rule
from tuneline.data.language import language_rule
from tuneline.data.length_rules import empties_rule, length_rule
from tuneline.data.pii import PII_KINDS, pii_rule
from tuneline.data.record_files import as_line, example_of
from tuneline.data.records import Example, Rejected, as_json, rejection
from tuneline.data.refusals import refusals_rule
from tuneline.data.repetition import repetition_rule
from tuneline.data.special_tokens import special_tokens_rule
from tuneline.data.toxicity import toxicity_rule
from tuneline.data.whitespace import whitespace_rule

CHANGES = ("encoding_repaired", "whitespace_tidied", *PII_KINDS)  # what rules that mend rows count


def row_rules(rules: CleanConfig) -> list[tuple[str, bool, Callable[[], Rule]]]:
    """Rules that look at one row: name, switch and maker, those that mend texts before those that judge them.

    Redaction comes last, on rows that will stay; rules that compare rows follow, as rows that differ in an address
    only are copies.
    """
    return [
        ("encoding", rules.encoding.enabled, partial(encoding_rule, rules.encoding)),
        ("whitespace", rules.whitespace.enabled, whitespace_rule),
        ("empties", rules.empties.enabled, empties_rule),
        ("length", rules.length.enabled, partial(length_rule, rules.length)),
        ("special_tokens", rules.special_tokens.enabled, partial(special_tokens_rule, rules.special_tokens)),
        ("refusals", rules.refusals.enabled, refusals_rule),
        ("language", rules.language.enabled, partial(language_rule, rules.language)),
        ("toxicity", rules.toxicity.enabled, partial(toxicity_rule, rules.toxicity)),
        ("repetition", rules.repetition.enabled, partial(repetition_rule, rules.repetition)),
        ("pii", rules.pii.enabled, partial(pii_rule, rules.pii)),
    ]


@cache
def enabled_rules(rules: CleanConfig) -> tuple[tuple[str, Rule], ...]:
    """The rules that look at one row, made once per process: some load a model or a lexicon."""
    return tuple((name, make()) for name, enabled, make in row_rules(rules) if enabled)


class CleanedRows:
    """Some rows on their way through the rules: each is in `kept` or in `rejected` in the end."""

    def __init__(self, lines: Sequence[bytes], place: str) -> None:
        """`lines` as a stage wrote them; `place` names their file. Raises `DataError` for one that is no example."""
        self._lines = lines
        self._read = [example_of(line, place) for line in lines]
        self.kept: dict[int, Example] = dict(enumerate(self._read))  # by place among the rows, ascending
        self.rejected: dict[int, Rejected] = {}  # as read, whatever a rule changed before
        self.tally = Tally()  # of what was rejected and changed

    def apply(self, rules: CleanConfig, held_out: frozenset[str]) -> None:
        """Apply every enabled rule; rows of held-out sources pass untouched."""
        numbers = [number for number, example in self.kept.items() if example.source not in held_out]
        for name, rule in enabled_rules(rules):
            findings = rule([self.kept[number] for number in numbers])
            for number, finding in zip(numbers, findings, strict=True):
                match finding:
                    case Changed(example, counts):
                        self.kept[number] = example
                        self.tally.changed.update(counts)
                    case str(reason):
                        self._reject(number, name, reason)
            numbers = [number for number in numbers if number in self.kept]

    def line(self, number: int) -> bytes:
        """A kept row as a line of a file: the very line that was read, unless a rule changed the row."""
        example = self.kept[number]
        return self._lines[number] if example is self._read[number] else as_line(as_json(example))

    def _reject(self, number: int, rule: str, reason: str) -> None:
        del self.kept[number]
        self.rejected[number] = rejection(self._read[number], "clean", rule, reason)
        self.tally.reject(self.rejected[number])
