"""A remote that dies or falls silent while objects are on their way: a clear end, and nothing half passes for whole."""

import getpass
import hashlib
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.serving.conftest import write_package
from tests.sshd import Sshd, running_sshd
from tuneline.serving.integrity import verify_model
from tuneline.upkeep.rot import OBJECT

pytestmark = pytest.mark.faults

LARGE_BYTES = 64 << 20  # on its way for long enough to be met there
PATIENCE_S = 120
SILENT_S = 3  # after which a server without an answer is given up, in these tests
WATCHFUL = f"Host 127.0.0.1\n  ServerAliveInterval 1\n  ServerAliveCountMax {SILENT_S}\n"


@pytest.fixture
def sshd(tmp_path: Path) -> Iterator[Sshd]:
    with running_sshd(tmp_path / "server") as server:
        yield server


@pytest.fixture
def project(new_project: Callable[[], Any], sshd: Sshd, tmp_path: Path) -> Any:
    """With a folder of several objects, a file by itself, and a remote that verifies what is pulled."""
    project = new_project()
    project.dvc("remote", "add", "-d", "store", f"ssh://{getpass.getuser()}@127.0.0.1:{sshd.port}{tmp_path}/store")
    project.dvc("remote", "modify", "store", "keyfile", str(sshd.key))
    project.dvc("remote", "modify", "store", "verify", "true")
    (project.folder / "many").mkdir()
    for number in range(4):
        (project.folder / f"many/{number}").write_bytes(os.urandom(1000 + number))
    for name in ("many/large", "alone"):
        (project.folder / name).write_bytes(os.urandom(LARGE_BYTES))
    project.dvc("add", "many", "alone")
    return project


def contents(project: Any) -> dict[str, str]:
    files = [*(project.folder / "many").iterdir(), project.folder / "alone"]
    return {path.name: hashlib.md5(path.read_bytes()).hexdigest() for path in files}


def forget(project: Any, *names: str) -> None:
    """What a machine does not have that never pulled them."""
    shutil.rmtree(project.folder / ".dvc/cache")
    for name in names:
        path = project.folder / name
        shutil.rmtree(path) if path.is_dir() else path.unlink()


def objects(top: Path) -> list[Path]:
    """All that bear a whole object's name."""
    files = (path for path in top.glob("files/md5/*/*") if path.is_file())
    return [path for path in files if OBJECT.fullmatch(f"{path.parent.name}/{path.name}")]


def damaged(top: Path) -> list[Path]:
    return [path for path in objects(top) if hashlib.md5(path.read_bytes()).hexdigest() != name_of(path)]


def name_of(path: Path) -> str:
    return f"{path.parent.name}{path.name}".removesuffix(".dir")


