"""From one clone to another place, through a real DVC remote: a local directory, and SSH to a server of this test."""

import getpass
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.export.conftest import PEFT_WARNING
from tests.serving.conftest import write_package
from tests.sshd import Sshd, running_sshd
from tuneline.serving.integrity import verify_model

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings(PEFT_WARNING)]

ARTIFACTS = "artifacts:\n  deploy:\n    path: models/deploy\n    type: model\n"
IDENTITY = {f"GIT_{role}_{key}": value for role in ("AUTHOR", "COMMITTER") for key, value in
            (("NAME", "test"), ("EMAIL", "test@example.org"))}  # fmt: skip

Run = Callable[..., str]


def run(folder: Path, *command: str) -> str:
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    source = str(Path("src").resolve())
    environment = {**os.environ, **IDENTITY, "PATH": path, "PYTHONPATH": source}
    result = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    assert result.returncode == 0, f"{' '.join(command)}\n{result.stdout}\n{result.stderr}"
    return result.stdout


def repository(folder: Path, versions: tuple[Path, Path], url: str, **settings: str) -> Path:
    """Tags v1 and v2 with a packaged model each, pushed; afterwards its own cache is gone."""
    folder.mkdir()
    run(folder, "git", "init", "-q")
    run(folder, "dvc", "init", "-q")
    run(folder, "dvc", "remote", "add", "-q", "-d", "store", url)
    for key, value in settings.items():
        run(folder, "dvc", "remote", "modify", "-q", "store", key, value)
    (folder / "dvc.yaml").write_text(ARTIFACTS)
    for tag, version in zip(("v1", "v2"), versions, strict=True):
        shutil.rmtree(folder / "models/deploy", ignore_errors=True)
        shutil.copytree(version, folder / "models/deploy")
        run(folder, "dvc", "add", "-q", "models/deploy")
        run(folder, "git", "add", "-A")
        run(folder, "git", "commit", "-q", "-m", tag)
        run(folder, "git", "tag", tag)
        run(folder, "dvc", "push", "-q")
    shutil.rmtree(folder / ".dvc/cache")
    return folder


def deploy(repo: Path, tag: str, to: Path) -> str:
    return run(to.parent, "tuneline", "deploy", str(repo), "--rev", tag, "--to", str(to))


def check_there_and_back(repo: Path, versions: tuple[Path, Path], to: Path) -> None:
    """Deploy v1, then v2, then v1 again: each time the files are those of the tag and say so."""
    for tag, version in (("v1", versions[0]), ("v2", versions[1]), ("v1", versions[0])):
        assert "every hash as recorded" in deploy(repo, tag, to)
        verified = verify_model(to)
        assert contents(verified.folder) == contents(version)
        assert verified.deployment is not None
        assert verified.deployment["rev"] == tag
        assert verified.deployment["commit"] == run(repo, "git", "rev-parse", f"{tag}^{{commit}}").strip()


