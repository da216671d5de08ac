"""Progress of work in batches, on stderr: a bar with rate and time left in a terminal, lines in a pipe."""

import sys
from collections.abc import Iterator, Sequence
from time import monotonic
from typing import TypeVar

PLAIN_INTERVAL_S = 10.0

Item = TypeVar("Item")


def in_batches(items: Sequence[Item], batch_size: int, what: str) -> Iterator[Sequence[Item]]:
    """`items` in slices of at most `batch_size`; a slice counts as done when the next one is asked for."""
    batches = [items[start : start + batch_size] for start in range(0, len(items), batch_size)]
    show = _with_bar if sys.stderr.isatty() else _with_lines
    return show(batches, what, len(items))


def _with_bar(batches: Sequence[Sequence[Item]], what: str, n_total: int) -> Iterator[Sequence[Item]]:
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    rate = TextColumn("{task.fields[rate]}")
    columns = [TextColumn(what), BarColumn(), MofNCompleteColumn(), rate, TimeRemainingColumn()]
    started = monotonic()
    with Progress(*columns, console=Console(stderr=True)) as bar:
        task = bar.add_task(what, total=n_total, rate="")
        n_done = 0
        for batch in batches:
            yield batch
            n_done += len(batch)
            bar.update(task, completed=n_done, rate=_rate(n_done, started))


def _with_lines(batches: Sequence[Sequence[Item]], what: str, n_total: int) -> Iterator[Sequence[Item]]:
    started = said = monotonic()
    n_done = 0
    for batch in batches:
        yield batch
        n_done += len(batch)
        if n_done == n_total or monotonic() - said > PLAIN_INTERVAL_S:
            said = monotonic()
            print(f"{what}: {n_done} of {n_total}, {_rate(n_done, started)}", file=sys.stderr, flush=True)


def _rate(n_done: int, started: float) -> str:
    return f"{n_done / max(monotonic() - started, 1e-3):.1f} examples/s"
