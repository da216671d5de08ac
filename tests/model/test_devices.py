"""A device belongs to one process at a time, and is free when that process ends."""

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tuneline.errors import EnvironmentProblem
from tuneline.model.devices import allowed_gpus, lock_devices, parsed_gpus

FOUR = tuple(f"GPU-{letter}{letter}" for letter in "abcd")
SPLIT = """\
GPU 0: NVIDIA H100 80GB HBM3 (UUID: GPU-aa)
  MIG 3g.40gb     Device  0: (UUID: MIG-11)
  MIG 3g.40gb     Device  1: (UUID: MIG-22)
GPU 1: NVIDIA H100 80GB HBM3 (UUID: GPU-bb)
"""
# What a job does: takes its devices, says which, and works until it is told to stop.
JOB = """
import sys
from pathlib import Path
import tuneline.model.devices as devices
devices.LOCKS, devices.POLL_SECONDS, devices.DRIVERS = Path(sys.argv[1]), 0.02, (Path(sys.argv[4]),)
taken = devices.take_devices(sys.argv[2], int(sys.argv[3]))
print(*taken, "visible:", __import__("os").environ.get("CUDA_VISIBLE_DEVICES"), flush=True)
assert "torch" not in sys.modules
sys.stdin.read()
"""
Start = Callable[..., "subprocess.Popen[str]"]


@pytest.fixture
def start(tmp_path: Path, pytestconfig: pytest.Config) -> Iterator[Start]:
    """Start a job on a machine of four GPUs, or of those given."""
    jobs: list[subprocess.Popen[str]] = []

    def begin(
        n: int = 1, device: str = "cuda", gpus: tuple[str, ...] = FOUR, **variables: str
    ) -> "subprocess.Popen[str]":
        lines = "\n".join(f"GPU {i}: NVIDIA (UUID: {uuid})" for i, uuid in enumerate(gpus))
        tool = tmp_path / "bin" / "nvidia-smi"
        tool.parent.mkdir(exist_ok=True)
        tool.write_text(f"#!/bin/sh\ncat <<'END'\n{lines}\nEND\n")
        tool.chmod(0o755)
        rest = {key: value for key, value in os.environ.items() if key != "CUDA_VISIBLE_DEVICES"}
        paths = {"PATH": f"{tool.parent}:{os.environ['PATH']}", "PYTHONPATH": str(pytestconfig.rootpath / "src")}
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
        words = [sys.executable, "-c", JOB, str(tmp_path / "locks"), device, str(n), str(tmp_path / "driver")]
        jobs.append(subprocess.Popen(words, text=True, env={**rest, **paths, **variables}, **pipes))  # type: ignore[call-overload]
        return jobs[-1]

    yield begin
    for job in jobs:
        job.kill()
        job.communicate()


def said(job: "subprocess.Popen[str]") -> str:
    assert job.stdout is not None
    return job.stdout.readline().strip()


def complaint(job: "subprocess.Popen[str]") -> str:
    assert job.stderr is not None
    return job.stderr.readline().strip()


def test_four_jobs_use_each_of_four_gpus_once_and_see_no_other(start: Start) -> None:
    lines = sorted(said(job) for job in [start() for _ in range(4)])
    assert lines == [f"{uuid} visible: {uuid}" for uuid in FOUR]


@pytest.mark.parametrize("end", [signal.SIGKILL, signal.SIGTERM])
def test_jobs_of_one_gpu_wait_for_each_other_and_say_for_whom(end: signal.Signals, start: Start) -> None:
    first = start(gpus=FOUR[:1])
    assert said(first) == "GPU-aa visible: GPU-aa"
    second = start(gpus=FOUR[:1])
    assert complaint(second) == f"waits for 1 of 1 devices: GPU-aa is held by process {first.pid} in {Path.cwd()}"
    assert second.poll() is None
    first.send_signal(end)
    assert said(second) == "GPU-aa visible: GPU-aa"


