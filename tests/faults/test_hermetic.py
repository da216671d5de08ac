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
from tuneline.serving.integrity import verify_model

LIGHT = ("guard", "ingest", "clean", "split", "describe")
RECORD, CARD = "models/deploy/provenance.json", "models/deploy/README.md"
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


def but_for_the_commit(outputs: dict[str, bytes]) -> dict[str, bytes]:
    """The packaged folder without what says which commit it was made of, and the hashes of these lines."""
    if RECORD not in outputs:
        return outputs
    record = json.loads(outputs[RECORD])
    del record["git"], record["record_sha256"], record["files"]["README.md"]
    lines = [line for line in outputs[CARD].splitlines() if not line.startswith((b"Made of ", b"Of which commit "))]
    assert len(lines) == len(outputs[CARD].splitlines()) - 1
    return outputs | {RECORD: json.dumps(record, sort_keys=True).encode(), CARD: b"\n".join(lines)}


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
    assert but_for_the_commit(alone.outputs(stage)) == but_for_the_commit(project.outputs(stage))
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


@pytest.mark.faults
def test_package_names_the_commit_and_is_whole_without_one(whole_project: Project, tmp_path: Path) -> None:
    commit = subprocess.run(["git", "rev-parse", "HEAD"], cwd=whole_project.folder, check=True, capture_output=True)
    alone = hermetic(whole_project, "package", tmp_path / "alone")
    alone.stages = whole_project.stages
    alone.succeed("package")
    named, unnamed = (verify_model(project.folder / "models/deploy").record for project in (whole_project, alone))
    assert named["git"] == {"commit": commit.stdout.decode().strip(), "dirty": False}
    assert unnamed["git"] == {"commit": None, "dirty": None, "reason": "no git repository"}
