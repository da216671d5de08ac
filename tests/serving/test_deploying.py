"""`current` is a whole model at every moment; the fetched copy is verified; going back is quick. No DVC needed here."""

import json
import os
import shutil
import signal
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import pytest

from tests.serving.conftest import GGUF, write_package
from tuneline.errors import EnvironmentProblem, ModelError
from tuneline.serving import deploying
from tuneline.serving.integrity import verify_model

if TYPE_CHECKING:
    from tuneline.serving.source import Source

FIRST, SECOND = "1" * 40, "2" * 40


@dataclass
class Folder:
    """A source that copies a local folder and counts how often."""

    folder: Path
    commit: str
    rev: str = "v1"
    path: str = "models/deploy"
    public_repo: str = "somewhere"
    size: int = 1000
    n_downloads: int = 0

    def n_bytes(self) -> int:
        return self.size

    def download(self, to: Path) -> None:
        self.n_downloads += 1
        shutil.copytree(self.folder, to)


def deploy(folder: Folder, to: Path, keep: int = 3) -> Any:
    return deploying.deploy(cast("Source", folder), to, keep)


def version(folder: Folder) -> str:
    return deploying.version_name(cast("Source", folder))


@pytest.fixture
def first(tmp_path: Path) -> Folder:
    return Folder(write_package(tmp_path / "first", b"GGUF first"), FIRST)


@pytest.fixture
def second(tmp_path: Path) -> Folder:
    return Folder(write_package(tmp_path / "second", b"GGUF second"), SECOND, rev="v2")


def served(to: Path) -> bytes:
    return verify_model(to).gguf.read_bytes()


def test_deployed_folder_says_repository_revision_and_commit(first: Folder, tmp_path: Path) -> None:
    deploy(first, tmp_path / "to")
    deployment = verify_model(tmp_path / "to").deployment
    assert deployment is not None
    assert (deployment["repo"], deployment["rev"], deployment["commit"]) == ("somewhere", "v1", FIRST)


def test_the_way_back_fetches_nothing(first: Folder, second: Folder, tmp_path: Path) -> None:
    for source in (first, second, first):
        deploy(source, tmp_path / "to")
    assert served(tmp_path / "to") == b"GGUF first"
    assert (first.n_downloads, second.n_downloads) == (1, 1)


def test_two_models_of_one_commit_do_not_stand_for_each_other(first: Folder, second: Folder, tmp_path: Path) -> None:
    other = Folder(second.folder, FIRST, path="models/other")
    for source, content in ((first, b"GGUF first"), (other, b"GGUF second"), (first, b"GGUF first")):
        deploy(source, tmp_path / "to")
        assert served(tmp_path / "to") == content
    assert (first.n_downloads, other.n_downloads) == (1, 1)
    assert version(first) == version(Folder(first.folder, FIRST, path="./models/deploy/"))


