"""A small copy of this repository in which stages run by the commands of dvc.yaml, and faults that end them."""

import compileall
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from py_compile import PycInvalidationMode
from tempfile import NamedTemporaryFile
from typing import Any

from tests.faults.forks import Forks

ROOT = Path(__file__).resolve().parents[2]
RAW = "data/raw/text_to_sql"
N_ROWS = {"pool": 160, "test": 24, "documents": 20}
# A training of 12 steps with a checkpoint every second one, and few rows wherever rows are looked at.
SMALL: dict[str, Any] = {
    "recipe.phases.sft.max_steps": 12,
    "train.global_batch_size": 4,
    "train.logging_steps": 3,  # a kill falls between two points of the curve
    "train.eval_steps": 6,
    "train.save_steps": 2,
    "hardware.micro_batch_size": 2,
    "hardware.eval_batch_size": 4,
    "merge.check_examples": 2,
    "clean.workers": 1,
}
DRAWN_NAME = re.compile(r"\b(listener-|pymp-|tmp)[a-z0-9_]{8}\b")  # by Python's tempfile
NOT_SCIENCE = "reports/speed/"  # seconds and memory of this machine
# Loaded by each stage, because its PYTHONPATH is the copy's src: file operations in the project are counted before
# they happen. KILL_AT ends the process without a warning at one of them; FILE_OPERATIONS gets a mark for each.
SITE = """\
import os, signal, sys
_at, _log, _top = int(os.environ.pop("KILL_AT", 0)), os.environ.pop("FILE_OPERATIONS", None), os.getcwd() + os.sep
_count = 0
def _inside(path):
    if isinstance(path, int) or path is None:
        return False
    path = os.path.join(_top, os.fsdecode(path))
    return path.startswith(_top) and "__pycache__" not in path and not path.startswith(_top + ".git")
def _hook(event, args):
    global _count
    if event == "open":
        changes = bool((args[2] or 0) & (os.O_WRONLY | os.O_RDWR | os.O_CREAT)) and _inside(args[0])
    else:
        changes = event in ("os.rename", "os.remove", "os.mkdir", "os.rmdir") and _inside(args[0])
    if changes:
        _count += 1
        if _log is not None:
            with open(_log, "a") as log:
                print(os.getpid(), event, args[0], file=log)
        if _count == _at:
            os.kill(os.getpid(), signal.SIGKILL)
if _at or _log:
    sys.addaudithook(_hook)
"""


@dataclass(frozen=True)
class Stage:
    """A stage of dvc.yaml with every ${...} filled in."""

    name: str
    cmd: str
    deps: tuple[str, ...]
    outs: tuple[str, ...]

    def read(self, dvc_root: Path) -> tuple[dict[str, str], list[str]]:
        """As a shell would: the variables that the command sets, and what is behind its `python -m`."""
        words = shlex.split(self.cmd.replace("$DVC_ROOT", str(dvc_root)))
        python = words.index("python")
        assert words[python + 1] == "-m"
        assert not any("$" in word for word in words)
        return dict(word.split("=", 1) for word in words[:python]), words[python + 2 :]


