"""Which commit a model was made of: that of the inputs, whatever else is committed, or null with a reason."""

import os
import subprocess
from pathlib import Path

import pytest

from tuneline.errors import EnvironmentProblem
from tuneline.export import commit
from tuneline.export.commit import Commit, commit_of

INPUTS = tuple(map(Path, ("src/tuneline", "conf", "params.yaml", "data/raw", "models/sources")))
IDENTITY = ("-c", "user.name=test", "-c", "user.email=test@example.org", "-c", "commit.gpgsign=false")


def git(folder: Path, *arguments: str) -> str:
    command = ["git", "-C", str(folder), *IDENTITY, *arguments]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()


def write(file: Path, text: str = "1\n") -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text)


def commit_all(folder: Path) -> str:
    git(folder, "add", "-A")
    git(folder, "commit", "-qm", "some change")
    return git(folder, "rev-parse", "HEAD")


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A repository with one commit; the current folder."""
    folder = tmp_path / "project"
    for name in ("src/tuneline/a.py", "conf/a.yaml", "params.yaml", "data/raw/own.dvc", "dvc.lock", "reports/a.json"):
        write(folder / name)
    write(folder / ".gitignore", "__pycache__/\n/models/deploy/\n")
    git(folder, "init", "-q")
    commit_all(folder)
    monkeypatch.chdir(folder)
    return folder


def head(folder: Path) -> str:
    return git(folder, "rev-parse", "HEAD")


def test_committing_the_results_changes_no_answer(project: Path) -> None:
    made_of = commit_of(INPUTS)
    assert made_of == Commit(head(project), dirty=False)
    for name in ("dvc.lock", "reports/a.json", "README.md", "tests/test_a.py"):
        write(project / name, "2\n")
    assert commit_of(INPUTS) == made_of
    results = commit_all(project)
    assert commit_of(INPUTS) == made_of
    assert made_of.sha1 != results


@pytest.mark.parametrize("name", ["src/tuneline/a.py", "conf/new.yaml", "params.yaml", "data/raw/own.dvc"])
def test_an_input_changed_or_not_added_is_dirty_and_committed_it_is_the_answer(project: Path, name: str) -> None:
    before = head(project)
    write(project / name, "2\n")
    assert commit_of(INPUTS) == Commit(before, dirty=True)
    git(project, "add", "-A")
    assert commit_of(INPUTS) == Commit(before, dirty=True)
    after = commit_all(project)
    assert after != before
    assert commit_of(INPUTS) == Commit(after, dirty=False)


def test_a_change_that_leaves_size_and_time_as_they_were_is_dirty(project: Path) -> None:
    """As DVC's queue makes it, in the second in which it has checked the file out."""
    git(project, "config", "core.trustctime", "false")
    os.utime(project / "params.yaml", (10**9, 10**9))
    assert git(project, "status", "--porcelain") == ""  # and now git remembers that time
    (project / "params.yaml").write_text("2\n")
    os.utime(project / "params.yaml", (10**9, 10**9))
    assert git(project, "status", "--porcelain") == "", "the very thing that git does not notice"
    assert commit_of(INPUTS) == Commit(head(project), dirty=True)


def test_an_input_that_was_removed_is_dirty(project: Path) -> None:
    (project / "conf/a.yaml").unlink()
    assert commit_of(INPUTS).dirty


def test_what_git_ignores_is_not_dirty(project: Path) -> None:
    write(project / "src/tuneline/__pycache__/a.pyc")
    write(project / "models/deploy/model.gguf")
    assert commit_of(INPUTS) == Commit(head(project), dirty=False)


