"""Progress over rows, on stderr: a bar with time left in a terminal, plain lines with the rate in a pipe."""

import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from time import monotonic
from typing import TypeVar

_PLAIN_INTERVAL_S = 10.0
_ROWS_PER_LOOK_AT_THE_CLOCK = 16  # at every row it would cost more than some rules do

Item = TypeVar("Item")


def watched(rows: Iterable[Item], what: str, n_total: int | None) -> Iterator[Item]:
    """The same rows; `n_total` None: unknown, so rate without time left."""
    return _with_bar(rows, what, n_total) if sys.stderr.isatty() else _with_lines(rows, what)


def n_lines(path: Path) -> int | None:
    """How many rows there are to watch; None where the file cannot be read, of which its reader will tell."""
    try:
        with path.open("rb") as file:
            return sum(1 for _ in file)
    except OSError:
        return None


def _with_bar(rows: Iterable[Item], what: str, n_total: int | None) -> Iterator[Item]:
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = [
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("rows"),
        TimeRemainingColumn(),
    ]
    with Progress(*columns, console=Console(stderr=True)) as progress:
        yield from progress.track(rows, total=n_total, description=what)


def _with_lines(rows: Iterable[Item], what: str) -> Iterator[Item]:
    started = said = monotonic()
    n_rows = 0
    for n_rows, row in enumerate(rows, 1):
        yield row
        if n_rows % _ROWS_PER_LOOK_AT_THE_CLOCK == 0 and (now := monotonic()) - said > _PLAIN_INTERVAL_S:
            said = now
            _say(what, n_rows, now - started)
    _say(what, n_rows, monotonic() - started)


def _say(what: str, n_rows: int, seconds: float) -> None:
    rate = f", {n_rows / seconds:,.0f} rows/s" if seconds > 0.1 else ""
    print(f"{what}: {n_rows:,} rows in {seconds:.1f} s{rate}", file=sys.stderr, flush=True)
