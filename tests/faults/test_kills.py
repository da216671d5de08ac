"""kill -9 inside a stage: what it declares is absent or whole, and the next run is as if nothing had been."""

import os
import random
import signal
import time
from contextlib import suppress
from pathlib import Path

import psutil  # type: ignore[import-untyped]  # ships no types
import pytest

from tests.faults.conftest import DATA_STAGES, Copy
from tests.faults.forks import Forks
from tests.faults.project import Project

MODEL_STAGES = ("merge", "convert", "quantize@q8_0", "package", "parity")


def killed_at(project: Project, stage: str, number: int) -> list[str]:
    """Kill the stage before its file operation of that number; returns them, with that one."""
    project.remove_outputs(stage)
    ran, operations = project.noted(stage, KILL_AT=str(number))
    assert ran.returncode in (-signal.SIGKILL, 128 + signal.SIGKILL), f"{number} operations?\n{ran.stdout}"
    return operations


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


def kill_everywhere(
    stage: str, clean: Project, project: Project, forks: Forks, draw: random.Random, n_kills: int
) -> None:
    """Before `n_kills` of the stage's file operations, drawn among those of a run without a fault.

    That one, and the first that is killed, are processes of their own; the others are forked, and seen to do the same.
    """
    project.remove_outputs(stage)
    operations = project.file_operations(stage)
    forked = project.forking(forks)
    for nth, number in enumerate(draw.sample(range(1, len(operations) + 1), min(n_kills, len(operations)))):
        when = f"before {operations[number - 1]} ({number} of {len(operations)})"
        assert killed_at(forked if nth else project, stage, number) == operations[:number]
        assert_absent_or_whole(project, stage, clean, when)
        assert_as_if_nothing_had_been(forked, stage, clean, when)


@pytest.mark.slow
@pytest.mark.parametrize("stage", ["ingest", "clean", "split"])
def test_a_data_stage_killed_at_two_file_operations(
    stage: str, data_project: Project, copy: Copy, forks: Forks, draw: random.Random
) -> None:
    kill_everywhere(stage, data_project, copy(data_project), forks, draw, 2)


@pytest.mark.faults
@pytest.mark.parametrize("stage", DATA_STAGES)
def test_a_data_stage_killed_at_any_file_operation(
    stage: str, data_project: Project, copy: Copy, forks: Forks, draw: random.Random
) -> None:
    kill_everywhere(stage, data_project, copy(data_project), forks, draw, 16)


@pytest.mark.faults
@pytest.mark.parametrize("stage", MODEL_STAGES)
def test_a_model_stage_killed_at_any_file_operation(
    stage: str, whole_project: Project, copy: Copy, forks: Forks, draw: random.Random
) -> None:
    kill_everywhere(stage, whole_project, copy(whole_project), forks, draw, 3)


def living_in(folder: Path) -> list[psutil.Process]:
    """Processes that work in the folder."""
    found = []
    for process in psutil.process_iter():
        with suppress(psutil.Error, OSError):
            if process.status() != psutil.STATUS_ZOMBIE and Path(process.cwd()) == folder:
                found.append(process)
    return found


def assert_nobody_goes_on(project: Project, patience_s: float = 20) -> None:
    """Of the processes that the killed one had started; they get some seconds to notice."""
    deadline = time.monotonic() + patience_s
    while (left := living_in(project.folder)) and time.monotonic() < deadline:
        time.sleep(0.05)
    lines = [" ".join(process.cmdline()) for process in left]
    for process in left:
        process.kill()
    assert lines == []


def killed_while_others_work_for_it(project: Project, stage: str, n_others: int, delay_s: float) -> None:
    """kill -9 of the stage alone, some time after it has started that many other processes."""
    project.remove_outputs(stage)
    shell = project.start(stage)
    deadline = time.monotonic() + 300
    while len(living_in(project.folder)) <= n_others and time.monotonic() < deadline:
        time.sleep(0.005)
    time.sleep(delay_s)
    os.kill(shell.pid, signal.SIGKILL)  # the shell has become the stage
    shell.wait()  # not for the end of its output: who goes on behind it holds that
    assert shell.stdout is not None
    shell.stdout.close()


@pytest.mark.slow
def test_the_workers_of_a_killed_stage_end_with_it(large_project: Project, draw: random.Random) -> None:
    killed_while_others_work_for_it(large_project, "ingest", 3, draw.uniform(0, 0.5))
    assert_nobody_goes_on(large_project)
    large_project.succeed("ingest")
    assert {name for name in large_project.names() if "partial" in name} == set()


@pytest.mark.faults
def test_llama_cpps_converter_does_not_go_on_behind_a_killed_stage(
    whole_project: Project, copy: Copy, forks: Forks, draw: random.Random
) -> None:
    project = copy(whole_project)
    killed_while_others_work_for_it(project, "convert", 1, draw.uniform(0, 4))
    assert_nobody_goes_on(project)
    assert_absent_or_whole(project, "convert", whole_project, "while its converter ran")
    assert_as_if_nothing_had_been(project.forking(forks), "convert", whole_project, "while its converter ran")


def plant(project: Project, stage: str) -> None:
    """What any killed run could have left, spoilt, at every name that one gives."""
    for out in project.stages[stage].outs:
        path = project.folder / out
        for ending in ("partial", "previous", "scratch"):
            left = path.with_name(f".{path.name}.{ending}")
            left.parent.mkdir(parents=True, exist_ok=True)
            if ending == "partial" and path.suffix:
                left.write_bytes(b"spoilt")
            else:
                left.mkdir()
                (left / "00000000.kept").write_bytes(b"spoilt")


@pytest.mark.faults
@pytest.mark.parametrize("stage", DATA_STAGES)
def test_nothing_that_a_killed_run_left_comes_into_a_result(stage: str, data_project: Project, copy: Copy) -> None:
    project = copy(data_project)
    plant(project, stage)
    project.remove_outputs(stage)
    project.succeed(stage)
    assert project.outputs(stage) == data_project.outputs(stage)


@pytest.mark.slow
def test_what_killed_runs_leave_is_no_part_of_a_dependency(data_project: Project, copy: Copy) -> None:
    """DVC hashes folders such as models/gguf whole; .dvcignore keeps half-written files out."""
    from dvc.repo import Repo  # type: ignore[import-untyped]  # DVC ships no types

    project = copy(data_project)
    folder = project.folder / "models/gguf"
    (folder / ".q8_0.gguf.scratch").mkdir(parents=True)
    for name in ("f16.gguf", ".q8_0.gguf.partial", ".q8_0.gguf.scratch/config.json"):
        (folder / name).write_text(name)
    with Repo(str(project.folder)) as repo:
        found = [path for _, _, names in repo.dvcignore.walk(repo.fs, str(folder)) for path in names]
    assert found == ["f16.gguf"]
