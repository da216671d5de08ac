"""No room on the disk, no memory, no finite number: a stage ends in one line that says so, and without an output."""

import random
from pathlib import Path

import pytest

from tests.faults.conftest import Copy, copied
from tests.faults.forks import Forks
from tests.faults.project import Project, write_params
from tests.faults.trainers import NO_FAULT, Prepare, Trainers, assert_ends_as_if_never_killed, checkpoints
from tests.small_disk import fill, small_disk
from tuneline.errors import EnvironmentProblem
from tuneline.model.pinned import folder_digests
from tuneline.shortage import out_of_memory_names, shortage
from tuneline.training.checkpoints import damage

# stage -> KiB that a file may have: less than its largest output
DATA_ROOM = {"ingest": 40, "clean": 40, "split": 40, "describe": 4, "inspect@sft": 4}
MODEL_ROOM = {"train@sft": 500, "merge": 2000, "convert": 2000, "quantize@q8_0": 2000, "package": 2000}


def assert_refuses_in_one_line(project: Project, stage: str, kib: int | None = None) -> None:
    """With files of at most `kib`, or on a disk that is full by itself."""
    project.remove_outputs(stage)
    before = project.names()
    project.file_kib = kib
    ran = project.run(stage)
    project.file_kib = None
    assert ran.returncode == 1, ran.stdout
    assert "Traceback" not in ran.stdout
    last = ran.stdout.splitlines()[-1]
    assert last.startswith("error: ")
    assert any(words in last for words in ("no room", "File too large", "failed to write", "llama.cpp cannot")), last
    outs = {out for out in project.stages[stage].outs if (project.folder / out).is_file()}
    assert outs <= {"data/ingested/rejected.jsonl", "data/clean/rejected.jsonl", "data/clean/clusters.jsonl"}
    new = {name for name in project.names() - before if not name.startswith(".checkpoints")}
    assert not [name for name in new - outs if (project.folder / name).is_file()]


@pytest.mark.slow
def test_a_full_disk_ends_a_data_stage_in_one_line(data_project: Project, copy: Copy) -> None:
    assert_refuses_in_one_line(copy(data_project), "clean", DATA_ROOM["clean"])


@pytest.mark.faults
@pytest.mark.parametrize("stage", DATA_ROOM)
def test_a_full_disk_ends_any_data_stage_in_one_line(
    stage: str, tokens_project: Project, copy: Copy, forks: Forks
) -> None:
    assert_refuses_in_one_line(copy(tokens_project).forking(forks), stage, DATA_ROOM[stage])


@pytest.mark.faults
@pytest.mark.parametrize("stage", MODEL_ROOM)
def test_a_full_disk_ends_any_model_stage_in_one_line(
    stage: str, whole_project: Project, copy: Copy, forks: Forks
) -> None:
    assert_refuses_in_one_line(copy(whole_project).forking(forks), stage, MODEL_ROOM[stage])


@pytest.mark.faults
@pytest.mark.parametrize("stage", DATA_ROOM)
def test_a_disk_without_room_ends_any_data_stage_in_one_line_and_room_heals_it(
    stage: str, tokens_project: Project, tmp_path: Path, forks: Forks
) -> None:
    with small_disk(tmp_path / "disk", 2**26) as disk:
        project = copied(tokens_project, disk / "project").forking(forks)
        project.remove_outputs(stage)
        filler = fill(disk, DATA_ROOM[stage] * 1024)
        assert_refuses_in_one_line(project, stage)
        filler.unlink()
        project.succeed(stage)
        assert project.outputs(stage) == tokens_project.outputs(stage)


@pytest.mark.faults
@pytest.mark.parametrize("fault", [["memory", 0, 11], ["cuda", 11]], ids=["RLIMIT_AS", "CUDA"])
def test_a_trainer_out_of_memory_names_the_settings_and_keeps_its_checkpoints(
    fault: list[object], prepared: Prepare, trainers: Trainers
) -> None:
    project, whole = prepared()
    code, said = trainers.train(project, fault)
    assert code == 1, said
    assert said.splitlines()[-1].startswith("error: train: out of memory")
    assert "lower hardware.micro_batch_size (now 2)" in said.splitlines()[-1]
    assert project.outputs("train@sft") == {}
    assert damage(checkpoints(project)[-1]) is None
    assert_ends_as_if_never_killed(project, whole, trainers, "train: continues from ")


@pytest.mark.faults
def test_a_learning_rate_that_diverges_ends_the_stage_at_that_step(prepared: Prepare, trainers: Trainers) -> None:
    project, _ = prepared()
    huge = {"recipe.phases.sft.learning_rate": 1e30, "train.max_grad_norm": 1e30, "train.warmup_ratio": 0.0}
    write_params(project.folder, huge)
    assert_refused_at_a_step(project, trainers, range(1, 5))


@pytest.mark.faults
def test_a_nan_in_the_base_model_ends_the_stage_at_its_first_step(
    prepared: Prepare, trainers: Trainers, draw: random.Random
) -> None:
    from safetensors.torch import load_file, save_file

    project, _ = prepared()
    weights = project.folder / "models/base/sqlama/model.safetensors"
    tensors = load_file(weights)
    name = draw.choice([name for name in tensors if "proj" in name])
    print(f"NaN in {name}")
    spoilt = tensors[name].clone()
    spoilt[0] = float("nan")
    save_file(tensors | {name: spoilt}, weights, metadata={"format": "pt"})
    write_params(project.folder, {"model.sha256": dict(folder_digests(weights.parent))})  # as if it came like that
    assert_refused_at_a_step(project, trainers, range(1, 2))


def assert_refused_at_a_step(project: Project, trainers: Trainers, steps: range) -> None:
    code, said = trainers.train(project, NO_FAULT)
    assert code == 1, said
    last = said.splitlines()[-1]
    assert last.startswith("error: ")
    assert "nan" in last or "inf" in last
    assert any(f"at step {step};" in last for step in steps), last
    assert project.outputs("train@sft") == {}
    assert not (project.folder / "reports/speed/train-sft.json").exists()


@pytest.mark.parametrize(
    "error",
    [
        OSError(28, "No space left on device", "x"),
        OSError(27, "File too large"),
        OSError("512 requested and 0 written"),
        RuntimeError("[enforce fail at inline_container.cc:1] . PytorchStreamWriter failed writing file data/0"),
        ValueError("Error while serializing: I/O error: No space left on device (os error 28)"),
    ],
)
def test_a_full_disk_is_recognised_whichever_library_met_it(error: Exception) -> None:
    assert "no room on the disk" in str(shortage(error))
    assert "no room on the disk" in str(shortage(raised_from(error)))


def raised_from(cause: Exception) -> Exception:
    try:
        raise KeyError("something else") from cause
    except KeyError as error:
        return error


def test_any_other_error_is_a_defect_and_keeps_its_traceback() -> None:
    assert shortage(KeyError("prompt")) is None
    assert shortage(FileNotFoundError(2, "No such file", str(Path("x")))) is None


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        RuntimeError("[enforce fail at alloc_cpu.cpp:117] DefaultCPUAllocator: can't allocate memory: 12"),
        RuntimeError("CUDA out of memory. Tried to allocate 2.00 GiB.\nmore lines"),
    ],
)
def test_want_of_memory_is_one_line_that_names_the_setting(error: Exception) -> None:
    said = r"^evaluate: out of memory .*; lower hardware.eval_batch_size$"
    names = out_of_memory_names("evaluate", "lower hardware.eval_batch_size")
    with pytest.raises(EnvironmentProblem, match=said) as raised, names:
        raise error
    assert "\n" not in str(raised.value)
