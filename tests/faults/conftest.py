"""Small copies of this repository, whose stages faults strike."""

import json
import os
import random
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.faults.forks import Forks
from tests.faults.project import RAW, ROOT, Project, base_environment, make_project, write_params
from tests.faults.trainers import NO_FAULT, Prepare, Trainers

DATA_STAGES = ("guard", "ingest", "clean", "split", "describe")
# What package and parity read of stages that take minutes: the figures of the default experiment
FIGURES = ("evaluate.json", "evaluate_merged.json", "verify/f16.json", "verify/q8_0.json", "verify/q4_k_m.json")


@pytest.hookimpl(tryfirst=True)  # before xdist looks for groups
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Only `make faults` and who asks for the marker run these minutes.

    What takes longest to make, `whole_project`, is made by one of its workers, who gets all tests of it.
    """
    if "faults" not in config.getoption("markexpr"):
        items[:] = [item for item in items if item.get_closest_marker("faults") is None]
    for item in items:
        if isinstance(item, pytest.Function) and "whole_project" in item.fixturenames:
            item.add_marker(pytest.mark.xdist_group("whole_project"))


@pytest.fixture(scope="session")
def seed() -> int:
    """Of this run: TUNELINE_SEED, or another one each time; a failure shows it."""
    chosen = int(os.environ.get("TUNELINE_SEED", random.SystemRandom().randrange(2**32)))
    print(f"TUNELINE_SEED={chosen}")
    return chosen


@pytest.fixture
def draw(seed: int, request: pytest.FixtureRequest) -> random.Random:
    """Draws that depend on the seed and the test's name alone."""
    print(f"TUNELINE_SEED={seed}")
    return random.Random(f"{seed} {request.node.name}")


@pytest.fixture(scope="session")
def data_project(tmp_path_factory: pytest.TempPathFactory) -> Project:
    """A project in which the data stages have run without a fault; copied, never changed."""
    project = make_project(tmp_path_factory.mktemp("data stages"))
    project.succeed(*DATA_STAGES)
    return project


@pytest.fixture(scope="session")
def tokens_project(data_project: Project, tmp_path_factory: pytest.TempPathFactory) -> Project:
    """And inspect."""
    project = copied(data_project, tmp_path_factory.mktemp("tokens") / "project")
    project.succeed("inspect@sft")
    return project


@pytest.fixture(scope="session")
def whole_project(tokens_project: Project, tmp_path_factory: pytest.TempPathFactory) -> Project:
    """And every stage to the folder that is deployed, but for those that compare models."""
    project = copied(tokens_project, tmp_path_factory.mktemp("whole") / "project")
    project.succeed("train@sft", "curves@sft", "merge", "convert", "quantize@q8_0", "quantize@q4_k_m")
    for name in FIGURES:
        (project.folder / "reports" / name).parent.mkdir(exist_ok=True)
        shutil.copyfile(ROOT / "reports" / name, project.folder / "reports" / name)
    commit_all(project.folder)  # package names the commit that everything before it was made of
    project.succeed("parity", "package")
    return project


def commit_all(folder: Path) -> None:
    identity = ("-c", "user.name=test", "-c", "user.email=test@example.org", "-c", "commit.gpgsign=false")
    for command in (("add", "-A"), (*identity, "commit", "-qm", "inputs")):
        subprocess.run(["git", *command], cwd=folder, check=True)


def copied(project: Project, folder: Path) -> Project:
    shutil.copytree(project.folder, folder, symlinks=True)
    copy = Project(folder)
    copy.stages = project.stages  # of the same dvc.yaml and params.yaml
    return copy


Copy = Callable[[Project], Project]


@pytest.fixture
def copy(tmp_path: Path) -> Copy:
    """A copy of a project that the test may spoil."""
    return lambda project: copied(project, tmp_path / "copy")


@pytest.fixture
def large_project(data_project: Project, copy: Copy) -> Project:
    """Rows for several processes: some parts of 2 MiB."""
    project = copy(data_project)
    pool = project.folder / RAW / "pool.jsonl"
    rows = [json.loads(line) for line in pool.read_bytes().splitlines()]
    lines = (
        row | {"prompt": f"{row['prompt']} ({number})"} for number in range(120) for row in rows if "prompt" in row
    )
    pool.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return project


@pytest.fixture(scope="session")
def forks() -> Iterator[Forks]:
    with Forks(ROOT, base_environment()) as forks:
        yield forks


@pytest.fixture(scope="session")
def trainers(forks: Forks) -> Trainers:
    return Trainers(forks)


@pytest.fixture(scope="session")
def trained(
    tokens_project: Project, trainers: Trainers, tmp_path_factory: pytest.TempPathFactory
) -> Callable[[dict[str, Any]], dict[str, bytes]]:
    """What a training with these settings leaves that nothing strikes; each is trained once."""
    known: dict[str, dict[str, bytes]] = {}

    def train(changed: dict[str, Any]) -> dict[str, bytes]:
        if (key := json.dumps(changed, sort_keys=True)) not in known:
            project = Project(copied(tokens_project, tmp_path_factory.mktemp("trained") / "project").folder)
            write_params(project.folder, changed)
            code, said = trainers.train(project, NO_FAULT)
            assert code == 0, said
            known[key] = project.outputs("train@sft")
            assert len(known[key]) > 4
            shutil.rmtree(project.folder)
        return known[key]

    return train


@pytest.fixture
def prepared(tokens_project: Project, copy: Copy, trained: Callable[[dict[str, Any]], dict[str, bytes]]) -> Prepare:
    """A project of that kind, and what its training without a fault leaves."""

    def prepare(**changed: Any) -> tuple[Project, dict[str, bytes]]:
        project = Project(copy(tokens_project).folder)
        write_params(project.folder, changed)
        return project, trained(changed)

    return prepare
