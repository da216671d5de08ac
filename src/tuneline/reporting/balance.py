"""What rows teach, by source and side: kinds, labels, and answers where they are from a short list."""

from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence

from tuneline.data.records import Example
from tuneline.reporting.showing import SHOWN_CHARS, shown

MAX_ANSWERS = 20  # a source with more different answers is no classification
_LEAST_ROWS_PER_ANSWER = 2  # a handful of rows has few answers whatever it teaches


class Balance:
    """Rows by kind, label and answer."""

    def __init__(self) -> None:
        self._counts: defaultdict[tuple[str, str, str], Counter[str]] = defaultdict(Counter)
        self._answers: defaultdict[str, dict[str, Counter[str]]] = defaultdict(dict)  # source, answer -> rows by side
        self._open: set[str] = set()  # sources with too many answers, or long ones, whose answers are forgotten

    def add(self, side: str, example: Example) -> None:
        self._counts[example.source, "kind", example.kind][side] += 1
        if example.label is not None:
            label = "desirable" if example.label else "undesirable"
            self._counts[example.source, "label", label][side] += 1
        if example.kind == "conversation" and example.source not in self._open:
            self._add_answer(side, example)

    def rows(self, sides: Sequence[str]) -> Iterator[list[str | int]]:
        """[source, kind | label | answer, value, "source: value", rows of each side ...], the most frequent first."""
        counts = self._counts | self._closed_answers()
        order = {"kind": 0, "label": 1, "answer": 2}
        for key in sorted(counts, key=lambda key: (key[0], order[key[1]], -counts[key].total(), key[2])):
            source, _, value = key
            yield [*key, f"{source}: {value}", *(counts[key][side] for side in sides)]

    def _closed_answers(self) -> dict[tuple[str, str, str], Counter[str]]:
        counts: defaultdict[tuple[str, str, str], Counter[str]] = defaultdict(Counter)
        for source, answers in self._answers.items():
            if sum(found.total() for found in answers.values()) >= _LEAST_ROWS_PER_ANSWER * len(answers):
                for answer, found in answers.items():
                    counts[source, "answer", shown(answer)] += found  # two that differ in an address are one here
        return counts

    def _add_answer(self, side: str, example: Example) -> None:
        answers = self._answers[example.source]
        answer = example.messages[-1].content
        answers.setdefault(answer, Counter())[side] += 1
        if len(answers) > MAX_ANSWERS or len(answer) > SHOWN_CHARS:
            self._open.add(example.source)
            del self._answers[example.source]
