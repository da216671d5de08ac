"""A trainer that is killed, wherever it is, and started again ends with the bytes of one that was left alone."""

import random
import shutil
import signal
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.faults.project import Project, files_of, write_params
from tests.faults.trainers import (
    N_MICRO_BATCHES,
    N_STEPS,
    NO_FAULT,
    Prepare,
    Trainers,
    assert_ends_as_if_never_killed,
    checkpoints,
    forget,
)
from tests.training.test_checkpoints import flip
from tuneline.training.checkpoints import damage

pytestmark = pytest.mark.filterwarnings("ignore::ResourceWarning")


@pytest.mark.slow
def test_a_trainer_passes_over_a_damaged_checkpoint(prepared: Prepare, trainers: Trainers, draw: random.Random) -> None:
    """One file of the newest, drawn, in one way; `make faults` takes each file in each way."""
    project, whole = prepared()
    trainers.train(project, ["signal", int(signal.SIGKILL), 10])
    newest = checkpoints(project)[-1]
    DAMAGES[draw.choice(sorted(DAMAGES))](draw.choice(files_of(newest)))
    assert_ends_as_if_never_killed(project, whole, trainers, f"train: not used: {newest}")


@pytest.mark.faults
def test_a_trainer_killed_after_each_file_of_a_checkpoint(prepared: Prepare, trainers: Trainers) -> None:
    project, whole = prepared()
    trainers.train(project, ["signal", int(signal.SIGKILL), 9])
    n_files = len(files_of(checkpoints(project)[-1]))
    assert n_files > 6
    for n_written in range(1, n_files + 1):
        forget(project)
        code, said = trainers.train(project, ["files", "checkpoint-4", n_written])
        assert code == -signal.SIGKILL, said
        assert damage(checkpoints(project)[0]) is None, "the one before it"
        assert_ends_as_if_never_killed(project, whole, trainers, "train: continues from ")


DAMAGES: dict[str, Callable[[Path], object]] = {
    "missing": lambda file: file.unlink(),
    "truncated": lambda file: file.write_bytes(file.read_bytes()[: file.stat().st_size // 2]),
    "flipped": flip,
}


@pytest.mark.faults
def test_whichever_file_of_a_checkpoint_is_damaged_the_checkpoint_before_it_is_used(
    prepared: Prepare, trainers: Trainers, tmp_path: Path, draw: random.Random
) -> None:
    """Each file in each way is seen; one of each way, drawn, is trained from."""
    project, whole = prepared()
    trainers.train(project, ["signal", int(signal.SIGKILL), 10])
    shutil.copytree(project.folder / ".checkpoints", tmp_path / "kept")
    older, newest = checkpoints(project)
    names = [file.relative_to(newest) for file in files_of(newest)]
    for how, spoil in DAMAGES.items():
        for name in names:
            restore(project, tmp_path / "kept")
            spoil(newest / name)
            assert damage(newest) is not None, f"{name} {how}"
            assert damage(older) is None
        restore(project, tmp_path / "kept")
        name = draw.choice(names)
        spoil(newest / name)
        assert_ends_as_if_never_killed(project, whole, trainers, "train: not used: ")


def restore(project: Project, kept: Path) -> None:
    shutil.rmtree(project.folder / ".checkpoints", ignore_errors=True)
    project.remove_outputs("train@sft")
    shutil.copytree(kept, project.folder / ".checkpoints")


@pytest.mark.faults
def test_with_all_checkpoints_bad_training_starts_anew_and_says_so(prepared: Prepare, trainers: Trainers) -> None:
    project, whole = prepared()
    trainers.train(project, ["signal", int(signal.SIGKILL), 10])
    for checkpoint in checkpoints(project):
        flip(checkpoint / "adapter_model.safetensors")
    assert_ends_as_if_never_killed(project, whole, trainers, "adapter_model.safetensors has changed")


@pytest.mark.faults
@pytest.mark.parametrize("changed", ["params", "data", "code"])
def test_what_changed_since_the_crash_is_never_trained_from_the_old_state(
    changed: str, prepared: Prepare, trainers: Trainers
) -> None:
    project, _ = prepared()
    trainers.train(project, ["signal", int(signal.SIGKILL), 10])
    match changed:
        case "params":
            write_params(project.folder, {"recipe.phases.sft.learning_rate": 1e-3})
        case "data":
            tokens = project.folder / "data/tokens/sft"
            shutil.copyfile(tokens / "train.parquet", tokens / "val.parquet")
    code, said = trainers.train(project, ["edited code"] if changed == "code" else NO_FAULT)
    assert code == 0, said
    assert "continues from" not in said


@pytest.mark.faults
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_the_stage_in_one_line_and_loses_nothing(
    number: signal.Signals, prepared: Prepare, trainers: Trainers, draw: random.Random
) -> None:
    project, whole = prepared()
    micro_batch = draw.randrange(1, N_MICRO_BATCHES - 2)
    code, said = trainers.train(project, ["signal", int(number), micro_batch])
    assert code == 1
    step = (micro_batch + 1) // 2
    assert f"error: train: {number.name} at step {step} of {N_STEPS}" in said.splitlines()[-1]
    assert_ends_as_if_never_killed(project, whole, trainers, f"checkpoint-{step}")