def test_a_version_is_on_the_disk_with_its_name_and_record_before_current_moves(
    first: Folder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    flushed: list[Path] = []
    point = deploying._point
    monkeypatch.setattr(os, "fsync", lambda number: flushed.append(Path(f"/proc/self/fd/{number}").readlink()))
    moved: list[list[Path]] = []

    def noted(*paths: Path) -> None:
        moved.append([*flushed])
        point(*paths)

    monkeypatch.setattr(deploying, "_point", noted)
    deploy(first, tmp_path / "to")
    versions = tmp_path.resolve() / "to/.versions"
    (before,) = moved
    assert before[-1] == versions
    assert {versions / version(first), versions / version(first) / "deployment.json"} <= set(before)


def test_a_damaged_version_is_fetched_again(first: Folder, tmp_path: Path) -> None:
    verified = deploy(first, tmp_path / "to")
    verified.gguf.write_bytes(b"GGUF damaged")
    deploy(first, tmp_path / "to")
    assert served(tmp_path / "to") == b"GGUF first"


def test_a_swapped_lineage_is_not_the_deployed_one(first: Folder, second: Folder, tmp_path: Path) -> None:
    verified = deploy(first, tmp_path / "to")
    shutil.rmtree(verified.folder)
    shutil.copytree(second.folder, verified.folder)
    with pytest.raises(ModelError, match=r"provenance\.json: not the file that .*deployment\.json says"):
        verify_model(tmp_path / "to")


def test_a_fetched_folder_that_is_not_as_recorded_is_not_deployed(
    first: Folder, second: Folder, tmp_path: Path
) -> None:
    deploy(first, tmp_path / "to")
    (second.folder / GGUF).write_bytes(b"GGUF secnod")
    with pytest.raises(ModelError, match=r"tiny\.gguf: changed"):
        deploy(second, tmp_path / "to")
    assert served(tmp_path / "to") == b"GGUF first"
    assert {path.name for path in (tmp_path / "to/.versions").iterdir()} == {version(first), ".lock"}


def test_a_full_disk_is_refused_before_the_fetch_with_both_figures(
    first: Folder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    free = type("Usage", (), {"free": 999})
    monkeypatch.setattr(shutil, "disk_usage", lambda _: free)
    with pytest.raises(EnvironmentProblem, match=r"needs up to 1,000 bytes, 999 are free .*another --to"):
        deploy(first, tmp_path / "to")
    assert first.n_downloads == 0


def test_old_versions_are_bounded_and_the_latest_stay(first: Folder, tmp_path: Path) -> None:
    sources = [Folder(first.folder, str(number) * 40) for number in range(5)]
    names = [version(source) for source in sources]
    for moment, source in enumerate(sources):
        deploy(source, tmp_path / "to", keep=2)
        os.utime(tmp_path / "to/.versions" / names[moment] / "deployment.json", (moment, moment))
    assert {path.name for path in (tmp_path / "to/.versions").iterdir()} == {*names[-2:], ".lock"}
    deploy(sources[3], tmp_path / "to", keep=1)
    assert {path.name for path in (tmp_path / "to/.versions").iterdir()} == {names[3], ".lock"}


def test_a_folder_with_another_current_is_left_alone(first: Folder, tmp_path: Path) -> None:
    (tmp_path / "to/current").mkdir(parents=True)
    with pytest.raises(EnvironmentProblem, match="not a link that `tuneline deploy` made"):
        deploy(first, tmp_path / "to")


def test_two_deployments_at_once_do_not_mix(first: Folder, second: Folder, tmp_path: Path) -> None:
    class Meanwhile(Folder):
        def download(self, to: Path) -> None:
            with pytest.raises(EnvironmentProblem, match="another deployment is running"):
                deploy(second, tmp_path / "to")
            super().download(to)

    deploy(Meanwhile(first.folder, FIRST), tmp_path / "to")
    assert served(tmp_path / "to") == b"GGUF first"


def test_the_deployed_folder_can_be_moved(first: Folder, tmp_path: Path) -> None:
    deploy(first, tmp_path / "to")
    (tmp_path / "to").rename(tmp_path / "moved")
    assert served(tmp_path / "moved") == b"GGUF first"


def killed_at(step: int, source: Folder, to: Path) -> bool:
    """Deploy in a child that kills itself before its `step`th call on the file system; whether it got that far."""
    child = os.fork()
    if child == 0:
        calls = iter(range(step))

        def count(event: str, _: object) -> None:
            watched = event.startswith(("os.", "open", "shutil.", "fcntl.")) and event != "os.kill"
            if watched and next(calls, None) is None:
                os.kill(os.getpid(), signal.SIGKILL)

        try:
            sys.addaudithook(count)
            deploy(source, to)
        finally:
            os._exit(0)
    _, status = os.waitpid(child, 0)
    return os.WIFSIGNALED(status)


def test_killed_at_any_step_the_old_or_the_new_model_is_whole(
    first: Folder, second: Folder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "fsync", lambda _: None)  # against power cuts, which no test makes; seconds in all
    outcomes = []
    step, killed = 0, True
    while killed:
        to = tmp_path / f"to{step}"
        deploy(first, to)
        killed = killed_at(step, second, to)
        outcomes.append(served(to))
        deploy(second, to)  # what a killed one left behind is in nobody's way
        assert served(to) == b"GGUF second"
        assert not (to / ".versions/.fetching").exists()
        shutil.rmtree(to)
        step += 1
    assert step > 50
    assert set(outcomes) == {b"GGUF first", b"GGUF second"}
    assert outcomes == sorted(outcomes)  # once it is the new one, it stays


def test_deployment_record_is_json_for_other_tools(first: Folder, tmp_path: Path) -> None:
    deploy(first, tmp_path / "to")
    record = json.loads((tmp_path / "to/.versions" / version(first) / "deployment.json").read_text())
    assert set(record) == {"commit", "path", "provenance_sha256", "repo", "rev"}
