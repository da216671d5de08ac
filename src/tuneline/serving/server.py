"""llama.cpp's own server on a verified folder: OpenAI's interface under /v1."""

import errno
import os
import socket
from pathlib import Path

from tuneline.errors import ConfigError, EnvironmentProblem
from tuneline.export.llama_cpp import installed_tool
from tuneline.serving.integrity import Verified

LOCALHOST = "127.0.0.1"


def server_command(program: Path, verified: Verified, host: str, port: int, parallel: int) -> list[str]:
    """What was measured is what is served: the GGUF's own chat template, greedy answers, its context per client."""
    return [
        str(program),
        *("--model", str(verified.gguf)),
        *("--alias", verified.gguf.stem),
        *("--host", host),
        *("--port", str(port)),
        *("--parallel", str(parallel)),
        *("--ctx-size", str(verified.n_ctx * parallel)),  # llama.cpp divides it among the clients
        "--no-kv-unified",
        *("--temp", "0"),
        "--no-cache-prompt",  # reused prefixes round otherwise: an answer would depend on what was asked before
        *("--cache-ram", "0"),
        "--jinja",
        "--offline",
    ]


def check_port(host: str, port: int) -> None:
    """Raise `EnvironmentProblem` when the address cannot be listened on, before a model is loaded for it."""
    if not 0 < port < 2**16:
        raise ConfigError(f"{host}:{port}: no port, those are 1 to 65535; choose another with --port")
    try:
        with socket.create_server((host, port)):
            pass
    except OSError as error:
        reason = "the port is taken" if error.errno == errno.EADDRINUSE else str(error)
        raise EnvironmentProblem(f"{host}:{port}: {reason}; choose another with --port") from None


def free_port() -> int:
    """A port that nobody listens on at the moment."""
    with socket.create_server((LOCALHOST, 0)) as listener:
        port: int = listener.getsockname()[1]
        return port


def serve(verified: Verified, host: str, port: int, parallel: int) -> None:
    """Become the server: signals reach it, and its exit code is this process's. Does not return."""
    command = server_command(installed_tool("llama-server"), verified, host, port, parallel)
    check_port(host, port)
    print(f"{verified.gguf.name}: http://{host}:{port}/v1", flush=True)
    os.execv(command[0], command)  # noqa: S606  (no shell; the program is the one this environment built)
