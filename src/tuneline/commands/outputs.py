"""`tuneline outputs`, after `dvc repro` in `make repro`: fail when an output of a stage is not in DVC's cache."""

import argparse

from dvc.repo import Repo  # type: ignore[import-untyped]  # DVC ships no types

from tuneline.errors import EnvironmentProblem
from tuneline.upkeep.storing import not_stored


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """None."""


def execute(arguments: argparse.Namespace) -> None:
    """Say nothing when all is well. Raises `EnvironmentProblem`, after a line for each output that is missing."""
    with Repo() as repo:
        lines = list(not_stored(repo))
    if lines:
        print("\n".join(lines))
        raise EnvironmentProblem(
            f"{len(lines)} outputs are not in DVC's cache: was the disk full? Make room (`tuneline clean`, "
            "`dvc gc --workspace`), then `dvc commit -f` and `make repro`"
        )
