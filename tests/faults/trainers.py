"""Trainers by request, and what must hold of one that starts again."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.faults.forks import Forks
from tests.faults.project import Project

NO_FAULT: list[Any] = []
N_STEPS, N_MICRO_BATCHES = 12, 24  # of the small training (project.SMALL)
Prepare = Callable[..., tuple[Project, dict[str, bytes]]]


class Trainers:
    """Runs the train stage of a project, in forks."""

    def __init__(self, forks: Forks) -> None:
        self._forks = forks

    def train(self, project: Project, fault: list[Any]) -> tuple[int, str]:
        """Exit code (negative: the signal that ended it), and what it said."""
        ran = project.forking(self._forks).run("train@sft", fault)
        return ran.returncode, ran.stdout


def forget(project: Project) -> None:
    project.remove_outputs("train@sft")
    shutil.rmtree(project.folder / ".checkpoints", ignore_errors=True)


def checkpoints(project: Project) -> list[Path]:
    found = (project.folder / ".checkpoints").glob("*/checkpoint-*")
    return sorted(found, key=lambda path: int(path.name.removeprefix("checkpoint-")))


def assert_ends_as_if_never_killed(
    project: Project, whole: dict[str, bytes], trainers: Trainers, said_too: str = "", fault: list[Any] = NO_FAULT
) -> None:
    code, said = trainers.train(project, fault)
    assert code == 0, said
    assert said_too in said
    found = project.outputs("train@sft")
    assert found.keys() == whole.keys()
    other = [name for name in whole if found[name] != whole[name]]
    assert other == [], other  # said here: pytest does not rewrite this module
    assert list((project.folder / ".checkpoints").iterdir()) == []
