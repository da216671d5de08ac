"""Checkpoints on disk: what is whole, what is not, and who may write."""

import fcntl
import multiprocessing
import os
import shutil
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from tuneline.errors import EnvironmentProblem
from tuneline.training.checkpoints import (
    checkpoint_folder,
    damage,
    discard,
    drop_oldest,
    fingerprint,
    holder,
    needed_bytes,
    newest_whole,
    remove_others,
    seal,
    size_bytes,
)

Break = Callable[[Path], object]
DAMAGES: dict[str, Break] = {
    "weights is missing": lambda folder: (folder / "weights").unlink(),
    "weights has changed since it was written": lambda folder: (folder / "weights").write_bytes(b"\x01" * 63),
    "optimizer/state has changed since it was written": lambda folder: flip(folder / "optimizer" / "state"),
    "stranger is not in its manifest": lambda folder: (folder / "stranger").touch(),
    "no readable manifest.json": lambda folder: (folder / "manifest.json").unlink(),
    "no readable manifest.json: it was": lambda folder: (folder / "manifest.json").write_text('{"weights": "ab'),
}


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def checkpoint(folder: Path, step: int) -> Path:
    made = folder / f"checkpoint-{step}"
    (made / "optimizer").mkdir(parents=True)
    (made / "weights").write_bytes(b"\x01" * 64)
    (made / "optimizer" / "state").write_bytes(bytes([step % 256]) * 64)
    seal(made)
    return made


def test_the_newest_checkpoint_is_the_one_of_the_highest_step(tmp_path: Path) -> None:
    made = [checkpoint(tmp_path, step) for step in (900, 1000, 20)]
    assert newest_whole(tmp_path) == (made[1], [])


@pytest.mark.parametrize("problem", DAMAGES)
def test_a_damaged_checkpoint_is_named_and_the_one_before_it_used(tmp_path: Path, problem: str) -> None:
    older, newer = checkpoint(tmp_path, 10), checkpoint(tmp_path, 20)
    DAMAGES[problem](newer)
    found, problems = newest_whole(tmp_path)
    assert found == older
    assert [line.startswith(f"{newer}: {problem}") for line in problems] == [True]
    remove_others(tmp_path, found)
    assert not newer.exists()
    assert damage(older) is None


def test_nothing_is_used_when_every_checkpoint_is_damaged(tmp_path: Path) -> None:
    for step in (10, 20):
        flip(checkpoint(tmp_path, step) / "weights")
    found, problems = newest_whole(tmp_path)
    assert found is None
    assert len(problems) == 2


def test_the_fingerprint_changes_with_values_and_data_and_with_nothing_else(tmp_path: Path) -> None:
    for name in ("one", "two"):
        (tmp_path / name / "data").mkdir(parents=True)
        (tmp_path / name / "data" / "train.parquet").write_bytes(b"rows")
    first, second = ([tmp_path / name / "data"] for name in ("one", "two"))
    assert fingerprint([{"lr": 0.1}], first) == fingerprint([{"lr": 0.1}], second)
    assert fingerprint([{"lr": 0.1}], first) != fingerprint([{"lr": 0.2}], first)
    (tmp_path / "two" / "data" / "train.parquet").write_bytes(b"rowz")
    assert fingerprint([{"lr": 0.1}], first) != fingerprint([{"lr": 0.1}], second)


def test_a_second_training_is_refused_and_told_who_holds_the_folder(tmp_path: Path) -> None:
    folder = tmp_path / "abc"
    with checkpoint_folder(folder):
        with multiprocessing.get_context("spawn").Pool(1) as pool:
            said = pool.apply(claim, (folder,))
        assert said is not None
        assert f"process {os.getpid()} trains this very phase" in said
    assert not folder.exists()


def claim(folder: Path) -> str | None:
    try:
        with checkpoint_folder(folder):
            return None
    except EnvironmentProblem as error:
        return str(error)


def test_a_held_folder_is_discarded_by_nobody_and_a_free_one_at_once(tmp_path: Path) -> None:
    with suppress(KeyboardInterrupt), checkpoint_folder(tmp_path / "abc") as folder:
        checkpoint(folder, 1)
        assert holder(folder) == str(os.getpid())
        assert not discard(folder)
        raise KeyboardInterrupt
    assert holder(folder) is None
    assert damage(folder / "checkpoint-1") is None
    assert discard(folder)
    assert list(tmp_path.iterdir()) == []
    assert discard(folder)


def test_who_waits_for_a_folder_that_is_removed_never_trains_in_one_that_others_do_not_see(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The folder goes after it was opened, and before it is locked."""
    folder, lock = tmp_path / "abc", fcntl.flock
    folder.mkdir()

    def late(file: Any, operation: int) -> None:
        monkeypatch.setattr(fcntl, "flock", lock)
        shutil.rmtree(folder)
        lock(file, operation)

    monkeypatch.setattr(fcntl, "flock", late)
    with checkpoint_folder(folder):
        assert (folder / "owner").read_text() == str(os.getpid())
        assert not discard(folder)


def test_unfinished_trainings_are_bounded_in_number_and_bytes_and_those_that_run_are_not_touched(
    tmp_path: Path,
) -> None:
    for age, name in enumerate(["newest", "newer", "old", "running", "oldest"]):
        made = checkpoint(tmp_path / name, 1)
        for file in made.rglob("*"):
            os.utime(file, (1e9 - age, 1e9 - age))
    with suppress(KeyboardInterrupt), checkpoint_folder(tmp_path / "running"):
        assert drop_oldest(tmp_path, 3, 1.0) == [tmp_path / "oldest"]
        two_and_a_half = 2.5 * size_bytes(tmp_path / "old") / 2**30
        assert drop_oldest(tmp_path, 3, two_and_a_half) == [tmp_path / "old"]
        assert drop_oldest(tmp_path, 3, two_and_a_half) == []
        assert drop_oldest(tmp_path, 0, 1.0) == [tmp_path / "newest", tmp_path / "newer"]
        raise KeyboardInterrupt
    assert [path.name for path in tmp_path.iterdir()] == ["running"]


def test_the_room_that_checkpoints_take_counts_weights_moments_and_the_one_being_written(tiny: ModuleType) -> None:
    settings, cpu = tiny.settings(save_total_limit=2), tiny.hardware()
    assert needed_bytes(1000, settings, cpu) == 1000 * (4 + 8) * 3
    assert needed_bytes(1000, settings, tiny.hardware(optim="paged_adamw_8bit")) == 1000 * (4 + 2) * 3
    assert needed_bytes(1000, tiny.settings(save_total_limit=2, early_stopping_patience=1), cpu) == 1000 * 16 * 3


def test_a_failed_training_keeps_its_checkpoints(tmp_path: Path) -> None:
    with suppress(KeyboardInterrupt), checkpoint_folder(tmp_path / "abc") as folder:
        checkpoint(folder, 1)
        raise KeyboardInterrupt
    assert damage(tmp_path / "abc" / "checkpoint-1") is None
