"""A server that somebody started: told apart are loaded, ended and too slow; a refusal is the server's own line."""

import subprocess
import sys
from collections.abc import Iterator
from http.client import HTTPConnection
from http.server import BaseHTTPRequestHandler, HTTPServer
from threading import Thread

import pytest

from tuneline.errors import EnvironmentProblem
from tuneline.export import llama_server
from tuneline.export.llama_server import refusal, starts


class Loading(BaseHTTPRequestHandler):
    """As llama-server: 503 while the model is loaded, then 200."""

    n_asked = 0

    def do_GET(self) -> None:
        Loading.n_asked += 1
        self.send_response(200 if Loading.n_asked > 2 else 503)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def port() -> Iterator[int]:
    with HTTPServer(("127.0.0.1", 0), Loading) as server:
        thread = Thread(target=server.serve_forever)
        thread.start()
        yield server.server_port
        server.shutdown()
        thread.join()


@pytest.fixture
def process() -> "Iterator[subprocess.Popen[bytes]]":
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as process:
        yield process
        process.kill()


def connect_to(port: int) -> HTTPConnection:
    return HTTPConnection("127.0.0.1", port, timeout=5)


def test_a_server_has_started_when_its_model_is_loaded(process: "subprocess.Popen[bytes]", port: int) -> None:
    Loading.n_asked = 0
    assert starts(process, lambda: connect_to(port))
    assert Loading.n_asked == 3


def test_a_server_that_ended_has_not_started(process: "subprocess.Popen[bytes]") -> None:
    process.kill()
    process.wait()
    assert not starts(process, lambda: connect_to(1))


def test_a_server_that_takes_too_long_is_one_line(
    process: "subprocess.Popen[bytes]", monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(llama_server, "START_TIMEOUT_S", 0.1)
    with pytest.raises(
        EnvironmentProblem, match=r"^llama-server has not loaded the model after .* s; is the disk slow"
    ):
        starts(process, lambda: connect_to(1))


@pytest.mark.parametrize(
    ("body", "said"),
    [
        (
            b'{"error": {"code": 400, "message": "beyond\\nthe context"}}',
            "beyond the context",
        ),
        (b"<html>\n502</html>", "<html> 502</html>"),
        (b'{"detail": "other"}', '{"detail": "other"}'),
        (b"", "no reason given"),
    ],
)
def test_a_refusal_is_the_servers_own_words_on_one_line(body: bytes, said: str) -> None:
    assert refusal(body) == said
