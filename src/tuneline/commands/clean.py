"""`tuneline clean`: what killed processes left on the disk, and its removal."""

import argparse
from pathlib import Path

from dvc.repo import Repo  # type: ignore[import-untyped]  # DVC ships no types

from tuneline.upkeep.leftovers import Leftover, leftovers, remove

MIB = 2**20


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--checkpoints", type=Path, default=Path(".checkpoints"), help="(.checkpoints)")
    parser.add_argument("--remove", action="store_true", help="remove what is shown, except what a process holds")


def execute(arguments: argparse.Namespace) -> None:
    """Show every leftover with its size; remove when asked to."""
    with Repo() as repo:
        found = leftovers(repo, arguments.checkpoints)
    removed = [one for one in found if arguments.remove and remove(one)]
    for one in found:
        print(_line(one, one in removed))
    n_bytes = sum(one.n_bytes for one in (removed if arguments.remove else found))
    print(f"{_sum(removed, n_bytes)} removed" if arguments.remove else _left(found, n_bytes))


def _line(one: Leftover, removed: bool) -> str:
    state = "removed" if removed else "kept" if one.held else "left"
    return f"{state:<7}  {one.n_bytes / MIB:10,.1f} MiB  {one.path}  {one.what}" + (f"; {one.held}" if one.held else "")


def _left(found: list[Leftover], n_bytes: int) -> str:
    if not found:
        return "nothing is left over"
    return f"{_sum(found, n_bytes)}; `tuneline clean --remove` removes what no process holds"


def _sum(found: list[Leftover], n_bytes: int) -> str:
    return f"{len(found)} leftovers, {n_bytes / MIB:,.1f} MiB"
