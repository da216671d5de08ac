"""The sandbox in a process of its own: only a process can be stopped in the middle of a built-in function."""

import resource
import signal
import socket
import subprocess
import sys
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, Self

from tuneline.errors import DataError
from tuneline.evaluation.sql.messages import (
    MAX_MESSAGE_BYTES,
    encode,
    outcome_as_json,
    read_outcome,
    read_problem,
    read_request,
)
from tuneline.evaluation.sql.sandbox import Failure, Result, Sandbox, ScriptError

GRACE_S = 0.5  # how long after a statement's own deadline the process is ended
BUILD_TIMEOUT_S = 60.0  # for one script, with the start of the process
# No multiprocessing.Process: that forks, with a copy of the model, or runs the caller's main module again.
CHILD = "import sys; sys.path[:] = sys.argv[3:]; from tuneline.evaluation.sql import worker; worker.serve()"


@dataclass(frozen=True, slots=True)
class Query:
    """One statement for the database that a script builds."""

    script: Path
    sql: str
    max_rows: int


class SqlWorker:
    """Runs statements in a child process, started when first needed and again after one had to be ended."""

    def __init__(self, statement_timeout_s: float) -> None:
        self._timeout_s = statement_timeout_s
        self._built: set[Path] = set()
        self._process: subprocess.Popen[bytes] | None = None
        self._pipe: Connection | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def run(self, query: Query) -> Result | Failure:
        """The statement's rows or why there are none. Raises `DataError` when the script cannot be run."""
        pipe = self._pipe or self._start()
        try:
            self._build(pipe, query.script)
            request = {"sql": query.sql, "script": str(query.script), "max_rows": query.max_rows}
            return read_outcome(_ask(pipe, request, self._timeout_s + GRACE_S))
        except TimeoutError:
            self.stop()
            return Failure("time limit", "interrupted")
        except (EOFError, OSError):
            self.stop()
            return Failure("crash", "SQLite ended its process")
        except ValueError as error:
            self.stop()
            return Failure("crash", f"SQLite's process sent what is no answer: {error}")

    def stop(self) -> None:
        """End the child process; the next statement starts another."""
        if self._process is not None and self._pipe is not None:
            self._pipe.close()
            self._process.kill()
            self._process.wait()
        self._process = self._pipe = None
        self._built.clear()

    def _start(self) -> Connection:
        ours, theirs = socket.socketpair()
        with theirs:
            arguments = [str(theirs.fileno()), str(self._timeout_s), *sys.path]
            self._process = subprocess.Popen(  # noqa: S603  (this interpreter, our own code)
                [sys.executable, "-I", "-c", CHILD, *arguments], pass_fds=[theirs.fileno()]
            )
        self._pipe = Connection(ours.detach())
        return self._pipe

    def _build(self, pipe: Connection, script: Path) -> None:
        if script in self._built:
            return
        try:
            problem = read_problem(_ask(pipe, {"build": str(script)}, BUILD_TIMEOUT_S))
        except TimeoutError:
            self.stop()
            problem = f"it takes more than {BUILD_TIMEOUT_S:g} seconds"
        if problem is not None:
            raise DataError(f"{script}: not a script SQLite can run: {problem}; fix the CREATE TABLE and INSERT there")
        self._built.add(script)


def _ask(pipe: Connection, request: dict[str, object], timeout_s: float) -> bytes:
    """The child's answer. Raises `TimeoutError`, or another `OSError` when the child ended or sends too much."""
    pipe.send_bytes(encode(request))
    if not pipe.poll(timeout_s):
        raise TimeoutError
    return pipe.recv_bytes(MAX_MESSAGE_BYTES)


def serve() -> None:
    """The child: build databases and run statements until the parent closes its end of the socket."""
    pipe, timeout_s = Connection(int(sys.argv[1])), float(sys.argv[2])
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole group; the parent decides
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))  # no byte into any file, whatever SQLite does
    databases: dict[str, Sandbox] = {}
    try:
        while True:
            pipe.send_bytes(encode(_answer(databases, read_request(pipe.recv_bytes()), timeout_s)))
    except (EOFError, ConnectionError):
        return


def _answer(databases: dict[str, Sandbox], request: dict[str, Any], timeout_s: float) -> dict[str, object]:
    match request:
        case {"build": script}:
            return {"problem": _build_database(databases, script)}
        case {"sql": sql, "script": script, "max_rows": max_rows}:
            return outcome_as_json(databases[script].run(sql, timeout_s, max_rows))
    raise AssertionError(f"the parent asks for {request}")


def _build_database(databases: dict[str, Sandbox], script: str) -> str | None:
    """None when the database is ready, otherwise what is wrong with its script."""
    try:
        databases[script] = Sandbox(Path(script).read_text(encoding="utf-8"))
    except (ScriptError, OSError, UnicodeError) as error:
        return str(error)
    return None
