"""`tuneline outputs`, around `dvc repro`: fail for outputs that the cache lacks, and frozen ones that changed."""

import argparse

from dvc.repo import Repo  # type: ignore[import-untyped]  # DVC ships no types

from tuneline.errors import EnvironmentProblem
from tuneline.upkeep.storing import changed_frozen, not_stored


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--frozen", action="store_true", help="only whether frozen ones are as committed, before a run")


def execute(arguments: argparse.Namespace) -> None:
    """Say nothing when all is well. Raises `EnvironmentProblem`, after a line for each output that is missing."""
    with Repo() as repo:
        changed = list(changed_frozen(repo))
        lost = [] if arguments.frozen else list(not_stored(repo))
    print("".join(f"{line}\n" for line in (*changed, *lost)), end="")
    if changed:
        raise EnvironmentProblem(
            f"{len(changed)} files of frozen stages are not as committed; bring them back, or commit them "
            "where they are meant"
        )
    if lost:
        raise EnvironmentProblem(
            f"{len(lost)} outputs are not in DVC's cache: was the disk full? Make room (`tuneline clean`, "
            "`dvc gc --workspace`), then `dvc commit -f` and `make repro`"
        )
