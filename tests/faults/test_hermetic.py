"""A stage reads what dvc.yaml declares and nothing else, and leaves what it declares and nothing else."""

import shutil
from pathlib import Path

import pytest

from tests.faults.project import Project
from tuneline.commands.wiring import PLUMBING

LIGHT = ("guard", "ingest", "clean", "split", "describe")
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
@pytest.mark.parametrize("stage", HEAVY)
def test_a_heavy_stage_needs_its_declared_dependencies_only(stage: str, whole_project: Project, tmp_path: Path) -> None:
    assert_hermetic(whole_project, stage, tmp_path)
