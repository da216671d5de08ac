"""What the rows of a split came to: those to train on, those left out, and whether that will do."""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

from tuneline.config.schema import Objective
from tuneline.data.record_files import as_line, rejected_as_json
from tuneline.data.records import ExampleKind, Rejected
from tuneline.errors import BudgetError, DataError
from tuneline.training.tokens import TokenRow, write_pieces

N_FIRST = 3  # rows that the preview shows
TOO_LONG = "too_long"
SPECIAL_TOKEN = "special_token"  # noqa: S105  (the name of a rule)
TOOLS = "tools"
KINDS: Mapping[ExampleKind, str] = {  # what rows of a kind are called, and what takes them
    "conversation": "conversations (sft)",
    "text": "raw texts (pretrain)",
    "preference": "preference pairs (a preference objective, such as DPO)",
    "labelled": "labelled answers (KTO)",
    "prompt": "prompts without an answer (online objectives, which let the model answer)",
}


@dataclass(frozen=True, slots=True)
class Tokenized:
    """Rows to train on, and those left out with the reason; every example of the objective is in one of the two.

    Examples of other kinds are counted only: they lie in the split's own file.
    """

    rows: list[TokenRow] = field(default_factory=list)
    left_out: list[Rejected] = field(default_factory=list)
    unused: Counter[ExampleKind] = field(default_factory=Counter)

    @property
    def counts(self) -> "Counts":
        """What its rows come to."""
        counts = Counts()
        counts.add(self)
        return counts


@dataclass(slots=True)
class Counts:
    """What the rows of a split come to, gathered piece by piece: no row but the first ones stays in memory."""

    first: list[TokenRow] = field(default_factory=list)  # N_FIRST at most
    lengths: Counter[int] = field(default_factory=Counter)  # rows by their number of tokens
    n_targets: int = 0
    kept: set[str] = field(default_factory=set)  # ids of the examples
    left_out: Counter[str] = field(default_factory=Counter)  # examples by rule
    first_left_out: Rejected | None = None
    unused: Counter[ExampleKind] = field(default_factory=Counter)

    def add(self, piece: Tokenized) -> None:
        """Take in more rows of the split."""
        self.first += piece.rows[: N_FIRST - len(self.first)]
        self.lengths.update(len(row.input_ids) for row in piece.rows)
        self.n_targets += sum(row.n_targets for row in piece.rows)
        self.kept.update(row.id.partition("#")[0] for row in piece.rows)
        self.left_out.update(row.rule for row in piece.left_out)
        self.first_left_out = self.first_left_out or next(iter(piece.left_out), None)
        self.unused.update(piece.unused)

    @property
    def n_rows(self) -> int:
        return self.lengths.total()

    @property
    def truncated_fraction(self) -> float:
        """Share of the examples that would have lost tokens to the length limit."""
        return self.left_out[TOO_LONG] / self._n_examples

    @property
    def left_out_fraction(self) -> float:
        """Share of the examples that are not trained on, whatever the reason."""
        return self.left_out.total() / self._n_examples

    @property
    def _n_examples(self) -> int:
        """At least 1, to divide by."""
        return max(1, len(self.kept) + self.left_out.total())


def used_kind(objective: Objective) -> ExampleKind:
    """The kind of rows that the objective trains on."""
    match objective:
        case "sft":
            return "conversation"
        case "pretrain":
            return "text"


def check_left_out(counts: Counts, split: str, max_length_tokens: int, allowed_fraction: float) -> None:
    """Raise `BudgetError` when more rows than allowed are not trained on."""
    fraction, first = counts.left_out_fraction, counts.first_left_out
    if first is not None and fraction > allowed_fraction:
        raise BudgetError(
            f"train.max_truncated_fraction: {fraction:.3g} of the {split} rows are left out "
            f"({counts.left_out[TOO_LONG]} longer than max_length {max_length_tokens}, "
            f"{counts.left_out[SPECIAL_TOKEN]} spelling a special token, {counts.left_out[TOOLS]} with tools "
            f"that the chat template does not show), allowed is {allowed_fraction:g}; first: "
            f"{first.source}:{first.line} ({first.reason}); raise the phase's max_length, shorten the rows "
            "(clean.length.max_chars), take such tokens out of the data, or allow more to be left out"
        )


def check_rows(counts: Counts, objective: Objective, splits: Path) -> None:
    """Raise `DataError` when there is nothing to train on."""
    if not counts.n_rows:
        raise DataError(
            f"{splits}/train.jsonl: no row to train on: objective {objective} takes rows of kind "
            f"{used_kind(objective)}; found: {_found(counts)}; choose data with such rows, or another recipe"
        )


def _found(counts: Counts) -> str:
    found = [f"{counts.left_out.total()} that were left out"] if counts.left_out else []
    found += [f"{n} {KINDS[kind]}" for kind, n in sorted(counts.unused.items())]
    return ", ".join(found) or "no row at all"


def write_split(path: Path, left_out: BinaryIO, pieces: Iterable[Tokenized]) -> Counts:
    """Write the rows to train on as `write_tokens` does and those left out as lines; say what they come to."""
    counts = Counts()

    def written() -> Iterator[list[TokenRow]]:
        for piece in pieces:
            counts.add(piece)
            left_out.writelines(as_line(rejected_as_json(row)) for row in piece.left_out)
            yield piece.rows

    write_pieces(path, written())
    return counts