def test_a_job_takes_all_its_gpus_or_none_so_that_two_never_hold_half_each(start: Start) -> None:
    single = start()
    assert said(single) == "GPU-aa visible: GPU-aa"
    waits_for_four = start(4)
    assert "waits for 4 of 4 devices: GPU-aa is held" in complaint(waits_for_four)
    assert said(start(3)) == "GPU-bb GPU-cc GPU-dd visible: GPU-bb,GPU-cc,GPU-dd"


def test_only_gpus_that_the_user_made_visible_are_taken(start: Start) -> None:
    jobs = [start(CUDA_VISIBLE_DEVICES="3,1") for _ in range(2)]
    assert sorted(map(said, jobs)) == ["GPU-bb visible: GPU-bb", "GPU-dd visible: GPU-dd"]
    assert "waits for 1 of 2 devices" in complaint(start(CUDA_VISIBLE_DEVICES="3,1"))


def test_more_gpus_than_are_visible_are_left_to_the_count_of_pytorch(start: Start) -> None:
    assert said(start(2, CUDA_VISIBLE_DEVICES="1")) == "visible: 1"


def test_a_cpu_is_shared(start: Start) -> None:
    assert [said(start(device="cpu")) for _ in range(2)] == ["visible: None"] * 2


def test_a_mac_has_one_device(start: Start) -> None:
    assert said(start(device="mps")) == "mps visible: None"
    assert "mps is held by process" in complaint(start(device="mps"))


def test_gpus_that_nothing_lists_are_one_device_and_visibility_stays(start: Start, tmp_path: Path) -> None:
    (tmp_path / "driver").touch()
    first = start(PATH=str(tmp_path), CUDA_VISIBLE_DEVICES="0,1")
    assert said(first) == "cuda visible: 0,1"
    assert "cuda is held by process" in complaint(start(PATH=str(tmp_path)))


def test_a_machine_without_a_driver_has_nothing_to_lock(start: Start, tmp_path: Path) -> None:
    assert [said(start(PATH=str(tmp_path))) for _ in range(2)] == ["visible: None"] * 2


@pytest.mark.parametrize("stage", ["train", "evaluate", "evaluate_merged", "harness"])
def test_a_stage_imports_no_torch_before_it_has_taken_its_device(stage: str, pytestconfig: pytest.Config) -> None:
    """CUDA reads CUDA_VISIBLE_DEVICES once, when it is first asked, and bitsandbytes asks when it is imported."""
    code = f"import sys, tuneline.stages.{stage}; print({{'torch', 'peft', 'bitsandbytes'}} & set(sys.modules))"
    environment = {**os.environ, "PYTHONPATH": str(pytestconfig.rootpath / "src")}
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment, check=True)
    assert ran.stdout == "set()\n"


def test_the_instances_of_a_split_gpu_are_devices_and_the_gpu_is_none() -> None:
    assert parsed_gpus(SPLIT) == ("MIG-11", "MIG-22", "GPU-bb")
    assert parsed_gpus("No devices found.") == ()


@pytest.mark.parametrize(
    ("visible", "allowed"),
    [
        (None, list(FOUR)),
        ("", []),
        ("-1", []),
        ("2, 0", ["GPU-cc", "GPU-aa"]),
        ("0,7,1", ["GPU-aa"]),
        ("1,1", ["GPU-bb"]),
        ("GPU-b,GPU-dd", ["GPU-bb", "GPU-dd"]),
        ("GPU-", []),
    ],
)
def test_visible_devices_are_read_as_cuda_reads_them(visible: str | None, allowed: list[str]) -> None:
    assert allowed_gpus(FOUR, visible) == allowed


def test_a_folder_of_somebody_else_is_refused(tmp_path: Path) -> None:
    (tmp_path / "theirs").mkdir()
    (tmp_path / "locks").symlink_to(tmp_path / "theirs")
    with pytest.raises(EnvironmentProblem, match="belongs to somebody else"):
        lock_devices(tmp_path / "locks", ["a"], 1)
