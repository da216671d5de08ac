"""kill -9 inside a stage: what it declares is absent or whole, and the next run is as if nothing had been."""

import random
import signal

import pytest

from tests.faults.conftest import DATA_STAGES, Copy
from tests.faults.project import Project

MODEL_STAGES = ("merge", "convert", "quantize@q8_0", "package", "parity")
STOPWATCH = "STARTED"  # a file that a stage's first file operation writes


def killed_at(project: Project, stage: str, number: int) -> None:
    """Kill the stage before its file operation of that number."""
    project.remove_outputs(stage)
    ran = project.run(stage, KILL_AT=str(number))
    assert ran.returncode in (-signal.SIGKILL, 128 + signal.SIGKILL), f"{number} operations?\n{ran.stdout}"


def assert_absent_or_whole(project: Project, stage: str, clean: Project, when: str) -> None:
    """Each output that a dead run left is, byte for byte, that of a run without a fault; a folder as a whole."""
    for out in project.stages[stage].outs:
        found, wanted = (each.outputs_of(out) for each in (project, clean))
        assert found in ({}, wanted), f"{stage} killed {when}: {out}"


def assert_as_if_nothing_had_been(project: Project, stage: str, clean: Project, when: str) -> None:
    project.remove_outputs(stage)
    project.succeed(stage)
    assert project.outputs(stage) == clean.outputs(stage), f"{stage} after a kill {when}"
    assert project.names() == clean.names(), f"{stage} after a kill {when}"


def kill_everywhere(stage: str, clean: Project, project: Project, draw: random.Random, n_kills: int) -> None:
    """Before `n_kills` of the stage's file operations, drawn among those of a run without a fault."""
    project.remove_outputs(stage)
    operations = project.file_operations(stage, project.folder.parent / f"operations of {stage}")
    for number in sorted(draw.sample(range(1, len(operations) + 1), min(n_kills, len(operations)))):
        when = f"before {operations[number - 1]} ({number} of {len(operations)})"
        killed_at(project, stage, number)
        assert_absent_or_whole(project, stage, clean, when)
        assert_as_if_nothing_had_been(project, stage, clean, when)


@pytest.mark.slow
@pytest.mark.parametrize("stage", ["ingest", "clean", "split"])
def test_a_data_stage_killed_at_two_file_operations(
    stage: str, data_project: Project, copy: Copy, draw: random.Random
) -> None:
    kill_everywhere(stage, data_project, copy(data_project), draw, 2)


@pytest.mark.faults
@pytest.mark.parametrize("stage", DATA_STAGES)
def test_a_data_stage_killed_at_any_file_operation(
    stage: str, data_project: Project, copy: Copy, draw: random.Random
) -> None:
    kill_everywhere(stage, data_project, copy(data_project), draw, 16)


@pytest.mark.faults
@pytest.mark.parametrize("stage", MODEL_STAGES)
def test_a_model_stage_killed_at_any_file_operation(
    stage: str, whole_project: Project, copy: Copy, draw: random.Random
) -> None:
    kill_everywhere(stage, whole_project, copy(whole_project), draw, 3)
