"""The experiment in a fresh copy of this repository, as a user's clone would run it."""

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]

Run = Callable[..., subprocess.CompletedProcess[str]]


def environment() -> dict[str, str]:
    """This one, with the tests' own Python first on the path, without what would redirect the copy's imports."""
    kept = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    return kept | {"PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"}


def clone(folder: Path) -> Path:
    """A git repository in `folder` with every file that is or could be committed here."""
    listed = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    names = subprocess.run(listed, cwd=ROOT, check=True, capture_output=True, text=True).stdout
    for name in filter(None, names.split("\0")):
        if (ROOT / name).is_file():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, folder / name)
    subprocess.run(["git", "init", "-q"], cwd=folder, check=True)
    commit(folder, "clone")
    return folder


def commit(folder: Path, message: str) -> None:
    """Commit everything in the git repository `folder`."""
    identity = ["-c", "user.name=test", "-c", "user.email=test@example.org", "-c", "commit.gpgsign=false"]
    for command in (["add", "-A"], [*identity, "commit", "-q", "-m", message]):
        subprocess.run(["git", *command], cwd=folder, check=True)


def runner(folder: Path) -> Run:
    """`run("dvc", "repro")` in the folder; the output of a failure is shown."""

    def run(*command: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        result = subprocess.run(command, cwd=folder, env=environment(), capture_output=True, text=True, check=False)
        if check:
            assert result.returncode == 0, f"{' '.join(command)}\n{result.stdout[-4000:]}\n{result.stderr[-4000:]}"
        return result

    return run


@pytest.fixture(scope="session")
def experiment(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A clone in which the whole embedded experiment has run once."""
    folder = clone(tmp_path_factory.mktemp("tune line"))  # a space, as in many home folders
    runner(folder)("dvc", "repro")
    return folder


@pytest.fixture
def run(experiment: Path) -> Run:
    return runner(experiment)
