"""A stage reads what dvc.yaml declares and nothing else, and leaves what it declares and nothing else.

One exception is stated here: package asks Git for the commit of the inputs (`tuneline.export.commit`).
"""

import json
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.faults.project import Project
from tuneline.commands.wiring import PLUMBING

LIGHT = ("guard", "ingest", "clean", "split", "describe")
ASKS_GIT = ("package",)
HEAVY = ("inspect@sft", "train@sft", "curves@sft", "merge", "convert", "quantize@q8_0", "parity", "package")


def hermetic(project: Project, stage: str, folder: Path) -> Project:
    """A folder with the stage's dependencies, the modules that belong to every stage, and empty packages."""
    for dep in {*project.stages[stage].deps, "params.yaml", "dvc.yaml", ".dvc"}:
        put(project.folder / dep, folder / dep)
    for module in PLUMBING:
        path = Path("src", *module.split("."))
        put(project.folder / (path if (project.folder / path).is_dir() else path.with_suffix(".py")), folder / path)
    for package in (folder / "src/tuneline", *(folder / "src/tuneline").rglob("*")):
        if package.is_dir():
            (package / "__init__.py").touch()
    return Project(folder)


def put_history(source: Path, folder: Path) -> None:
    """The repository's history alone, as in a sparse checkout: a file that is not there, or emptied, is no change."""
    shutil.copytree(source / ".git", folder / ".git")
    git = ("git", "-C", str(folder))
    absent = subprocess.run([*git, "ls-files", "-z", "--modified"], check=True, capture_output=True).stdout
    subprocess.run([*git, "update-index", "-z", "--skip-worktree", "--stdin"], check=True, input=absent)


def put(source: Path, target: Path) -> None:
    if source.is_dir():
        shutil.copytree(source, target, dirs_exist_ok=True)
        return
    target = target.with_suffix(source.suffix) if source.suffix == ".py" else target
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(source, target)


def assert_hermetic(project: Project, stage: str, folder: Path) -> None:
    alone = hermetic(project, stage, folder / "alone")
    alone.stages = project.stages  # without DVC, in a folder that is no repository
    if stage in ASKS_GIT:
        put_history(project.folder, alone.folder)
    before = alone.names()
    alone.succeed(stage)
    assert alone.outputs(stage) == project.outputs(stage)
    outs = project.stages[stage].outs
    files = {name for name in alone.names() - before if (alone.folder / name).is_file()}
    assert [name for name in files if not any(name == out or name.startswith(f"{out}/") for out in outs)] == []
    assert [out for out in outs if not (alone.folder / out).exists()] == []


@pytest.mark.slow
@pytest.mark.parametrize("stage", LIGHT)
def test_a_light_stage_needs_its_declared_dependencies_only(stage: str, data_project: Project, tmp_path: Path) -> None:
    assert_hermetic(data_project, stage, tmp_path)


@pytest.mark.faults
def test_git_tells_package_the_commit_and_nothing_else(whole_project: Project, tmp_path: Path) -> None:
    """Without it the same folder comes to be, but for the lines that name the commit."""
    alone = hermetic(whole_project, "package", tmp_path / "alone")
    alone.stages = whole_project.stages
    alone.succeed("package")
    with_git, without = (project.outputs("package") for project in (whole_project, alone))
    record, card = "models/deploy/provenance.json", "models/deploy/README.md"
    named, unnamed = json.loads(with_git[record]), json.loads(without[record])
    assert unnamed.pop("git") == {"commit": None, "dirty": None, "reason": "no git repository"}
    assert named.pop("git") == {"commit": head(whole_project.folder), "dirty": False}
    for found in (named, unnamed):
        del found["record_sha256"], found["files"]["README.md"]
    assert named == unnamed
    lines, others = (found[card].decode().splitlines() for found in (with_git, without))
    assert len(lines) == len(others)
    differing = [pair for pair in zip(lines, others, strict=True) if len(set(pair)) > 1]
    assert [line[:7] for line, _ in differing] == ["Made of"]
    changed = {record, card}
    assert {name: data for name, data in with_git.items() if name not in changed} == {
        name: data for name, data in without.items() if name not in changed
    }


def head(folder: Path) -> str:
    return subprocess.run(
        ["git", "rev-parse", "HEAD"], cwd=folder, check=True, capture_output=True, text=True
    ).stdout.strip()


@pytest.mark.faults
@pytest.mark.parametrize("stage", HEAVY)
def test_a_heavy_stage_needs_its_declared_dependencies_only(stage: str, whole_project: Project, tmp_path: Path) -> None:
    assert_hermetic(whole_project, stage, tmp_path)
