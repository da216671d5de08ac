"""The answer is right when it is the expected text, apart from white space."""

from collections.abc import Sequence
from dataclasses import dataclass

from tuneline.evaluation.tasks.scoring import Score


@dataclass(frozen=True, slots=True)
class ExactMatchScorer:
    """Compares with `expected`, one per example."""

    expected: Sequence[str]

    def score(self, predictions: Sequence[str]) -> list[Score]:
        pairs = zip(self.expected, predictions, strict=True)
        return [Score(folded(expected) == folded(predicted), None, None) for expected, predicted in pairs]


def folded(text: str) -> str:
    """Every run of white space as one space, none at the ends."""
    return " ".join(text.split())
