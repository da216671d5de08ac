"""Endpoints on loopback, one that answers as a test tells it to and llama.cpp's own; rows and jobs for them."""

import json
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Lock, Thread
from typing import Any

import pytest

from tuneline.config.schema import AugmentConfig, EndpointConfig, TeacherJobConfig
from tuneline.data.record_files import write_examples
from tuneline.data.records import Example, Message, make_example

ROOT = Path(__file__).resolve().parents[2]
BASE = ROOT / "models" / "base" / "sqlama"
Body = dict[str, Any]


@dataclass
class Answer:
    """What the endpoint sends back."""

    content: Body | bytes
    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)
    delay_s: float = 0.0


def completion(text: str | None, *, reason: str = "stop", tokens: tuple[int, int] | None = (10, 5)) -> Answer:
    """A chat completion in OpenAI's form."""
    message = {"role": "assistant", "content": text}
    body: Body = {"object": "chat.completion", "choices": [{"index": 0, "message": message, "finish_reason": reason}]}
    if tokens is not None:
        body["usage"] = {"prompt_tokens": tokens[0], "completion_tokens": tokens[1], "total_tokens": sum(tokens)}
    return Answer(body)


def refusal(status: int, message: str, code: str | None = None, **headers: str) -> Answer:
    """An error in OpenAI's form; `retry_after="1"` becomes the header Retry-After."""
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return Answer({"error": {"message": message, "type": "error", "param": None, "code": code}}, status, named)


def said(body: Body) -> str:
    """What a request asks."""
    text: str = body["messages"][0]["content"]
    return text


class FakeEndpoint:
    """Counts what it is asked; `reply` decides what it says."""

    def __init__(self, reply: Callable[[Body], Answer]) -> None:
        self.reply = reply
        self.bodies: list[Body] = []
        self.headers: list[dict[str, str]] = []
        self.most_at_once = 0
        self._at_once = 0
        self._lock = Lock()
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_port}/v1"
        self._thread = Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.01})
        self._thread.start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def answer(self, path: str, headers: dict[str, str], body: Body) -> Answer:
        with self._lock:
            self.bodies.append(body)
            self.headers.append({name.lower(): value for name, value in headers.items()})
            self._at_once += 1
            self.most_at_once = max(self.most_at_once, self._at_once)
        try:
            answer = self.reply(body) if path == "/v1/chat/completions" else refusal(404, f"no such path {path}")
            time.sleep(answer.delay_s)
            return answer
        finally:
            with self._lock:
                self._at_once -= 1

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        endpoint = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["content-length"])))
                answer = endpoint.answer(self.path, dict(self.headers), body)
                is_json = isinstance(answer.content, dict)
                content = json.dumps(answer.content).encode() if is_json else answer.content
                assert isinstance(content, bytes)
                try:
                    self.send_response(answer.status)
                    self.send_header("content-type", "application/json" if is_json else "text/html")
                    self.send_header("content-length", str(len(content)))
                    for name, value in answer.headers.items():
                        self.send_header(name, value)
                    self.end_headers()
                    self.wfile.write(content)
                except (BrokenPipeError, ConnectionResetError):
                    pass  # the client gave up waiting, or was killed

            def log_message(self, format: str, *args: object) -> None:
                pass

        return Handler


@pytest.fixture
def fake() -> Iterator[FakeEndpoint]:
    """Says the question backwards, until a test gives it another `reply`."""
    endpoint = FakeEndpoint(lambda body: completion(said(body)[::-1]))
    yield endpoint
    endpoint.close()


@pytest.fixture
def config(fake: FakeEndpoint) -> EndpointConfig:
    return EndpointConfig(
        base_url=fake.url,
        model="a-model",
        api_key_env=None,
        limit_parameter="max_tokens",
        sends_seed=True,
        timeout_s=5.0,
        max_retries=0,
        concurrency=4,
        max_total_tokens=1_000_000,
    )


@pytest.fixture
def rewrite() -> TeacherJobConfig:
    return TeacherJobConfig(
        name="reworded",
        kind="rewrite",
        source="pool",
        n_rows=None,
        template="ask.jinja",
        target="answer",
        temperature=0.5,
        max_tokens=20,
    )


@pytest.fixture
def generate(rewrite: TeacherJobConfig) -> TeacherJobConfig:
    return rewrite.model_copy(update={"name": "invented", "kind": "generate", "target": None})


def augment(endpoint: EndpointConfig, *jobs: TeacherJobConfig) -> AugmentConfig:
    return AugmentConfig(
        endpoint=endpoint,
        jobs=jobs,
        max_rejected_fraction=0.5,
        stages=("teacher",),
        examples="data/augmented/clean/examples.jsonl",
        reported="data/augmented",
    )


def switched_off() -> AugmentConfig:
    return AugmentConfig(
        endpoint=None,
        jobs=(),
        max_rejected_fraction=0.5,
        stages=(),
        examples="data/clean/examples.jsonl",
        reported="conf/augment/off.yaml",
    )


def row(number: int, source: str = "pool") -> Example:
    turns = (
        Message("system", "be brief"),
        Message("user", f"question {number}"),
        Message("assistant", f"yes {number}"),
    )
    return make_example(source, number + 1, turns, None, {"database": f"db{number}"})


@pytest.fixture
def rows() -> list[Example]:
    return [row(number) for number in range(12)]


@pytest.fixture
def examples(rows: list[Example], tmp_path: Path) -> Path:
    path = tmp_path / "examples.jsonl"
    write_examples(path, [*rows, row(99, "test")])
    return path


@pytest.fixture
def templates(tmp_path: Path) -> Path:
    folder = tmp_path / "templates"
    folder.mkdir()
    (folder / "ask.jinja").write_text("{{ prompt }} | {{ answer }}\n")
    return folder


@pytest.fixture(scope="session")
def gguf(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The packaged model of this repository; where nothing is packaged, its base model."""
    packaged = sorted((ROOT / "models" / "deploy").glob("*.gguf"))
    if packaged:
        return packaged[0]
    from tuneline.export.gguf import convert
    from tuneline.export.llama_cpp import llama_cpp_folder
    from tuneline.model.tokenizers import load_tokenizer_from

    out = tmp_path_factory.mktemp("gguf") / "base.gguf"
    convert(BASE, load_tokenizer_from(BASE), out, outtype="f16", name="base", converter=llama_cpp_folder())
    return out


@pytest.fixture(scope="module")  # one for each, as its tests count the requests
def server(gguf: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, Path]]:
    """Address and log of a running server."""
    for name in ("fastapi", "uvicorn", "sse_starlette", "starlette_context", "pydantic_settings"):
        pytest.importorskip(name)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    log = tmp_path_factory.mktemp("server") / "log"
    command = [sys.executable, "-m", "llama_cpp.server", "--model", str(gguf), "--port", str(port)]
    options = ["--host", "127.0.0.1", "--n_ctx", "1024", "--n_threads", "2", "--model_alias", "sql"]
    with log.open("wb") as output:
        process = subprocess.Popen([*command, *options], stdout=output, stderr=subprocess.STDOUT)
    try:
        url = f"http://127.0.0.1:{port}/v1"
        wait_for(url, process, log)
        yield url, log
    finally:
        process.terminate()
        process.wait()


def wait_for(url: str, process: "subprocess.Popen[bytes]", log: Path) -> None:
    for _ in range(600):
        assert process.poll() is None, log.read_text()
        try:
            with urllib.request.urlopen(f"{url}/models", timeout=1):
                return
        except (urllib.error.URLError, OSError):
            time.sleep(0.1)
    raise AssertionError(log.read_text())
