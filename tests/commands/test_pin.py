"""`tuneline pin`, against a stand-in for the hub's API on this machine."""

import hashlib
import json
import re
import shutil
from argparse import Namespace
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from threading import Thread

import pytest
from omegaconf import OmegaConf

from tuneline.commands import pin
from tuneline.errors import ConfigError, EnvironmentProblem

COMMIT = "0123456789abcdef0123456789abcdef01234567"
Answer = tuple[int, dict[str, str], object]
Hub = Callable[[Answer], str]


@contextmanager
def standing_in(answer: Answer, asked: list[str]) -> Iterator[str]:
    """The address of a server that gives every request the same answer: status, headers, JSON."""
    status, headers, content = answer

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(self.path)
            body = json.dumps(content).encode()
            self.send_response(status)
            for name, value in {**headers, "Content-Length": str(len(body))}.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:
            """Keep the test's output quiet."""

    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


@pytest.fixture
def conf(pytestconfig: pytest.Config, tmp_path: Path) -> Path:
    shutil.copytree(pytestconfig.rootpath / "conf" / "model", tmp_path / "conf" / "model")
    return tmp_path / "conf"


def pinned(conf: Path, name: str, answer: Answer) -> list[str]:
    """Run `tuneline pin NAME` against the answer; returns the paths that were asked for."""
    asked: list[str] = []
    with standing_in(answer, asked) as endpoint:
        pin.execute(Namespace(conf=conf, name=name, endpoint=endpoint))
    return asked


def test_pin_writes_the_commit_of_main_and_leaves_the_rest(conf: Path) -> None:
    path = conf / "model" / "qwen3_8b.yaml"
    before = path.read_text(encoding="utf-8").splitlines()
    asked = pinned(conf, "qwen3_8b", (200, {}, {"id": "Qwen/Qwen3-8B", "sha": COMMIT}))
    after = path.read_text(encoding="utf-8").splitlines()
    assert asked == ["/api/models/Qwen/Qwen3-8B/revision/main"]
    assert OmegaConf.load(path).revision == COMMIT
    assert [old for old, new in zip(before, after, strict=True) if old != new] == [
        line for line in before if line.startswith("revision:")
    ]
    assert "UNPINNED" not in "\n".join(after)


def test_pin_moves_an_older_pin(conf: Path) -> None:
    for commit in (COMMIT, COMMIT[::-1]):
        pinned(conf, "phi4_mini", (200, {}, {"id": "x/y", "sha": commit}))
        assert OmegaConf.load(conf / "model" / "phi4_mini.yaml").revision == commit


FAILURES: dict[str, tuple[Answer, str]] = {
    "unknown": ((404, {"X-Error-Code": "RepoNotFound"}, {}), "not on the hub, or private; check name_or_path"),
    "gated": ((403, {"X-Error-Code": "GatedRepo"}, {}), "gated; accept its licence on the hub"),
    "not logged in": ((401, {}, {}), "no commit from the hub (Client error '401"),
    "broken": ((500, {}, {}), "no commit from the hub (Server error '500"),
    "no commit": ((200, {}, {"id": "x/y"}), "the endpoint answered revision None"),
    "another service": ((200, {}, {"id": "x/y", "sha": "main"}), "the endpoint answered revision 'main'"),
}


@pytest.mark.parametrize(("answer", "message"), FAILURES.values(), ids=FAILURES)
def test_a_refusal_is_one_line_and_changes_nothing(answer: Answer, message: str, conf: Path) -> None:
    path = conf / "model" / "gemma3_1b.yaml"
    before = path.read_bytes()
    with pytest.raises(EnvironmentProblem, match=re.escape(f"google/gemma-3-1b-it: {message}")) as caught:
        pinned(conf, "gemma3_1b", answer)
    assert "\n" not in str(caught.value)
    assert path.read_bytes() == before


def test_no_network_is_one_line(conf: Path) -> None:
    with standing_in((200, {}, {}), []) as endpoint:
        pass  # closed again: nothing listens there
    with pytest.raises(EnvironmentProblem, match=r"no commit from the hub \(.*\); check the network"):
        pin.execute(Namespace(conf=conf, name="qwen3_8b", endpoint=endpoint))


@pytest.mark.parametrize("repo", ["a/b/c", "-x", "Qwen/Qwen3..8B"])
def test_a_name_that_can_be_no_hub_id_is_refused_without_asking(repo: str, conf: Path) -> None:
    path = conf / "model" / "own.yaml"
    path.write_text(f"name_or_path: {repo}\ntracked_path: conf/model/own.yaml\nrevision: null\n", encoding="utf-8")
    with pytest.raises(ConfigError, match=f"^{re.escape(repo)}: no hub id .*mend name_or_path") as caught:
        pin.execute(Namespace(conf=conf, name="own", endpoint="http://127.0.0.1:9"))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("text", ["name_or_path: x/y\nrevision: null\n", "tracked_path: conf/model/own.yaml\n"])
