"""What every task says about one answer."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True, slots=True)
class Score:
    """One answer judged. `execution_match` is None for a task that executes nothing."""

    exact_match: bool
    execution_match: bool | None
    error: str | None  # "kind: detail" when the answer could not be executed

    @property
    def is_correct(self) -> bool:
        """By the task's own standard: execution where there is one, otherwise the text."""
        return self.exact_match if self.execution_match is None else self.execution_match

    @property
    def outcome(self) -> str:
        """A word to count by: `correct`, the kind of error, or what is wrong with an answer that ran."""
        if self.is_correct:
            return "correct"
        if self.error is not None:
            return self.error.partition(":")[0]
        return "wrong text" if self.execution_match is None else "wrong result"


class Scorer(Protocol):
    """Judges answers to the examples it was made for; making one checks what they expect."""

    def score(self, predictions: Sequence[str]) -> list[Score]: ...
