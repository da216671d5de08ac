"""`tuneline queue`: what became of every queued experiment, and failed ones put back."""

import argparse

from dvc.repo import Repo  # type: ignore[import-untyped]  # DVC ships no types

from tuneline.errors import ConfigError
from tuneline.upkeep.queue import Experiment, choose, experiments, hindrance, living_workers, requeue


def add_arguments(parser: argparse.ArgumentParser) -> None:
    actions = parser.add_subparsers(metavar="ACTION", required=True, dest="action")
    actions.add_parser("status", help="every queued experiment: its state, why it failed, and the way on")
    again = actions.add_parser("requeue", help="let failed experiments go on, from their checkpoints")
    again.add_argument("names", nargs="*", metavar="NAME", help="as `tuneline queue status` shows it")
    again.add_argument("--failed", action="store_true", help="all that failed")


def execute(arguments: argparse.Namespace) -> None:
    """Print the account, or put failed experiments back."""
    with Repo() as repo:
        match arguments.action:
            case "status":
                lines = [*account(experiments(repo)), *hindrance(repo)]
            case "requeue":
                lines = _requeue(repo, arguments.names, arguments.failed)
        n_workers = len(living_workers(repo.experiments.celery_queue))
    print("\n".join([*lines, f"{n_workers} workers live; `dvc queue start -j N` makes them N"]))


def _requeue(repo: Repo, names: list[str], failed: bool) -> list[str]:
    if failed == bool(names):
        raise ConfigError("tuneline queue requeue: give the names of experiments, or --failed")
    found = experiments(repo)
    chosen = choose(found, [one.name for one in found if one.state == "failed"] if failed else names)
    requeue(repo, chosen)
    return [f"waiting again: {', '.join(one.name for one in chosen) or 'none'}"]


def account(found: list[Experiment]) -> list[str]:
    """The sum, a line for each experiment, and the way on for those that failed."""
    states = ("succeeded", "failed", "waiting", "running")
    total = " + ".join(f"{sum(one.state == state for one in found)} {state}" for state in states)
    width = max((len(one.name) for one in found), default=0)
    lines = [f"{one.state:<9}  {one.name:<{width}}  {one.reason}".rstrip() for one in found]
    way_on = [
        "`tuneline queue requeue NAME` (or --failed) lets a failed one go on from its checkpoints;",
        "`dvc queue logs NAME` shows what it printed",
    ]
    return [f"{len(found)} queued = {total}", *lines, *(way_on if any(one.state == "failed" for one in found) else [])]