def contents(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture(scope="module")
def repo(shipped: tuple[Path, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    top = tmp_path_factory.mktemp("pulling")
    return repository(top / "repo", shipped, str(top / "store"))


def test_tags_are_deployed_and_rolled_back_from_a_local_directory(
    repo: Path, shipped: tuple[Path, Path], tmp_path: Path
) -> None:
    run(tmp_path, "git", "clone", "-q", "--bare", str(repo), "bare.git")
    check_there_and_back(tmp_path / "bare.git", shipped, tmp_path / "to")


def test_dvc_get_import_and_artifacts_get_give_the_packaged_folder(
    repo: Path, shipped: tuple[Path, Path], tmp_path: Path
) -> None:
    run(tmp_path, "dvc", "get", "-q", str(repo), "models/deploy", "--rev", "v1", "-o", "got")
    verify_model(tmp_path / "got")
    assert contents(tmp_path / "got") == contents(shipped[0])
    run(tmp_path, "git", "clone", "-q", str(repo), "registry")
    run(tmp_path / "registry", "gto", "register", "deploy", "v2", "--version", "v0.0.1")
    # `dvc artifacts get` of a clone reads the remote of the clone
    run(tmp_path, "dvc", "artifacts", "get", "-q", "registry", "deploy", "--rev", "v0.0.1", "-o", "artifact")
    assert contents(tmp_path / "artifact") == contents(shipped[1])
    (tmp_path / "other").mkdir()
    run(tmp_path / "other", "git", "init", "-q")
    run(tmp_path / "other", "dvc", "init", "-q")
    run(tmp_path / "other", "dvc", "import", "-q", str(repo), "models/deploy", "--rev", "v1", "-o", "imported")
    assert contents(tmp_path / "other/imported") == contents(shipped[0])


ADAPTERS = {"default": "models/phase/sft", "adapters_cat": "models/combined"}


@pytest.fixture(scope="module", params=ADAPTERS)
def ran(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, str]]:
    """A repository whose experiment ran and is pushed, as tag v1; and the path of each artifact in it.

    The artifacts and stages are this repository's; every folder that a stage gives holds one file that says its path.
    """
    from tuneline.config.compose import compose

    repo = tmp_path_factory.mktemp("ran") / "repo"
    repo.mkdir()
    run(repo, "git", "init", "-q")
    run(repo, "dvc", "init", "-q")
    run(repo, "dvc", "remote", "add", "-q", "-d", "store", str(repo.parent / "store"))
    compose(Path("conf"), repo / "params.yaml", [f"merge={request.param}"])
    pipeline = yaml.safe_load(Path("dvc.yaml").read_text())
    stages = {name: only_models(pipeline["stages"][name]) for name in ("train", "combine", "merge", "package")}
    (repo / "dvc.yaml").write_text(yaml.safe_dump({**pipeline, "stages": stages}))
    for path in {"models/phase/sft", ADAPTERS[request.param], "models/merged", "models/deploy"}:
        (repo / path).mkdir(parents=True)
        (repo / path / "weights").write_text(path)
    run(repo, "dvc", "commit", "-q", "--force")
    run(repo, "git", "add", "-A")
    run(repo, "git", "commit", "-q", "-m", "ran")
    run(repo, "git", "tag", "v1")
    run(repo, "dvc", "push", "-q")
    shutil.rmtree(repo / ".dvc/cache")
    shutil.rmtree(repo / "models")
    return repo, {"adapter": ADAPTERS[request.param], "merged": "models/merged", "deploy": "models/deploy"}


def only_models(stage: dict[str, Any]) -> dict[str, Any]:
    """What the stage gives and for what it is repeated, without what it needs."""
    if "do" in stage:
        return {**stage, "do": only_models(stage["do"])}
    outs = [out for out in stage["outs"] if str(out).startswith("models/")]
    return {"cmd": "true", "outs": outs, **({"matrix": stage["matrix"]} if "matrix" in stage else {})}


def test_every_artifact_is_what_dvc_get_fetches(ran: tuple[Path, dict[str, str]], tmp_path: Path) -> None:
    repo, artifacts = ran
    run(tmp_path, "git", "clone", "-q", "--bare", str(repo), "bare.git")
    for name, path in artifacts.items():
        run(tmp_path, "dvc", "get", "-q", "bare.git", path, "--rev", "v1", "-o", name)
        assert contents(tmp_path / name) == {"weights": path.encode()}


def test_every_artifact_is_fetched_by_its_name_and_version(ran: tuple[Path, dict[str, str]], tmp_path: Path) -> None:
    repo, artifacts = ran
    run(tmp_path, "git", "clone", "-q", str(repo), "registry")
    for name, path in artifacts.items():
        run(tmp_path / "registry", "gto", "register", name, "v1", "--version", "v0.0.1")
        run(tmp_path, "dvc", "artifacts", "get", "-q", "registry", name, "--rev", "v0.0.1", "-o", name)
        assert contents(tmp_path / name) == {"weights": path.encode()}


def test_a_fetch_killed_at_random_moments_leaves_a_whole_model(tmp_path: Path) -> None:
    """SIGKILL of the command itself, with DVC's threads at work; every single step is tried in test_deploying."""
    versions = tuple(write_package(tmp_path / name, b"GGUF" + name.encode() * 10**6) for name in ("one", "two"))
    repo = repository(tmp_path / "repo", (versions[0], versions[1]), str(tmp_path / "store"))
    deploy(repo, "v1", tmp_path / "to")
    whole = [contents(version) for version in versions]
    started = time.monotonic()
    deploy(repo, "v2", tmp_path / "timed")
    duration_s = time.monotonic() - started
    moments = random.Random(0)
    for _ in range(8):
        command = [sys.executable, "-m", "tuneline.commands.main", "deploy", str(repo), "--rev", "v2", "--to"]
        environment = {**os.environ, "PYTHONPATH": str(Path("src").resolve())}
        with subprocess.Popen([*command, str(tmp_path / "to")], env=environment, stdout=subprocess.DEVNULL) as child:
            time.sleep(moments.uniform(0.3, 1.0) * duration_s)
            child.send_signal(signal.SIGKILL)
        assert contents(verify_model(tmp_path / "to").folder) in whole
    deploy(repo, "v2", tmp_path / "to")
    assert contents(verify_model(tmp_path / "to").folder) == whole[1]


def test_what_cannot_be_fetched_is_one_line(repo: Path, tmp_path: Path) -> None:
    empty = tmp_path / "empty"
    empty.mkdir()
    command = [sys.executable, "-m", "tuneline.commands.main", "deploy", "--to", str(tmp_path / "to")]
    environment = {**os.environ, "PYTHONPATH": str(Path("src").resolve())}
    for words, message in (
        ([str(repo), "--rev", "v9"], "unknown Git revision 'v9'"),
        ([str(repo), "--rev", "v9"], f"`git ls-remote --heads --tags {repo}` shows which there are"),
        ([str(tmp_path / "nowhere"), "--rev", "v1"], "nowhere at v1: "),
        ([str(tmp_path / "nowhere"), "--rev", "v1"], f"`git ls-remote {tmp_path / 'nowhere'}` tells whether it is"),
        ([str(empty), "--rev", "v1"], "give the folder of a Tuneline repository"),
        (["ssh://user:secret@localhost:9/x.git", "--rev", "v1"], "`git ls-remote ssh://localhost:9/x.git` tells"),
        ([str(repo), "--rev", "v1", "--path", "models/none"], "no folder models/none at v1"),
        ([str(repo), "--rev", "v1", "--remote", "elsewhere"], "remote 'elsewhere' doesn't exist"),
        ([str(repo), "--rev", "v1", "--remote-config", "url=/nowhere", "--remote", "store"], f"{repo} at v1: "),
    ):
        ended = subprocess.run([*command, *words], env=environment, capture_output=True, text=True, check=False)
        assert ended.returncode == 1, words
        (line,) = [line for line in ended.stderr.splitlines() if line.startswith("error: ")]
        assert message in line
        assert "Traceback" not in ended.stderr
        assert "secret" not in ended.stderr
        assert not (tmp_path / "to/current").exists()


@pytest.fixture
def sshd(tmp_path: Path) -> Iterator[Sshd]:
    with running_sshd(tmp_path / "server") as server:
        yield server


def test_tags_are_deployed_and_rolled_back_over_ssh(sshd: Sshd, shipped: tuple[Path, Path], tmp_path: Path) -> None:
    url = f"ssh://{getpass.getuser()}@127.0.0.1:{sshd.port}{tmp_path}/store"
    repo = repository(tmp_path / "repo", shipped, url, keyfile=str(sshd.key))
    assert list((tmp_path / "store").rglob("*.dir")), "pushed over the wire"
    check_there_and_back(repo, shipped, tmp_path / "to")


def test_a_deployed_record_names_no_secret_of_the_address() -> None:
    from tuneline.serving.source import without_user

    assert without_user("https://me:token@example.org/repo.git") == "https://example.org/repo.git"
    assert without_user("git@example.org:repo.git") == "git@example.org:repo.git"
    assert json.dumps(without_user("/a/folder")) == '"/a/folder"'