class Transfer:
    """A command that is under way, and what it says."""

    def __init__(self, project: Any, *words: str) -> None:
        environment = {**os.environ, "PYTHONPATH": str(project.source / "src")}
        self._log: Path = project.folder.parent / "said"
        with self._log.open("w") as said:
            self.process = subprocess.Popen(
                [sys.executable, "-m", *words], cwd=project.folder, env=environment, stdout=said, stderr=said
            )

    def until_half_way(self, top: Path, pattern: str = "files/md5/*/.*.tmp", n_before: int = 0) -> None:
        """Until some bytes of a large file are in `top`, by far not all, and so many large objects are whole."""
        deadline = time.monotonic() + PATIENCE_S
        while (
            sum(size(path) == LARGE_BYTES for path in objects(top)) < n_before
            or not any(LARGE_BYTES // 64 < size(path) < LARGE_BYTES // 2 for path in top.glob(pattern))
        ):  # fmt: skip
            assert self.process.poll() is None, f"it ended before: {self._log.read_text()}"
            assert time.monotonic() < deadline
            time.sleep(0.001)

    def fails(self) -> str:
        """What it said until its end, which comes soon and is no success."""
        try:
            code = self.process.wait(PATIENCE_S)
        finally:
            self.process.kill()
            self.process.wait()
        said = self._log.read_text()
        assert code not in (0, None), said
        assert code > 0, said
        assert "Traceback" not in said
        return said


def size(path: Path) -> int:
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0


def assert_told_of_the_connection(said: str) -> None:
    assert re.search(r"^ERROR: failed to transfer '[0-9a-f]{32}' - .*([Cc]onnection|Broken pipe)", said, re.MULTILINE)
    assert re.search(r"^ERROR: (failed to (push|pull) data|unexpected error - .*[Cc]onnection)", said, re.MULTILINE), (
        said
    )


@pytest.mark.parametrize("names", [("many",), ("alone",), ("many", "alone")], ids=" and ".join)
def test_a_push_to_a_server_that_is_killed_fails_and_the_next_one_completes_it(
    names: tuple[str, ...], project: Any, sshd: Sshd, tmp_path: Path
) -> None:
    store, before = tmp_path / "store", contents(project)
    push = Transfer(project, "dvc", "push", *names)
    push.until_half_way(store)
    sshd.kill()
    assert_told_of_the_connection(push.fails())
    assert damaged(store) == []
    assert not [path for path in objects(store) if path.name.endswith(".dir")], "a list of files that are not all there"

    sshd.start()
    project.dvc("push", *names)
    assert damaged(store) == []
    forget(project, *names)
    project.dvc("pull", *names)
    assert contents(project) == before


@pytest.mark.parametrize("names", [("many",), ("alone",)], ids=" and ".join)
def test_a_pull_from_a_server_that_is_killed_fails_without_half_an_object_and_the_next_one_completes_it(
    names: tuple[str, ...], project: Any, sshd: Sshd
) -> None:
    cache, before = project.folder / ".dvc/cache", contents(project)
    project.dvc("push")
    forget(project, *names)
    pull = Transfer(project, "dvc", "pull", *names)
    pull.until_half_way(cache)
    sshd.kill()
    assert_told_of_the_connection(pull.fails())
    assert damaged(cache) == []
    project.dvc("checkout", *names, fails=True)
    assert not (project.folder / "many/large").exists() or "many" not in names
    assert not (project.folder / "alone").exists() or "alone" not in names

    sshd.start()
    project.dvc("pull", *names)
    assert contents(project) == before
    project.tuneline("fsck")


@pytest.mark.parametrize("verify", ["true", "false"])
def test_half_an_object_gets_a_whole_ones_name_only_from_a_remote_that_does_not_verify_and_fsck_tells(
    verify: str, project: Any, sshd: Sshd
) -> None:
    """Why the README says `verify true`. DVC 3.67 fetches one object, then the rest; where that is a single one, it
    moves to its place what came before the error (_get_one in dvc_objects/fs/generic.py) and write-protects it."""
    project.dvc("remote", "modify", "store", "verify", verify)
    cache = project.folder / ".dvc/cache"
    (project.folder / "two").mkdir()
    for name in ("two/1", "two/2"):
        (project.folder / name).write_bytes(os.urandom(LARGE_BYTES))
    project.dvc("add", "two")
    project.dvc("push", "two")
    forget(project, "two")
    pull = Transfer(project, "dvc", "pull", "two")
    pull.until_half_way(cache, n_before=1)
    sshd.kill()
    assert_told_of_the_connection(pull.fails())
    halves = damaged(cache)
    assert len(halves) == (verify == "false")
    printed = project.tuneline("fsck", fails=bool(halves))
    assert [half for half in halves if f"{half}: damaged" not in printed] == []
    assert ("remote 'store': what is pulled is not verified" in printed) == (verify == "false")

    sshd.start()
    project.dvc("remote", "modify", "store", "verify", "true")
    for half in halves:
        half.unlink()  # as fsck says
    project.dvc("pull", "two")
    project.tuneline("fsck")


@pytest.fixture
def watchful(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """SSH asks a server that says nothing whether it is still there."""
    (tmp_path / "home/.ssh").mkdir(parents=True)
    (tmp_path / "home/.ssh/config").write_text(WATCHFUL)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))


@pytest.mark.usefixtures("watchful")
@pytest.mark.parametrize("direction", ["push", "pull"])
def test_a_server_that_falls_silent_is_given_up_where_ssh_is_told_to_ask(
    direction: str, project: Any, sshd: Sshd, tmp_path: Path
) -> None:
    """As a machine without power: nothing closes the connection, and TCP by itself waits for minutes or hours."""
    top = tmp_path / "store"
    if direction == "pull":
        project.dvc("push", "many")
        forget(project, "many")
        top = project.folder / ".dvc/cache"
    transfer = Transfer(project, "dvc", direction, "many")
    transfer.until_half_way(top)
    sshd.signal(signal.SIGSTOP)
    silent_since = time.monotonic()
    said = transfer.fails()
    assert f"ERROR: failed to {direction} data" in said
    assert time.monotonic() - silent_since < 60
    assert damaged(top) == []


@pytest.mark.usefixtures("watchful")
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSTOP])
def test_a_deployment_from_a_server_that_dies_or_falls_silent_fails_and_the_model_before_it_stays(
    number: signal.Signals, project: Any, sshd: Sshd, tmp_path: Path
) -> None:
    deploy = ("tuneline.commands.main", "deploy", str(project.folder), "--path", "model", "--to", str(tmp_path / "to"))
    for tag in ("v1", "v2"):
        shutil.rmtree(project.folder / "model", ignore_errors=True)
        write_package(project.folder / "model", b"GGUF" + os.urandom(LARGE_BYTES))
        project.dvc("add", "model")
        project.run("git", "add", "-A")
        project.run("git", "commit", "-qm", tag)
        project.run("git", "tag", tag)
        project.dvc("push", "model")
    wanted = hashlib.md5((project.folder / "model/tiny.gguf").read_bytes()).hexdigest()
    shutil.rmtree(project.folder / ".dvc/cache")
    project.run(sys.executable, "-m", *deploy, "--rev", "v1")
    before = verify_model(tmp_path / "to")

    second = Transfer(project, *deploy, "--rev", "v2")
    second.until_half_way(tmp_path / "to", ".versions/.fetching/**/*")
    sshd.signal(number)
    assert re.search(r"^error: .* at v2: .+$", second.fails(), re.MULTILINE)
    assert verify_model(tmp_path / "to") == before

    sshd.kill()
    sshd.start()
    project.run(sys.executable, "-m", *deploy, "--rev", "v2")
    assert hashlib.md5(verify_model(tmp_path / "to").gguf.read_bytes()).hexdigest() == wanted
