"""What a cleaning rule says of a row."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias

from tuneline.data.records import Example


@dataclass(frozen=True, slots=True)
class Changed:
    """An example that the rule mended, and what it did."""

    example: Example
    counts: Mapping[str, int]  # by kind ("email": 2), for the metrics; the rule's kinds are listed in `cleaning`


Finding: TypeAlias = str | Changed | None  # why the row goes; the row as it stays; None: nothing to say
RowRule: TypeAlias = Callable[[Example], Finding]
Rule: TypeAlias = Callable[[Sequence[Example]], Sequence[Finding]]  # one finding per example, in their order


def each(rule: RowRule) -> Rule:
    """A rule that looks at one row, as a rule on many."""
    return lambda examples: [rule(example) for example in examples]
