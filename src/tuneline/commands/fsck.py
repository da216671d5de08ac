"""`tuneline fsck`, `make fsck`: read every byte that has a recorded hash, and name what is damaged."""

import argparse
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from dvc.repo import Repo  # type: ignore[import-untyped]  # DVC ships no types
from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TimeRemainingColumn, TransferSpeedColumn

from tuneline.errors import DataError
from tuneline.upkeep.reading import File, read_all, sum_bytes
from tuneline.upkeep.rot import problems, recorded, unverified_remotes, wanted

PLAIN_INTERVAL_S = 10.0


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--checkpoints", type=Path, default=Path(".checkpoints"), help="(.checkpoints)")


def execute(arguments: argparse.Namespace) -> None:
    """Raises `DataError` when anything is damaged, after naming all of it."""
    with Repo() as repo:
        records, found = recorded(repo, arguments.checkpoints)
        remarks = unverified_remotes(repo)
    files = wanted(records)
    started = time.monotonic()
    _show(files.all())
    seconds = time.monotonic() - started
    found += [line for record in records for line in problems(record, files)]
    print("\n".join([*found, *remarks]), end="\n" if found or remarks else "")
    n_bytes = sum_bytes(files.all())
    read = f"{len(files.all()):,} files, {n_bytes / 2**20:,.1f} MiB, {n_bytes / 2**20 / max(seconds, 1e-9):,.0f} MiB/s"
    if found:
        raise DataError(f"{len(found)} damaged, of {read}")
    print(f"{read}: all as recorded")


def _show(files: list[File]) -> None:
    total = sum_bytes(files)
    if not sys.stderr.isatty():
        _say(read_all(files), total)
        return
    columns = [BarColumn(), DownloadColumn(), TransferSpeedColumn(), TimeRemainingColumn()]
    with Progress(*columns, console=Console(stderr=True)) as progress:
        task = progress.add_task("", total=total)
        for n_bytes in read_all(files):
            progress.advance(task, n_bytes)


def _say(steps: Iterator[int], total: int) -> None:
    said, n_read = time.monotonic(), 0
    for n_bytes in steps:
        n_read += n_bytes
        if time.monotonic() - said > PLAIN_INTERVAL_S:
            said = time.monotonic()
            print(f"fsck: {n_read / 2**20:,.0f} of {total / 2**20:,.0f} MiB", file=sys.stderr, flush=True)
