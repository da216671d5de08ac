"""Each of these faults does its harm when the code against it is taken out: the other tests would notice."""

import signal
from collections.abc import Sequence
from contextlib import suppress

import pytest

from tests.faults.conftest import Copy
from tests.faults.forks import Forks
from tests.faults.project import Project, write_params
from tests.faults.test_dvc import flip
from tests.faults.test_kills import (
    assert_absent_or_whole,
    assert_nobody_goes_on,
    killed_at,
    killed_while_others_work_for_it,
)
from tests.faults.trainers import NO_FAULT, Prepare, Trainers, assert_ends_as_if_never_killed, checkpoints
from tuneline.training.checkpoints import checkpoint_folder

pytestmark = pytest.mark.faults

KILLED = ["signal", int(signal.SIGKILL), 10]


def without(protection: str, fault: Sequence[object] = NO_FAULT) -> list[object]:
    return ["without", protection, fault]


def take_out(project: Project, file: str, code: str, instead: str) -> None:
    """Of the copy's source; a stage runs that."""
    path = project.folder / "src/tuneline" / file
    text = path.read_text(encoding="utf-8")
    assert text.count(code) == 1
    path.write_text(text.replace(code, instead), encoding="utf-8")


def test_without_the_manifest_a_damaged_checkpoint_goes_into_the_result(prepared: Prepare, trainers: Trainers) -> None:
    project, whole = prepared()
    trainers.train(project, KILLED)
    weights = checkpoints(project)[-1] / "adapter_model.safetensors"
    data = weights.read_bytes()
    weights.write_bytes(data[: len(data) // 2] + bytes(64) + data[len(data) // 2 + 64 :])
    with pytest.raises(AssertionError, match=r"adapter_model\.safetensors"):
        assert_ends_as_if_never_killed(project, whole, trainers, fault=without("manifest"))


def test_without_the_fingerprint_changed_settings_go_on_from_the_old_state(
    prepared: Prepare, trainers: Trainers
) -> None:
    project, _ = prepared()
    trainers.train(project, without("fingerprint", KILLED))
    write_params(project.folder, {"recipe.phases.sft.learning_rate": 1e-3})
    code, said = trainers.train(project, without("fingerprint"))
    assert code == 0, said
    assert "continues from" in said


def test_without_the_lock_two_train_in_one_folder(prepared: Prepare, trainers: Trainers) -> None:
    project, _ = prepared()
    trainers.train(project, KILLED)
    with suppress(KeyboardInterrupt), checkpoint_folder(checkpoints(project)[-1].parent):
        refused, said = trainers.train(project, NO_FAULT)
        assert refused == 1
        assert "trains this very phase" in said
        code, said = trainers.train(project, without("lock", KILLED))
        assert code == -signal.SIGKILL, said
        raise KeyboardInterrupt  # keeps the folder


def test_without_the_sums_kept_the_curve_is_another_one(prepared: Prepare, trainers: Trainers) -> None:
    project, whole = prepared(**{"train.logging_steps": 5})
    trainers.train(project, KILLED)
    with pytest.raises(AssertionError, match=r"data/logs/sft\.json"):
        assert_ends_as_if_never_killed(project, whole, trainers, fault=without("sums"))


def test_without_a_watch_on_their_parent_workers_go_on_behind_a_killed_stage(large_project: Project) -> None:
    take_out(large_project, "data/parallel.py", ", initializer=_watch_parent", "")
    killed_while_others_work_for_it(large_project, "ingest", 3, 0.2)
    with pytest.raises(AssertionError):
        assert_nobody_goes_on(large_project, patience_s=5)


def test_without_the_hashes_of_the_base_a_flipped_bit_in_it_is_trained_on(prepared: Prepare, forks: Forks) -> None:
    project, whole = prepared()
    flip(project.folder / "models/base/sqlama/model.safetensors")
    take_out(project, "model/sources.py", "        check_digests(model)\n", "")
    project.forking(forks).succeed("train@sft")
    assert project.outputs("train@sft").keys() == whole.keys()
    assert project.outputs("train@sft") != whole


IN_PLACE = {
    'path.with_name(f".{path.name}.partial")\n    temporary.unlink': "path\n    temporary.unlink",
    "temporary.replace(path)\n    finally:\n        temporary.unlink(missing_ok=True)": (
        "pass\n    finally:\n        pass"
    ),
}


def test_without_a_temporary_file_a_killed_stage_leaves_half_an_output(
    data_project: Project, copy: Copy, forks: Forks
) -> None:
    project = copy(data_project)
    for code, instead in IN_PLACE.items():
        take_out(project, "output.py", code, instead)
    operations = project.file_operations("clean")
    project = project.forking(forks)
    with pytest.raises(AssertionError, match="clean killed"):  # noqa: PT012
        for number in range(1, len(operations) + 1):
            killed_at(project, "clean", number)
            assert_absent_or_whole(project, "clean", data_project, f"at {number}")