def test_a_model_file_that_lacks_a_key_is_refused(text: str, conf: Path) -> None:
    (conf / "model" / "own.yaml").write_text(text, encoding="utf-8")
    with pytest.raises(ConfigError, match=r"own\.yaml: name_or_path or tracked_path is missing"):
        pin.execute(Namespace(conf=conf, name="own", endpoint=None))


def local_model(conf: Path) -> Path:
    """The folder that conf/model/sqlama.yaml names, beside this conf."""
    folder = conf.parent / "models/base/sqlama"
    (folder / "part").mkdir(parents=True)
    for name in ("model.safetensors", "part/config.json", ".gitignore"):
        (folder / name).write_text(name)
    return folder


def test_pin_writes_the_hash_of_each_file_of_a_folder_and_leaves_the_rest(conf: Path) -> None:
    path = conf / "model" / "sqlama.yaml"
    folder = local_model(conf)
    before = OmegaConf.load(path)
    lines = path.read_text(encoding="utf-8").splitlines()
    for content in ("model.safetensors", "another"):
        (folder / "model.safetensors").write_text(content)
        pin.execute(Namespace(conf=conf, name="sqlama", endpoint=None))
        after = OmegaConf.load(path)
        assert after.sha256 == {
            "model.safetensors": hashlib.sha256(content.encode()).hexdigest(),
            "part/config.json": hashlib.sha256(b"part/config.json").hexdigest(),
        }
        assert {**after, "sha256": None} == {**before, "sha256": None}
    written = path.read_text(encoding="utf-8").splitlines()
    assert [line for line in lines if line not in written] == [
        line for line in lines if re.search("[0-9a-f]{64}", line)
    ]


def test_a_folder_without_weights_is_refused(conf: Path) -> None:
    before = (conf / "model" / "sqlama.yaml").read_bytes()
    with pytest.raises(ConfigError, match="models/base/sqlama: no model folder with safetensors"):
        pin.execute(Namespace(conf=conf, name="sqlama", endpoint=None))
    assert (conf / "model" / "sqlama.yaml").read_bytes() == before


@pytest.mark.parametrize("name", ["a: b.md", "READ ME.md", "#notes", "-list.md"])
def test_a_file_whose_name_cannot_be_written_is_named_and_nothing_is_written(name: str, conf: Path) -> None:
    (local_model(conf) / name).write_text("")
    before = (conf / "model" / "sqlama.yaml").read_bytes()
    with pytest.raises(ConfigError, match=f"models/base/sqlama: {re.escape(repr(name))} is no name for conf/model"):
        pin.execute(Namespace(conf=conf, name="sqlama", endpoint=None))
    assert (conf / "model" / "sqlama.yaml").read_bytes() == before


@pytest.mark.parametrize("end", ["", "\n", "\n\nlicence: mit\n", "\nlicence: mit"])
@pytest.mark.parametrize(
    "hashes", ["null", "null  # of each", "{}", "\n  a.json: b", "  # of each\n  a.json: b\n\n# c\n  # d\n  e.json: f"]
)
def test_hashes_take_the_place_of_those_before_wherever_they_stand(hashes: str, end: str) -> None:
    digest = 64 * "a"
    text = pin.with_digests(f"name: x\nsha256: {hashes}{end}", {"config.json": digest}, Path("x.yaml"))
    rest = {"licence": "mit"} if "licence" in end else {}
    assert OmegaConf.to_container(OmegaConf.create(text)) == {"name": "x", "sha256": {"config.json": digest}, **rest}
    assert text.endswith(end)


@pytest.mark.parametrize("name", ["qwen3_8", "../model/qwen3_8b", "qwen3_8b.yaml"])
def test_an_unknown_name_lists_the_known_ones(name: str, conf: Path) -> None:
    with pytest.raises(ConfigError, match=r"allowed is gemma3_1b, .*; did you mean 'qwen3_8b'\?"):
        pin.execute(Namespace(conf=conf, name=name, endpoint=None))


def test_a_file_without_a_revision_line_is_refused() -> None:
    for text in ("name: x\n", "revision: null\nrevision: null\n", "model:\n  revision: null\n"):
        with pytest.raises(ConfigError, match=r"lines `revision: \.\.\.`, allowed is one"):
            pin.with_revision(text, COMMIT, Path("x.yaml"))


def test_a_file_without_a_line_for_hashes_is_refused() -> None:
    for text in ("name: x\n", "sha256: null\nsha256: null\n", "model:\n  sha256: null\n"):
        with pytest.raises(ConfigError, match=r"lines `sha256: \.\.\.`, allowed is one"):
            pin.with_digests(text, {}, Path("x.yaml"))
