"""A scratch DVC project with one stage, whose work keeps checkpoints as a training does."""

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryFile

import pytest

PIPELINE = """\
stages:
  work:
    cmd: {python} work.py
    deps: [work.py]
    params: [mode, length]
    outs: [models/out, data/text]
"""
# Ten steps; DVC_ROOT/mended and DVC_ROOT/hold are how a test reaches into it.
WORK = """\
import fcntl, os, sys, time
from pathlib import Path
root, name = Path(os.environ["DVC_ROOT"]), os.environ.get("DVC_EXP_NAME", "workspace")
values = dict(line.split(": ") for line in Path("params.yaml").read_text().splitlines())
kept = root / ".checkpoints" / name / "step"
kept.parent.mkdir(parents=True, exist_ok=True)
owner = kept.with_name("owner").open("a+")
fcntl.flock(owner, fcntl.LOCK_EX)
step = int(kept.read_text()) if kept.exists() else 0
with (root / "starts").open("a") as starts:
    print(name, step, file=starts)
while step < 10:
    step += 1
    kept.write_text(str(step))
    while step == 5 and (root / "hold").exists():
        time.sleep(0.05)
    if step == 5 and values["mode"] == "fail" and not (root / "mended").exists():
        sys.exit("error: work.py: no room at step 5")
Path("models/out/inner").mkdir(parents=True)
for number in range(3):
    Path(f"models/out/inner/{number}").write_bytes(bytes([number]) * int(values["length"]))
Path("data").mkdir(exist_ok=True)
Path("data/text").write_text("some text")
"""
SETTINGS = ("core.analytics false", "core.check_update false")


class Project:
    """The project, and commands in it."""

    def __init__(self, folder: Path, source: Path) -> None:
        self.folder, self.source = folder, source

    def run(self, *words: str, fails: bool = False) -> str:
        """Run a command in the folder; returns what it printed, through a file: workers would keep a pipe open."""
        path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
        environment = {**os.environ, "PYTHONPATH": str(self.source / "src"), "PATH": path}
        with TemporaryFile("w+") as printed:
            ran = subprocess.run(words, cwd=self.folder, env=environment, stdout=printed, stderr=subprocess.STDOUT)
            printed.seek(0)
            text = printed.read()
        assert (ran.returncode != 0) == fails, text
        return text

    def dvc(self, *words: str, fails: bool = False) -> str:
        return self.run(sys.executable, "-m", "dvc", *words, fails=fails)

    def tuneline(self, *words: str, fails: bool = False) -> str:
        return self.run(sys.executable, "-m", "tuneline.commands.main", *words, fails=fails)

    def python(self, code: str) -> str:
        return self.run(sys.executable, "-c", code)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if item.path.is_relative_to(Path(__file__).parent):
            item.add_marker(pytest.mark.upkeep)


def make_project(folder: Path, source: Path) -> Project:
    folder.mkdir()
    project = Project(folder, source)
    (folder / "dvc.yaml").write_text(PIPELINE.format(python=sys.executable), encoding="utf-8")
    (folder / "work.py").write_text(WORK, encoding="utf-8")
    (folder / "params.yaml").write_text("mode: work\nlength: 1000\n", encoding="utf-8")
    (folder / ".gitignore").write_text(".checkpoints/\nmended\nhold\nstarts\n/models/out\n/data/text\n")
    project.run("git", "init", "-q")
    for setting in ("user.email a@example.org", "user.name a"):
        project.run("git", "config", *setting.split())
    project.dvc("init", "-q")
    for setting in SETTINGS:
        project.dvc("config", *setting.split())
    project.run("git", "add", "-A")
    project.run("git", "commit", "-qm", "first")
    return project


@pytest.fixture(scope="session")
def first_project(tmp_path_factory: pytest.TempPathFactory, pytestconfig: pytest.Config) -> Project:
    """Copied, never changed."""
    return make_project(tmp_path_factory.mktemp("first") / "a project", pytestconfig.rootpath)


@pytest.fixture
def new_project(first_project: Project, tmp_path: Path) -> Callable[[], Project]:
    def make() -> Project:
        folder = tmp_path / "a project"
        shutil.copytree(first_project.folder, folder, symlinks=True)
        return Project(folder, first_project.source)

    return make
