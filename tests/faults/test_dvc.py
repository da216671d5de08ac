"""DVC killed or interrupted while its trainer works, two trainers at once: one trains at a time, nothing is lost.

And a plain `dvc repro` on a base model that is not the pinned one.
"""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.faults.forks import Forks
from tests.faults.project import Project, base_environment
from tests.faults.test_kills import assert_nobody_goes_on
from tests.faults.trainers import NO_FAULT, Prepare, Trainers, assert_ends_as_if_never_killed, checkpoints
from tuneline.training.checkpoints import damage

PATIENCE_S = 240
REPRO = (sys.executable, "-m", "dvc", "repro", "-s", "train@sft")
# Ctrl-C in a terminal reaches dvc and all that it started
ENDS: dict[str, Callable[[int], None]] = {
    "kill -9 of dvc": lambda pid: os.kill(pid, signal.SIGKILL),
    "SIGTERM to dvc": lambda pid: os.kill(pid, signal.SIGTERM),
    "Ctrl-C": lambda pid: os.killpg(pid, signal.SIGINT),
}


def until(holds: Callable[[], object], process: "subprocess.Popen[str]") -> None:
    deadline = time.monotonic() + PATIENCE_S
    while not holds():
        assert process.poll() is None, "it ended before"
        assert time.monotonic() < deadline
        time.sleep(0.005)


def has_saved(project: Project) -> bool:
    """Whether a checkpoint is there to the last of its files."""
    return any(damage(checkpoint) is None for checkpoint in checkpoints(project))


def start_repro(project: Project, log: Path, command: tuple[str, ...] = REPRO) -> "subprocess.Popen[str]":
    """In a group of processes of its own; what it says goes to a file, which a trainer that is left may hold."""
    environment = base_environment() | {"DVC_NO_ANALYTICS": "1"}
    with log.open("w") as said:
        return subprocess.Popen(
            command, cwd=project.folder, env=environment, stdout=said, stderr=said, text=True, start_new_session=True
        )


@pytest.mark.faults
@pytest.mark.parametrize("how", ENDS)
def test_a_trainer_saves_and_ends_with_dvc_and_the_same_command_goes_on(
    how: str, prepared: Prepare, tmp_path: Path
) -> None:
    project, whole = prepared()
    with start_repro(project, tmp_path / "first.log") as dvc:
        until(lambda: has_saved(project), dvc)
        ENDS[how](dvc.pid)
        assert dvc.wait(PATIENCE_S) != 0
    assert_nobody_goes_on(project)
    assert f"error: train: {'SIGINT' if how == 'Ctrl-C' else 'SIGTERM'} at step" in (tmp_path / "first.log").read_text()
    saved = checkpoints(project)[-1]
    assert damage(saved) is None
    assert project.outputs("train@sft") == {}

    with start_repro(project, tmp_path / "second.log") as dvc:
        code = dvc.wait(PATIENCE_S)
    said = (tmp_path / "second.log").read_text()
    assert code == 0, said
    assert f"train: continues from {saved}" in said
    assert project.outputs("train@sft") == whole
    assert list((project.folder / ".checkpoints").iterdir()) == []


@pytest.mark.faults
def test_a_second_trainer_is_refused_and_told_of_the_first_which_goes_on(prepared: Prepare, trainers: Trainers) -> None:
    project, whole = prepared()
    with project.start("train@sft") as first:
        until(lambda: has_saved(project), first)
        first.send_signal(signal.SIGSTOP)
        code, said = trainers.train(project, NO_FAULT)
        first.send_signal(signal.SIGCONT)
        assert code == 1, said
        assert said.splitlines()[-1].endswith(f"process {first.pid} trains this very phase; wait for it, or stop it")
        told, _ = first.communicate()
        assert first.returncode == 0, told
    assert project.outputs("train@sft") == whole


def flip(path: Path) -> bytes:
    """One bit in the middle; returns what was there."""
    whole = path.read_bytes()
    data = bytearray(whole)
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    return whole


def assert_refused_by_dvc_repro(project: Project, stage: str, name: str, log: Path) -> None:
    with start_repro(project, log, (sys.executable, "-m", "dvc", "repro", "-s", stage)) as dvc:
        assert dvc.wait(PATIENCE_S) != 0
    errors = [line for line in log.read_text().splitlines() if line.startswith("error: ")]
    assert len(errors) == 1, log.read_text()
    assert errors[0].startswith(f"error: models/base/sqlama/{name}: sha256 ")
    assert "`git checkout -- models/base/sqlama` (or `dvc checkout`) brings back what was pinned" in errors[0]
    assert project.outputs(stage) == {}


@pytest.mark.faults
def test_plain_dvc_repro_refuses_a_base_with_a_flipped_bit_and_goes_on_with_the_pinned_one(
    prepared: Prepare, trainers: Trainers, forks: Forks, tmp_path: Path
) -> None:
    """The base is the output of a frozen stage: DVC takes what lies there for what belongs there."""
    project, whole = prepared()
    path = project.folder / "models/base/sqlama/model.safetensors"
    before = flip(path)
    for stage in ("train@sft", "inspect@sft"):  # in this order: DVC removes the outputs of a stage that it begins
        assert_refused_by_dvc_repro(project, stage, path.name, tmp_path / "said")
    path.write_bytes(before)
    project.forking(forks).succeed("inspect@sft")
    assert_ends_as_if_never_killed(project, whole, trainers)
    flip(path)
    assert_refused_by_dvc_repro(project, "merge", path.name, tmp_path / "said")
