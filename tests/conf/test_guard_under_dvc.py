"""A configuration that cannot run never costs an old output, under `dvc repro` and every kind of `dvc exp run`."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

# The guard as in the repository's dvc.yaml, and a stand-in for the root stage that hangs on it.
PIPELINE = """\
stages:
  guard:
    cmd: PYTHONPATH=src {python} -m tuneline.stages.guard --params params.yaml --conf conf --out data/guard.txt
    deps: [conf, params.yaml]
    outs: [data/guard.txt]
  root:
    cmd: mkdir -p data/copied && cp params.yaml data/copied/copy
    deps: [data/guard.txt]
    params: [lora]
    outs: [data/copied]
"""
SETTINGS = ("core.analytics false", "core.check_update false", "hydra.enabled true", "hydra.plugins_path conf/plugins")


class Project:
    """A scratch DVC repository."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.copy = folder / "data/copied/copy"

    def run(self, *words: str, fails: bool = False) -> str:
        """Run a command in the folder; returns what it printed."""
        environment = {**os.environ, "PYTHONPATH": str(self.folder / "src")}
        ran = subprocess.run(
            words, cwd=self.folder, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )
        assert (ran.returncode != 0) == fails, ran.stdout
        return ran.stdout

    def dvc(self, *words: str, fails: bool = False) -> str:
        return self.run(sys.executable, "-m", "dvc", *words, fails=fails)

    def params(self, *overrides: str) -> None:
        self.run(sys.executable, "-m", "tuneline.commands.params", *overrides)


@pytest.fixture(scope="module")
def project(pytestconfig: pytest.Config, tmp_path_factory: pytest.TempPathFactory) -> Project:
    folder, source = tmp_path_factory.mktemp("project"), pytestconfig.rootpath
    ignored = shutil.ignore_patterns("__pycache__")
    shutil.copytree(source / "conf", folder / "conf", ignore=ignored)
    shutil.copytree(source / "src/tuneline", folder / "src/tuneline", ignore=ignored)
    (folder / "dvc.yaml").write_text(PIPELINE.format(python=sys.executable), encoding="utf-8")
    (folder / ".gitignore").write_text("__pycache__/\n", encoding="utf-8")
    project = Project(folder)
    project.run("git", "init", "-q")
    for setting in ("user.email a@example.org", "user.name a"):
        project.run("git", "config", *setting.split())
    project.dvc("init", "-q")
    (folder / ".dvcignore").write_text("__pycache__\n", encoding="utf-8")
    for setting in SETTINGS:
        project.dvc("config", *setting.split())
    project.params()
    project.dvc("repro")
    project.run("git", "add", "-A")
    project.run("git", "commit", "-qm", "first")
    return project


@pytest.fixture(autouse=True)
def restored(project: Project) -> None:
    project.run("git", "checkout", "-q", ".")
    project.dvc("repro")


def test_a_second_repro_runs_nothing(project: Project) -> None:
    printed = project.dvc("repro")
    assert "Running stage" not in printed
    assert "Data and pipelines are up to date" in printed


@pytest.mark.parametrize("where", [[], ["--temp"]])
def test_a_bad_value_in_an_experiment_keeps_the_old_outputs(where: list[str], project: Project) -> None:
    before = project.copy.read_bytes()
    printed = project.dvc("exp", "run", *where, "-S", "lora.r=abc", fails=True)
    assert "error: params.yaml: lora.r: 'abc', allowed is a whole number" in printed
    assert "Running stage 'root'" not in printed
    assert project.copy.read_bytes() == before


def test_a_stale_params_yaml_stops_repro_and_keeps_the_old_outputs(project: Project) -> None:
    before = project.copy.read_bytes()
    method = project.folder / "conf/method/lora.yaml"
    method.write_text(method.read_text(encoding="utf-8").replace("r: 16 ", "r: 32 "), encoding="utf-8")
    assert "params.yaml is stale" in project.dvc("repro", fails=True)
    assert project.copy.read_bytes() == before
    project.params()
    assert "Running stage 'root'" in project.dvc("repro")
    assert "r: 32" in project.copy.read_text(encoding="utf-8")


def test_a_value_that_no_root_stage_reads_repeats_the_guard_only(project: Project) -> None:
    printed = project.dvc("exp", "run", "-S", "train.weight_decay=0.1")
    assert "Running stage 'guard'" in printed
    assert "Running stage 'root'" not in printed


def test_an_experiment_in_a_copy_is_guarded_by_its_own_digest(project: Project) -> None:
    printed = project.dvc("exp", "run", "--temp", "-S", "lora.r=8")
    assert "Running stage 'root'" in printed
    assert "Ran experiment(s)" in printed


@pytest.mark.parametrize("change", [["+foo=1"], ["~seed"], ["method=full", "+lora.r=3"]])
def test_keys_cannot_be_added_or_removed(change: list[str], project: Project) -> None:
    before = project.copy.read_bytes()
    sets = [word for override in change for word in ("-S", override)]
    project.dvc("exp", "run", *sets, fails=True)
    assert project.copy.read_bytes() == before