@dataclass
class Project:
    """The copy in `folder`; `environment` is set on top of this process's."""

    folder: Path
    environment: dict[str, str] = field(default_factory=dict)
    before: str = ""  # of each command, for the shell
    file_kib: int | None = None  # that a file of a stage may have
    forks: Forks | None = None  # stages come from there, instead of from the start of a Python

    @cached_property
    def stages(self) -> dict[str, Stage]:
        from dvc.repo import Repo  # type: ignore[import-untyped]  # DVC ships no types

        with Repo(str(self.folder)) as repo:
            return {stage.name: _stage(stage) for stage in repo.index.stages if stage.cmd}

    def start(self, stage: str, **environment: str) -> "subprocess.Popen[str]":
        """The stage's command; a KILL_AT or FILE_OPERATIONS in the environment is for SITE."""
        limit = "" if self.file_kib is None else f"ulimit -f {self.file_kib}; "
        return subprocess.Popen(
            f"{limit}{self.before}{self.stages[stage].cmd}", shell=True, executable="/bin/bash", cwd=self.folder,
            env=self._environment(environment), text=True,
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        )  # fmt: skip

    def _environment(self, more: dict[str, str]) -> dict[str, str]:
        return base_environment() | {"DVC_ROOT": str(self.folder)} | self.environment | more

    def run(self, stage: str, fault: Sequence[Any] = (), **environment: str) -> subprocess.CompletedProcess[str]:
        """Run the stage to its end; `stdout` holds all that it said. A `fault` is for a fork, and strikes a trainer."""
        if self.forks is not None:
            assert not self.before, "a shell that changes more than limits is a process's own"
            variables, words = self.stages[stage].read(self.folder)
            wanted = self._environment(environment) | variables | {"PWD": str(self.folder)}
            code, said = self.forks.run(words, self.folder, wanted, self.file_kib, fault)
            return subprocess.CompletedProcess(stage, code, said, "")
        assert not fault
        process = self.start(stage, **environment)
        said, _ = process.communicate()
        return subprocess.CompletedProcess(stage, process.returncode, said, "")

    def succeed(self, *stages: str, **environment: str) -> None:
        """Run the stages to a good end."""
        for stage in stages:
            ran = self.run(stage, **environment)
            assert ran.returncode == 0, f"{stage}: {ran.stdout[-3000:]}"

    def outputs(self, stage: str) -> dict[str, bytes]:
        """The files that the stage declares, those of folders one by one, without the machine's own figures."""
        return {name: data for out in self.stages[stage].outs for name, data in self.outputs_of(out).items()}

    def outputs_of(self, out: str) -> dict[str, bytes]:
        """The file, or the folder's files, that a stage declares as `out`."""
        files = [] if out.startswith(NOT_SCIENCE) else files_of(self.folder / out)
        return {file.relative_to(self.folder).as_posix(): file.read_bytes() for file in files}

    def remove_outputs(self, stage: str) -> None:
        """What DVC does before it runs a stage."""
        for out in self.stages[stage].outs:
            path = self.folder / out
            shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)

    def names(self) -> set[str]:
        """Every file and folder but for Git's, DVC's and Python's own."""
        found = {path.relative_to(self.folder).as_posix() for path in self.folder.rglob("*")}
        return {name for name in found if not name.startswith((".git/", ".dvc/")) and "__pycache__" not in name}

    def file_operations(self, stage: str) -> list[str]:
        """Run the stage to a good end; its file operations in the project, in order, as `event path`."""
        ran, operations = self.noted(stage)
        assert ran.returncode == 0, ran.stdout
        return operations

    def noted(self, stage: str, **environment: str) -> tuple[subprocess.CompletedProcess[str], list[str]]:
        """Run the stage to its end; and its file operations until then."""
        with NamedTemporaryFile("r", encoding="utf-8") as log:
            ran = self.run(stage, FILE_OPERATIONS=log.name, **environment)
            lines = [line.split(" ", 1) for line in DRAWN_NAME.sub(r"\1", log.read()).splitlines()]
        return ran, [operation for pid, operation in lines if pid == lines[0][0]]

    def forking(self, forks: Forks) -> "Project":
        """The same folder, whose stages come from there."""
        project = replace(self, forks=forks)
        project.stages = self.stages
        return project


def _stage(stage: Any) -> Stage:
    deps, outs = (tuple(item.def_path for item in items) for items in (stage.deps, stage.outs))
    return Stage(stage.name, stage.cmd, deps, outs)


def base_environment() -> dict[str, str]:
    kept = {key: value for key, value in os.environ.items() if key not in ("PYTHONPATH", "DVC_ROOT")}
    path = f"{Path(sys.executable).parent}{os.pathsep}{kept['PATH']}"
    return kept | {"PATH": path, "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1", "PYTHONDONTWRITEBYTECODE": "1"}


def files_of(path: Path) -> list[Path]:
    return sorted(file for file in path.rglob("*") if file.is_file()) if path.is_dir() else [path] * path.is_file()


def make_project(folder: Path, **changed: Any) -> Project:
    """The repository's code and configuration, a few hundred of its rows, the embedded base model."""
    for name in ("src", "conf", "models/base/sqlama", f"{RAW}/databases"):
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__", "*.egg-info"))
    for name in ("dvc.yaml", ".dvcignore", ".gitignore", ".dvc/config", ".dvc/.gitignore"):
        (folder / name).parent.mkdir(exist_ok=True)
        shutil.copyfile(ROOT / name, folder / name)
    (folder / "src/sitecustomize.py").write_text(SITE)
    compileall.compile_dir(folder / "src", quiet=2, invalidation_mode=PycInvalidationMode.CHECKED_HASH)  # once for all
    for name, n_rows in N_ROWS.items():
        lines = (ROOT / RAW / f"{name}.jsonl").read_bytes().splitlines(keepends=True)
        (folder / RAW / f"{name}.jsonl").write_bytes(b"".join(lines[:n_rows]))
    write_params(folder, changed)
    subprocess.run(["git", "init", "-q"], cwd=folder, check=True)
    return Project(folder)


def write_params(folder: Path, changed: Mapping[str, Any]) -> None:
    from omegaconf import OmegaConf

    params: Any = OmegaConf.load(ROOT / "params.yaml")
    for key, value in (SMALL | dict(changed)).items():
        OmegaConf.update(params, key, value)
    OmegaConf.save(params, folder / "params.yaml")
