"""`tuneline serve` as a process of a test."""

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.client import HTTPConnection, HTTPException
from pathlib import Path

SOURCE = Path("src").resolve()


def serve_command(folder: Path, port: int, *options: str) -> list[str]:
    return [sys.executable, "-m", "tuneline.commands.main", "serve", str(folder), "--port", str(port), *options]


def environment() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(SOURCE)}


@contextmanager
def serving(folder: Path, port: int, *options: str) -> "Iterator[subprocess.Popen[str]]":
    """A server that has loaded its model; ended with the block, if it did not end by itself."""
    with subprocess.Popen(
        serve_command(folder, port, *options),
        env=environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    ) as process:
        try:
            wait_until_healthy(process, port)
            yield process
        finally:
            process.terminate()


def wait_until_healthy(process: "subprocess.Popen[str]", port: int) -> None:
    for _ in range(1200):
        assert process.poll() is None, process.communicate()
        connection = HTTPConnection("127.0.0.1", port, timeout=5)
        try:
            connection.request("GET", "/health")
            if connection.getresponse().status == 200:
                return
        except (OSError, HTTPException):
            pass
        finally:
            connection.close()
        time.sleep(0.05)
    raise AssertionError("the server does not become healthy")
