"""The real llama.cpp server on a packaged folder: how it starts, what it refuses, how it ends."""

import os
import pty
import select
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

import pytest

from tests.export.conftest import PEFT_WARNING
from tests.serving.server import environment, serve_command, serving
from tuneline.commands import chat as command
from tuneline.commands.main import dispatch
from tuneline.errors import EnvironmentProblem, TunelineError
from tuneline.export import llama_cpp
from tuneline.serving import chat, server
from tuneline.serving.integrity import verify_model
from tuneline.serving.server import check_port, free_port, server_command

CONVERSATION = [{"role": "user", "content": "How many?"}]


def test_what_was_measured_is_what_is_served(package: Path) -> None:
    command = server_command(Path("llama-server"), verify_model(package), "127.0.0.1", 8080, parallel=3)
    words = " ".join(command)
    assert f"--model {package / 'tiny.gguf'}" in words
    assert "--temp 0" in words
    assert "--jinja" in words
    assert "--ctx-size 192" in words  # 64 for each of the three
    assert "--no-kv-unified" in words


def test_a_processor_that_ends_the_server_gets_its_weights_as_they_are(
    package: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(llama_cpp, "is_repacking_safe", lambda: False)
    assert "--no-repack" in server_command(Path("llama-server"), verify_model(package), "127.0.0.1", 8080, parallel=3)


def test_a_taken_port_is_named() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        with pytest.raises(EnvironmentProblem, match=f"127.0.0.1:{port}: the port is taken; choose another"):
            check_port("127.0.0.1", port)


@pytest.mark.parametrize("name", ["serve", "chat"])
def test_without_the_program_a_command_says_what_to_run(
    name: str, package: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(llama_cpp, "llama_cpp_folder", lambda: tmp_path / "share")
    monkeypatch.setattr(signal, "signal", lambda *_: None)
    words = [name, str(package), *(("--port", str(free_port())) if name == "serve" else ())]
    with pytest.raises(EnvironmentProblem, match=r"bin/llama-server: .* is not there; run `make setup`") as caught:
        dispatch(words)
    assert "\n" not in str(caught.value)


def test_an_unknown_host_is_not_the_ports_fault() -> None:
    with pytest.raises(EnvironmentProblem, match="no such host; choose another with --host"):
        check_port("no.such.host.invalid", 8080)
    with pytest.raises(EnvironmentProblem, match=r"cannot be listened on .*choose another with --host"):
        check_port("192.0.2.1", 8080)  # an address for examples, nobody's: RFC 5737


def test_an_ipv6_address_is_listened_on_as_one(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[str, int]] = []

    @contextmanager
    def create_server(address: tuple[str, int], *, family: int) -> Iterator[None]:
        asked.append((address[0], family))
        yield

    monkeypatch.setattr(socket, "create_server", create_server)
    check_port("::1", 8080)
    assert asked == [("::1", socket.AF_INET6)]


def test_no_variable_of_llama_cpp_reaches_a_server_but_the_key(package: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("LLAMA_ARG_CHAT_TEMPLATE", "LLAMA_API_KEY", "OTHER"):
        monkeypatch.setenv(name, "set")
    monkeypatch.setattr(server, "installed_tool", Path)
    monkeypatch.setattr(chat, "installed_tool", Path)
    seen: list[dict[str, str]] = []
    monkeypatch.setattr(os, "execve", lambda *it: seen.append(it[2]))
    server.serve(verify_model(package), "127.0.0.1", free_port(), 1)

    class StartedError(RuntimeError):
        pass

    def popen(*_: object, env: dict[str, str], **__: object) -> None:
        seen.append(env)
        raise StartedError

    monkeypatch.setattr(subprocess, "Popen", popen)
    monkeypatch.setattr(signal, "signal", lambda *_: None)
    with pytest.raises(StartedError), chat.running_server(verify_model(package)):
        pass
    for seen_by, key in zip(seen, ({"LLAMA_API_KEY"}, set()), strict=True):
        assert {name for name in seen_by if name.startswith("LLAMA_")} == key
        assert seen_by["OTHER"] == "set"


def test_a_conversation_begins_as_in_training_also_after_a_reset(monkeypatch: pytest.MonkeyPatch) -> None:
    lines = iter(["one", "/reset", "two", "three", "/exit"])
    asked: list[list[tuple[str, str]]] = []

    def answer(_: int, turns: list[dict[str, str]]) -> Iterator[str]:
        asked.append([(turn["role"], turn["content"]) for turn in turns])
        yield "yes"

    monkeypatch.setattr("builtins.input", lambda _: next(lines))
    monkeypatch.setattr(command, "answer", answer)
    command.converse(0, "Be brief.")
    opening = [("system", "Be brief."), ("user", "two")]
    assert asked == [
        [("system", "Be brief."), ("user", "one")],
        opening,
        [*opening, ("assistant", "yes"), ("user", "three")],
    ]


def test_what_is_pasted_in_several_lines_is_one_turn() -> None:
    """A terminal marks what is pasted when it is asked to, with \\e[?2004h."""
    talk = (
        "from tuneline.commands import chat\n"
        "chat.running_server = lambda _: contextlib.nullcontext(0)\n"
        "chat.verify_model = lambda folder: types.SimpleNamespace(gguf=folder, system_prompt=None)\n"
        "chat.answer = lambda _, turns: iter([repr(turns[-1]['content'])])\n"
        "chat.execute(types.SimpleNamespace(folder=pathlib.Path('model')))\n"
    )
    ours, theirs = pty.openpty()
    command = [sys.executable, "-c", f"import contextlib, pathlib, types\n{talk}"]
    with subprocess.Popen(
        command, env=environment() | {"TERM": "xterm"}, stdin=theirs, stdout=theirs, stderr=theirs
    ) as chat:
        try:
            shown = until(ours, b"\x1b[?2004h")
            os.write(ours, b"\x1b[200~one\ntwo\n\x1b[201~\r")  # whole lines, as a terminal copies them
            shown += until(ours, b"'one\\ntwo'")
            os.write(ours, b"/exit\r")
            assert chat.wait(timeout=30) == 0, shown
        finally:
            chat.kill()  # or a failure waits for it without end
    os.close(ours)
    os.close(theirs)


def until(terminal: int, said: bytes) -> bytes:
    shown = b""
    while said not in shown:
        ready, _, _ = select.select([terminal], [], [], 30)
        assert ready, shown
        shown += os.read(terminal, 4096)
    return shown


@pytest.mark.parametrize(("host", "port"), [("127.0.0.1", 70000), ("no.such.host.invalid", 8080)])
def test_an_impossible_address_is_one_line(host: str, port: int) -> None:
    with pytest.raises(TunelineError, match=f"{host}:{port}: "):
        check_port(host, port)


@pytest.fixture(scope="module")
def running(shipped: tuple[Path, Path]) -> Iterator[tuple[int, Any]]:
    port = free_port()
    with serving(shipped[0], port) as process:
        yield port, process


@pytest.fixture
def client(running: tuple[int, Any]) -> Iterator[Any]:
    from openai import OpenAI

    with OpenAI(base_url=f"http://127.0.0.1:{running[0]}/v1", api_key="none", max_retries=0) as client:
        yield client


slow = pytest.mark.slow
peft = pytest.mark.filterwarnings(PEFT_WARNING)


@slow
@peft
def test_streamed_pieces_are_the_answer(client: Any) -> None:
    whole = client.chat.completions.create(model="any", messages=CONVERSATION, max_tokens=24)
    stream = client.chat.completions.create(model="any", messages=CONVERSATION, max_tokens=24, stream=True)
    pieces = [choice.delta.content or "" for chunk in stream for choice in chunk.choices]
    assert len(pieces) > 2
    assert "".join(pieces) == whole.choices[0].message.content


@slow
@peft
def test_a_second_server_on_the_port_is_refused_and_the_first_goes_on(
    running: tuple[int, Any], client: Any, shipped: tuple[Path, Path]
) -> None:
    port, process = running
    second = subprocess.run(
        serve_command(shipped[1], port), env=environment(), capture_output=True, text=True, check=False
    )
    assert (second.returncode, second.stdout) == (1, "")
    assert second.stderr == f"error: 127.0.0.1:{port}: the port is taken; choose another with --port\n"
    assert process.poll() is None
    assert client.models.list().data[0].id == verify_model(shipped[0]).gguf.stem


@slow
@peft
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_the_server_cleanly(number: signal.Signals, shipped: tuple[Path, Path]) -> None:
    port = free_port()
    with serving(shipped[0], port) as process:
        connection = HTTPConnection("127.0.0.1", port)  # llama-server minds signals once its loop answers
        connection.request("POST", "/completion", '{"prompt": "x", "n_predict": 1}')
        assert connection.getresponse().read()
        connection.close()
        process.send_signal(number)
        assert process.wait(timeout=30) == 0
    check_port("127.0.0.1", port)


@slow
@peft
def test_a_damaged_folder_is_not_served(shipped: tuple[Path, Path], tmp_path: Path) -> None:
    import shutil

    shutil.copytree(shipped[0], tmp_path / "deploy")
    gguf = verify_model(tmp_path / "deploy").gguf
    os.truncate(gguf, gguf.stat().st_size - 1)
    ended = subprocess.run(
        serve_command(tmp_path / "deploy", free_port()), env=environment(), capture_output=True, text=True, check=False
    )
    assert ended.returncode == 1
    assert f"error: {gguf}: truncated" in ended.stderr


@slow
@peft
def test_a_conversation_is_forgotten_and_left(shipped: tuple[Path, Path]) -> None:
    command = [sys.executable, "-m", "tuneline.commands.main", "chat", str(shipped[0])]
    ours, theirs = pty.openpty()
    with subprocess.Popen(
        command, env=environment(), stdin=theirs, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as chat:
        os.write(ours, b"/reset\n/exit\n")
        printed, errors = chat.communicate(timeout=120)
    os.close(ours)
    os.close(theirs)
    assert (chat.returncode, errors) == (0, "")
    assert "forgotten" in printed


@slow
@peft
def test_a_closed_terminal_leaves_no_server_behind(shipped: tuple[Path, Path]) -> None:
    command = [sys.executable, "-m", "tuneline.commands.main", "chat", str(shipped[0])]
    with subprocess.Popen(command, env=environment(), stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as chat:
        assert chat.stdout is not None
        while "/exit" not in chat.stdout.readline():
            pass
        (server,) = children(chat.pid)
        chat.send_signal(signal.SIGHUP)
        assert chat.wait(timeout=30) == 128 + signal.SIGHUP
    assert not Path(f"/proc/{server}").exists()


def children(pid: int) -> list[int]:
    return [int(text) for text in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
