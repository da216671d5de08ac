"""Prompts as llama.cpp's own server makes them: its template engine, its tokens.

The server is asked because that engine is in no library that Python can call, and because the server changes what a
template sees: it sets variables (`date_string`, `enable_thinking`) and rewrites messages (a system prompt that the
template does not know joins the question).
"""

import json
import socket
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from http.client import HTTPConnection, HTTPException
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from tuneline.data.records import Json, Message, ToolCall
from tuneline.entry import mortal
from tuneline.errors import ModelError
from tuneline.export.llama_cpp import installed_tool, last_line, tool_environment
from tuneline.export.llama_server import refusal, starts

ANSWER_TIMEOUT_S = 60.0


class Served:
    """A running server, reached through the Unix socket at `address`."""

    def __init__(self, gguf: Path, address: Path) -> None:
        self._gguf, self._address = gguf, address

    def prompt_ids(self, messages: Sequence[Message], tools: Sequence[Json]) -> list[int]:
        """The tokens that the model would answer. Raises `ModelError` where llama.cpp refuses the conversation."""
        asked: dict[str, Any] = {"messages": list(map(_as_openai, messages))}
        if tools:
            asked["tools"] = list(tools)
        prompt = self._ask("/apply-template", asked)["prompt"]
        # add_special: the server took BOS out of the prompt where the tokenizer writes one by itself
        ids: list[int] = self._ask("/tokenize", {"content": prompt, "add_special": True})["tokens"]
        return ids

    def _ask(self, path: str, value: Json) -> Any:
        connection = _SocketConnection(self._address, ANSWER_TIMEOUT_S)
        try:
            connection.request("POST", path, json.dumps(value), {"Content-Type": "application/json"})
            response = connection.getresponse()
            body = response.read()
            answer = json.loads(body) if response.status == 200 else None
        except (OSError, HTTPException, ValueError) as error:
            raise ModelError(f"{self._gguf}: llama-server broke off at {path}: {error}") from error
        finally:
            connection.close()
        if response.status != 200:
            raise ModelError(f"llama.cpp refuses it: {refusal(body)}")
        return answer


@contextmanager
def open_served(gguf: Path) -> Iterator[Served]:
    """A server on `gguf` that ends with the block. Raises `ModelError` with its last words when it does not start."""
    with TemporaryDirectory() as folder:
        address, log = Path(folder) / "llama.sock", Path(folder) / "log"
        with (
            log.open("wb") as words,
            subprocess.Popen(  # noqa: S603  (the program is the one this environment built)
                mortal(_command(gguf, address)), stdout=subprocess.DEVNULL, stderr=words, env=tool_environment()
            ) as server,
        ):
            try:
                if not starts(server, lambda: _SocketConnection(address, ANSWER_TIMEOUT_S)):
                    said = last_line(log.read_text(encoding="utf-8", errors="replace"))
                    raise ModelError(f"{gguf}: llama-server does not start: {said}")
                yield Served(gguf, address)
            finally:
                server.terminate()


def _command(gguf: Path, address: Path) -> list[str]:
    """No answer is ever computed: the smallest context, no second copy of the weights in another layout."""
    return [
        str(installed_tool("llama-server")),
        *("--model", str(gguf)),
        *("--host", str(address)),
        *("--ctx-size", "256"),
        *("--parallel", "1"),
        *("--threads", "1"),
        *("--fit", "off"),
        *("--n-gpu-layers", "0"),
        "--no-warmup",
        "--no-repack",
        "--jinja",
        "--offline",
    ]


def _as_openai(message: Message) -> dict[str, Any]:
    """As clients of the OpenAI interface send it: the arguments of a call are a text of JSON."""
    row: dict[str, Any] = {"role": message.role, "content": message.content}
    if message.tool_calls:
        row["tool_calls"] = list(map(_as_call, message.tool_calls))
    return row


def _as_call(call: ToolCall) -> dict[str, Any]:
    arguments = json.dumps(dict(call.arguments), ensure_ascii=False)
    return {"type": "function", "function": {"name": call.name, "arguments": arguments}}


class _SocketConnection(HTTPConnection):
    def __init__(self, address: Path, timeout_s: float) -> None:
        super().__init__("localhost", timeout=timeout_s)
        self._address = address

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(str(self._address))
