"""A conversation in the terminal, through the same server as everybody else's."""

import json
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from http.client import HTTPConnection, HTTPException
from typing import Any

from tuneline.errors import EnvironmentProblem
from tuneline.export.llama_cpp import installed_tool, tool_environment
from tuneline.export.llama_server import refusal, starts
from tuneline.serving.integrity import Verified
from tuneline.serving.server import LOCALHOST, free_port, server_command

Turn = dict[str, str]
ANSWER_TIMEOUT_S = 600.0


@contextmanager
def running_server(verified: Verified) -> Iterator[int]:
    """The port of a server for one client, which ends with the block.

    Raises `EnvironmentProblem` when the server ends first, or the model is not loaded in time.
    """
    for number in (signal.SIGTERM, signal.SIGHUP):  # so that a closed terminal leaves no server behind
        signal.signal(number, lambda number, _: sys.exit(128 + number))
    port = free_port()
    command = server_command(installed_tool("llama-server"), verified, LOCALHOST, port, parallel=1)
    # a session of its own: Ctrl-C at the terminal stops an answer, not the server
    with subprocess.Popen(  # noqa: S603  (the program is the one this environment built)
        command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True, env=tool_environment()
    ) as server:
        try:
            if not starts(server, lambda: HTTPConnection(LOCALHOST, port, timeout=5)):
                raise EnvironmentProblem(
                    f"llama-server ended with code {server.returncode}; `tuneline serve` shows why"
                )
            yield port
        finally:
            server.terminate()


def answer(port: int, turns: Sequence[Turn]) -> Iterator[str]:
    """The pieces of the model's next turn as they come.

    Raises `EnvironmentProblem` with the server's own words when it refuses, as when the conversation is too long.
    """
    connection = HTTPConnection(LOCALHOST, port, timeout=ANSWER_TIMEOUT_S)
    try:
        body = json.dumps({"messages": list(turns), "stream": True})
        connection.request("POST", "/v1/chat/completions", body, {"Content-Type": "application/json"})
        response = connection.getresponse()
        if response.status != 200:
            raise EnvironmentProblem(f"the server refuses: {refusal(response.read())}; /reset starts again")
        yield from _pieces(response)
    except (OSError, HTTPException) as error:
        raise EnvironmentProblem(f"the server gives no answer ({error}); /exit, then start again") from None
    finally:
        connection.close()


def _pieces(lines: Iterator[bytes] | Any) -> Iterator[str]:
    """Text of server-sent events: https://html.spec.whatwg.org/multipage/server-sent-events.html"""
    for line in lines:
        kind, _, data = line.decode("utf-8").strip().partition(": ")
        match kind, data:
            case "data", "[DONE]":
                return
            case "data", _:
                for choice in json.loads(data).get("choices", []):
                    yield choice["delta"].get("content") or ""
            case "error", _:
                raise EnvironmentProblem(f"the server refuses: {refusal(data.encode())}; /reset starts again")
