"""`make repro` ends with code 0 only when every output is in the cache."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

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


def test_a_damaged_list_of_files_is_named(project: Any) -> None:
    listed = next(cache(project).glob("*/*.dir"))
    listed.chmod(0o644)
    listed.write_text("[{")
    assert "models/out: its list of files in the cache is damaged" in project.tuneline("outputs", fails=True)
