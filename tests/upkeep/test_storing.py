"""`make repro` ends with code 0 only when every output is in the cache."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.small_disk import small_disk
from tests.upkeep.test_rot import flip

pytestmark = pytest.mark.slow


@pytest.fixture
def project(new_project: Callable[[], Any]) -> Any:
    project = new_project()
    project.dvc("repro")
    return project


def cache(project: Any) -> Path:
    return Path(project.folder / ".dvc/cache/files/md5")


def test_whole_outputs_pass_in_silence(project: Any) -> None:
    assert project.tuneline("outputs") == ""


def test_an_output_that_was_never_made_is_named(new_project: Callable[[], Any]) -> None:
    printed = new_project().tuneline("outputs", fails=True)
    assert "models/out: not in dvc.lock" in printed
    assert "error: 2 outputs are not in DVC's cache" in printed


def test_a_file_of_a_folder_a_folder_and_a_file_that_the_cache_lacks_are_named_and_commit_puts_them_back(
    project: Any,
) -> None:
    for lost in cache(project).glob("*/*"):
        is_list = lost.name.endswith(".dir")
        content = lost.read_bytes()
        lost.unlink()
        printed = project.tuneline("outputs", fails=True)
        if is_list:
            assert "models/out: not in the cache" in printed
        elif content == b"some text":
            assert "data/text: not in the cache" in printed
        else:
            assert "models/out: 1 of 3 files are not in the cache: inner/" in printed
        project.dvc("commit", "-f")
        assert project.tuneline("outputs") == ""


def test_a_disk_that_is_full_when_dvc_stores_an_output_is_an_error_here_though_dvc_ends_with_success(
    new_project: Callable[[], Any],
) -> None:
    """RLIMIT_FSIZE instead of a full disk: to DVC alone, the stage lifts it for itself."""
    project = new_project()
    pipeline = project.folder / "dvc.yaml"
    pipeline.write_text(pipeline.read_text().replace("cmd: ", "cmd: ulimit -S -f unlimited && "))
    (project.folder / "params.yaml").write_text("mode: work\nlength: 5000000\n")
    assert "File too large" in project.run("bash", "-c", "ulimit -S -f 1000; dvc repro")
    assert "models/out: not in the cache" in project.tuneline("outputs", fails=True)
    assert "half-stored" in project.tuneline("clean")
    project.dvc("commit", "-f")
    assert project.tuneline("outputs") == ""


def test_a_full_disk_of_the_cache_is_an_error_here_and_room_and_commit_put_all_there(
    new_project: Callable[[], Any], tmp_path: Path
) -> None:
    project = new_project()
    (project.folder / "params.yaml").write_text("mode: work\nlength: 3000000\n")
    with small_disk(tmp_path / "disk", 4_000_000) as disk:
        project.dvc("cache", "dir", "--local", str(disk / "cache"))
        assert "No space left on device" in project.run("bash", "-c", "dvc repro || true")
        assert "models/out: " in project.tuneline("outputs", fails=True)
        project.dvc("cache", "dir", "--local", str(tmp_path / "roomy"))
        project.dvc("commit", "-f")
        assert project.tuneline("outputs") == ""


def test_a_flipped_bit_in_an_output_of_a_frozen_stage_is_named_also_after_dvc_has_recorded_it(
    new_project: Callable[[], Any],
) -> None:
    """As in the base model, whose stage is frozen and whose files git holds. The file's time stays the old one."""
    project = new_project()
    pipeline = project.folder / "dvc.yaml"
    uncached = "outs: [{models/out: {cache: false}}, {data/text: {cache: false}}]"
    pipeline.write_text(pipeline.read_text().replace("outs: [models/out, data/text]", uncached))
    (project.folder / ".gitignore").write_text(".checkpoints/\nstarts\n")
    project.dvc("repro")
    project.dvc("freeze", "work")
    project.run("git", "add", "-A")
    project.run("git", "commit", "-qm", "with outputs")
    assert project.tuneline("outputs", "--frozen") == ""
    text = project.folder / "data/text"
    times = text.stat()
    flip(text)
    os.utime(text, ns=(times.st_atime_ns, times.st_mtime_ns))
    said = "data/text: not as committed, and its stage is frozen; `git checkout -- data/text` brings it back"
    assert said in project.tuneline("outputs", "--frozen", fails=True)
    text.touch()
    project.dvc("repro")
    assert "1 files of frozen stages are not as committed" in project.tuneline("outputs", fails=True)
    project.run("git", "checkout", "--", "data/text")
    project.dvc("repro")
    assert project.tuneline("outputs") == ""


def test_a_damaged_list_of_files_is_named(project: Any) -> None:
    listed = next(cache(project).glob("*/*.dir"))
    listed.chmod(0o644)
    listed.write_text("[{")
    assert "models/out: its list of files in the cache is damaged" in project.tuneline("outputs", fails=True)
