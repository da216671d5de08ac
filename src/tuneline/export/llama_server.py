"""A llama-server that somebody started: when it has loaded its model, and why it refuses a request."""

import json
import subprocess
import time
from collections.abc import Callable
from http.client import HTTPConnection, HTTPException
from typing import Any

from tuneline.errors import EnvironmentProblem

START_TIMEOUT_S = 600.0  # a large model from a slow disk


def starts(server: "subprocess.Popen[bytes]", connect: Callable[[], HTTPConnection]) -> bool:
    """Wait until the model is loaded, asked through a new connection each time; False when the server ended instead.

    Raises `EnvironmentProblem` when it does neither in time.
    """
    deadline = time.monotonic() + START_TIMEOUT_S
    while time.monotonic() < deadline:
        if server.poll() is not None:
            return False
        if _is_healthy(connect()):
            return True
        time.sleep(0.01)
    raise EnvironmentProblem(f"llama-server has not loaded the model after {START_TIMEOUT_S:.0f} s; is the disk slow?")


def _is_healthy(connection: HTTPConnection) -> bool:
    try:
        connection.request("GET", "/health")
        return connection.getresponse().status == 200
    except (OSError, HTTPException):
        return False
    finally:
        connection.close()


def refusal(body: bytes) -> str:
    """The server's own words, on one line, in an answer that is none."""
    try:
        answer: Any = json.loads(body)
    except ValueError:
        answer = None
    match answer:
        case {"error": {"message": str() as said}}:
            return " ".join(said.split())
    return " ".join(body.decode("utf-8", "replace").split()) or "no reason given"