def test_every_clone_of_a_commit_gives_the_same_answer(
    project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(project / "reports/a.json", "2\n")
    commit_all(project)
    here = commit_of(INPUTS)
    git(project, "clone", "-q", str(project), str(tmp_path / "clone"))
    monkeypatch.chdir(tmp_path / "clone")
    assert commit_of(INPUTS) == here


def test_the_side_of_a_merge_that_brought_the_inputs_is_the_answer(project: Path) -> None:
    git(project, "checkout", "-qb", "side")
    write(project / "conf/a.yaml", "2\n")
    side = commit_all(project)
    git(project, "checkout", "-q", "-")
    write(project / "README.md")
    commit_all(project)
    git(project, "merge", "-q", "--no-edit", "side")
    assert commit_of(INPUTS) == Commit(side, dirty=False)


def shallow(project: Path, folder: Path, depth: int) -> None:
    git(project, "clone", "-q", f"--depth={depth}", f"file://{project}", str(folder))


def test_a_shallow_clone_answers_only_where_a_whole_one_would_say_the_same(
    project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(project / "conf/a.yaml", "2\n")
    made_of = commit_all(project)
    write(project / "reports/a.json", "2\n")
    results = commit_all(project)
    for depth in (1, 2, 3):
        shallow(project, tmp_path / str(depth), depth)
    monkeypatch.chdir(tmp_path / "1")
    assert head(tmp_path / "1") == results, "where every file seems to be of this commit"
    found = commit_of(INPUTS)
    assert (found.sha1, found.dirty) == (None, None)
    assert "git fetch --unshallow" in str(found.reason)
    monkeypatch.chdir(tmp_path / "2")
    assert commit_of(INPUTS).sha1 is None, "it ends with that very commit, but nothing there tells"
    monkeypatch.chdir(tmp_path / "3")
    assert commit_of(INPUTS) == Commit(made_of, dirty=False)


def test_no_repository_and_no_commit_are_a_reason_without_a_path(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    write(tmp_path / "conf/a.yaml")
    assert commit_of(INPUTS).record() == {"commit": None, "dirty": None, "reason": "no git repository"}
    git(tmp_path, "init", "-q")
    assert commit_of(INPUTS) == Commit(None, None, "nothing was committed yet")
    write(tmp_path / "README.md")
    git(tmp_path, "add", "README.md")
    git(tmp_path, "commit", "-qm", "no input")
    assert commit_of(INPUTS) == Commit(None, None, "no commit holds the inputs")


def test_without_git_there_is_a_reason(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(project))
    assert commit_of(INPUTS) == Commit(None, None, "git is not installed")


def test_variables_of_another_repository_are_not_obeyed(
    project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As a git hook of another repository sets them."""
    here = commit_of(INPUTS)
    write(tmp_path / "other/conf/a.yaml", "other\n")
    git(tmp_path / "other", "init", "-q")
    assert commit_all(tmp_path / "other") != here.sha1
    monkeypatch.setenv("GIT_DIR", str(tmp_path / "other/.git"))
    monkeypatch.setenv("GIT_WORK_TREE", str(tmp_path / "other"))
    monkeypatch.setenv("GIT_INDEX_FILE", str(tmp_path / "none"))
    assert commit_of(INPUTS) == here


def test_settings_of_the_user_are_obeyed(project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A container's safe.directory often comes like this, and then `git status` by hand works."""
    write(project / "conf/notes.txt")
    assert commit_of(INPUTS).dirty
    write(tmp_path / "ignored", "notes.txt\n")
    for key, value in {"COUNT": "1", "KEY_0": "core.excludesFile", "VALUE_0": f"{tmp_path}/ignored"}.items():
        monkeypatch.setenv(f"GIT_CONFIG_{key}", value)
    assert commit_of(INPUTS) == Commit(head(project), dirty=False)


def test_the_repository_is_only_read(project: Path) -> None:
    write(project / "conf/a.yaml")  # the same text at another time: git status would write that into its index
    before = {path: path.read_bytes() for path in project.rglob("*") if path.is_file()}
    assert commit_of(INPUTS).dirty is False
    assert {path: path.read_bytes() for path in project.rglob("*") if path.is_file()} == before


def test_a_repository_that_git_cannot_read_is_one_line(project: Path) -> None:
    (project / ".git/HEAD").write_text("ref: refs/heads/main\n")
    write(project / ".git/refs/heads/main", f"{'1' * 40}\n")
    with pytest.raises(EnvironmentProblem, match=r"package: git cannot say .*`git status` must work") as caught:
        commit_of(INPUTS)
    assert "\n" not in str(caught.value)


def test_a_git_that_waits_is_one_line(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(project / "bin/git", "#!/bin/sh\nexec sleep 60\n")
    (project / "bin/git").chmod(0o755)
    monkeypatch.setenv("PATH", f"{project}/bin:/usr/bin:/bin")
    monkeypatch.setattr(commit, "PATIENCE_S", 0.2)
    with pytest.raises(EnvironmentProblem, match=r"`git rev-list` took more than 0\.2 s") as caught:
        commit_of(INPUTS)
    assert "\n" not in str(caught.value)
