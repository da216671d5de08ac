"""What killed processes left is found and can be removed; what a living process holds stays."""

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from tuneline.training.checkpoints import checkpoint_folder, seal
from tuneline.upkeep.leftovers import dead_workspaces, half_stored, half_written, remove, unfinished
from tuneline.upkeep.processes import is_alive, working_in


def checkpoint(folder: Path, step: int) -> None:
    (folder / f"checkpoint-{step}").mkdir(parents=True)
    (folder / f"checkpoint-{step}" / "weights").write_bytes(bytes(1000))
    seal(folder / f"checkpoint-{step}")


@pytest.fixture
def living(tmp_path: Path) -> Iterator["subprocess.Popen[bytes]"]:
    """A process with `tuneline` in its command line that works in a folder of tmp_path."""
    (tmp_path / "within").mkdir()
    code = "import sys; print(flush=True); sys.stdin.read()  # tuneline.stages.merge"
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    process = subprocess.Popen([sys.executable, "-c", code], cwd=tmp_path / "within", **pipes)  # type: ignore[call-overload]
    process.stdout.readline()
    yield process
    process.kill()
    process.communicate()


def test_an_unfinished_training_is_shown_and_removed(tmp_path: Path) -> None:
    checkpoint(tmp_path / "abc", 30)
    (found,) = unfinished(tmp_path)
    assert (found.what, found.held) == ("unfinished training, checkpoint of step 30", None)
    assert found.n_bytes > 1000
    assert remove(found)
    assert list(tmp_path.iterdir()) == []


def test_a_training_that_runs_or_runs_again_since_it_was_found_stays(tmp_path: Path) -> None:
    checkpoint(tmp_path / "abc", 30)
    (before,) = unfinished(tmp_path)
    with suppress(KeyboardInterrupt), checkpoint_folder(tmp_path / "abc"):
        (during,) = unfinished(tmp_path)
        assert during.held is not None
        assert not remove(before)
        assert not remove(during)
        raise KeyboardInterrupt
    assert (tmp_path / "abc" / "checkpoint-30" / "weights").exists()


def test_half_written_files_and_folders_are_found_and_nothing_else(tmp_path: Path) -> None:
    for name in ("models/.merged.partial", "models/.merged.previous", "models/merged", ".git/.x.partial"):
        (tmp_path / name).mkdir(parents=True)
    (tmp_path / "models" / ".gguf.partial").write_bytes(bytes(100))
    (tmp_path / ".hidden").write_text("partial")
    found = list(half_written(tmp_path))
    assert [str(one.path.relative_to(tmp_path / "models")) for one in found] == [
        *(".gguf.partial", ".merged.partial", ".merged.previous"),
    ]
    assert all(map(remove, found))
    assert sorted(path.name for path in (tmp_path / "models").iterdir()) == ["merged"]
    assert (tmp_path / ".git" / ".x.partial").exists()


def test_half_stored_objects_are_leftovers_after_an_hour_without_any_dvc(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "ab").mkdir()
    (tmp_path / "ab" / "cdef").write_bytes(b"whole")
    half = tmp_path / "ab" / ".fXrQorw7G30OskeJmz31YA.tmp"
    half.write_bytes(bytes(100))
    monkeypatch.setattr("tuneline.upkeep.leftovers.with_words", lambda *words: [])
    assert [(one.path, one.held) for one in half_stored(tmp_path)] == [(half, "less than an hour old")]
    os.utime(half, (0, 0))
    (found,) = half_stored(tmp_path)
    monkeypatch.setattr("tuneline.upkeep.leftovers.with_words", lambda *words: [7])
    (held,) = half_stored(tmp_path)
    assert held.held == "process 7 may be writing it"
    assert [remove(held), remove(found)] == [False, True]
    assert [path.name for path in (tmp_path / "ab").iterdir()] == ["cdef"]


def test_nothing_half_written_is_removed_while_a_stage_works_there(
    tmp_path: Path, living: "subprocess.Popen[bytes]"
) -> None:
    (tmp_path / "within" / ".merged.partial").mkdir()
    (found,) = half_written(tmp_path)
    assert found.held == f"process {living.pid} works here"
    assert not remove(found)
    assert found.path.exists()


def test_the_folder_of_an_experiment_is_dead_when_nobody_works_in_it(
    tmp_path: Path, living: "subprocess.Popen[bytes]"
) -> None:
    (tmp_path / "within").rename(tmp_path / "tmpabc")
    (tmp_path / "tmpdef").mkdir()
    (tmp_path / "run").mkdir()
    alive, dead = dead_workspaces(tmp_path, tmp_path)
    assert (alive.path.name, alive.held) == ("tmpabc", f"process {living.pid} works in it")
    assert (dead.path.name, dead.held) == ("tmpdef", None)
    assert [remove(alive), remove(dead)] == [False, True]


def test_a_process_is_known_by_number_and_words_and_where_it_works(
    tmp_path: Path, living: "subprocess.Popen[bytes]"
) -> None:
    assert is_alive(living.pid, "tuneline.stages.merge")
    assert not is_alive(living.pid, "tuneline.stages.train")
    assert working_in(tmp_path) == working_in(tmp_path / "within") == [living.pid]
    assert working_in(tmp_path / "with") == []
    living.kill()
    living.wait()
    assert not is_alive(living.pid, "tuneline.stages.merge")
    assert working_in(tmp_path) == []
