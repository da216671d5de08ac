"""Files of examples cleaned, part by part in several processes: rules on single rows first, then those on copies.

The parts, and with them every byte that comes out, depend on the files alone: not on the engine or the number of
processes. Memory grows by about 80 bytes a row and 50 a copy,
whatever the rows' size; and by what comparing needs of the largest group of rows that share much text (near_copies).
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from pathlib import Path

from tuneline.config.schema import CleanConfig, SourceConfig
from tuneline.data.accounting import Check, Tally
from tuneline.data.comparing import SET_RULES, find_copies
from tuneline.data.engines import engine
from tuneline.data.parallel import line_ranges
from tuneline.data.parts import CleanedPart, Work, clean_part
from tuneline.data.row_rules import CHANGES, row_rules
from tuneline.data.writing import CleanOutputs, write_parts
from tuneline.output import scratch_folder

HELD_OUT_ROLES = ("test", "benchmark")  # any two ways to clean are scored on the same rows
_PART_BYTES = 2**21  # small enough that the last parts end together, large enough for the rules' arrays

Watched = Callable[[Iterable[int]], Iterable[int]]


def rule_names(rules: CleanConfig) -> list[str]:
    """Every rule in its order, switched on or not."""
    return [name for name, _, _ in row_rules(rules)] + list(SET_RULES)


def clean_within_limit(
    examples: Sequence[Path],
    outputs: CleanOutputs,
    sources: Sequence[SourceConfig],
    rules: CleanConfig,
    watched: Watched,
) -> dict[str, int | float]:
    """`clean_files`, and its counts as metrics. Raises `DataError` when more rows go than the rules allow."""

    def check(tally: Tally) -> None:
        tally.check(rules.max_rejected_fraction, "clean.max_rejected_fraction", outputs.rejected)

    tally = clean_files(examples, outputs, sources, rules, watched, check)
    return tally.metrics(rule_names(rules), sources) | tally.changed_metrics(CHANGES)


def clean_files(
    examples: Sequence[Path],
    outputs: CleanOutputs,
    sources: Sequence[SourceConfig],
    rules: CleanConfig,
    watched: Watched,
    check: Check,
) -> Tally:
    """Apply the rules to the pool's rows, which keep their order, as if the files were one.

    `watched` gets an item per row done. `check` sees the counts before the examples' file appears, and may raise.

    Rows of test and benchmark sources are held out as given: no rule touches them. A pool row with a test row's
    prompt stays here too; it is the split's business (contamination).
    """
    names = tuple(source.name for source in sources)
    held_out = frozenset(source.name for source in sources if source.role in HELD_OUT_ROLES)
    with scratch_folder(outputs.examples) as folder, engine(rules.engine, rules.workers) as ordered:
        ranges = enumerate(part for path in examples for part in line_ranges(path, _PART_BYTES))
        cleaned = ordered(partial(clean_part, Work(rules, names, held_out, folder)), ranges)
        parts: list[CleanedPart] = []
        for _ in watched(_rows(cleaned, parts)):
            pass
        return write_parts(parts, find_copies(parts, rules, ordered), outputs, check, ordered)


def _rows(cleaned: Iterable[CleanedPart], parts: list[CleanedPart]) -> Iterator[int]:
    """An item per row of each part that is done, which goes to `parts`."""
    for part in cleaned:
        parts.append(part)
        yield from range(len(part.number) + len(part.rejected_number))
