"""llama.cpp's own server on a verified folder: OpenAI's interface under /v1."""

import errno
import os
import socket
from collections.abc import Sequence
from pathlib import Path

from tuneline.errors import ConfigError, EnvironmentProblem, ModelError
from tuneline.export.llama_cpp import installed_tool, repacking_options, tool_environment
from tuneline.serving.integrity import LORA_ADAPTER, LORA_BASE, Verified

LOCALHOST = "127.0.0.1"
API_KEY = "LLAMA_API_KEY"  # who may ask; it changes no answer


def server_command(program: Path, verified: Verified, host: str, port: int, parallel: int) -> list[str]:
    """What was measured is what is served: the GGUF's own chat template, greedy answers, its context per client."""
    return _command(program, verified.gguf, verified.gguf.stem, verified.n_ctx, host, port, parallel)


def lora_command(program: Path, several: Sequence[Verified], host: str, port: int, parallel: int) -> list[str]:
    """One base with the adapter of each folder, numbered in their order; where a request names none, the first answers.

    llama.cpp adds up all adapters that it is given unless their scale is 0. Raises `ModelError` for a folder without
    adapter, or of another base than the first.
    """
    check_one_base(several)
    scaled = [f"{verified.folder / LORA_ADAPTER}:{int(number == 0)}" for number, verified in enumerate(several)]
    base, name = several[0].folder / LORA_BASE, several[0].record["settings"]["model"]["name"]
    n_ctx = max(verified.n_ctx for verified in several)
    return [*_command(program, base, name, n_ctx, host, port, parallel), "--lora-scaled", ",".join(scaled)]


def check_one_base(several: Sequence[Verified]) -> None:
    """Every folder has an adapter of its own, for the very base of the first one."""
    for verified in several:
        if not verified.has_lora:
            raise ModelError(f"{verified.folder}: no adapter alone in it; package it with export.lora_base set")
        if any(mark in str(verified.folder) for mark in ",:"):
            raise ModelError(f"{verified.folder}: llama-server takes no adapter from a path with , or : in it; move it")
        if _base_sha256(verified) != _base_sha256(several[0]):
            raise ModelError(
                f"{verified.folder / LORA_BASE}: another base than that of {several[0].folder}, or another type of it; "
                "its adapter needs its own server"
            )


def _base_sha256(verified: Verified) -> str:
    return str(verified.record["files"][LORA_BASE]["sha256"])


def _command(program: Path, model: Path, alias: str, n_ctx: int, host: str, port: int, parallel: int) -> list[str]:
    return [
        str(program),
        *("--model", str(model)),
        *("--alias", alias),
        *("--host", host),
        *("--port", str(port)),
        *("--parallel", str(parallel)),
        *("--ctx-size", str(n_ctx * parallel)),  # llama.cpp divides it among the clients
        "--no-kv-unified",
        *("--temp", "0"),
        "--no-cache-prompt",  # reused prefixes round otherwise: an answer would depend on what was asked before
        *("--cache-ram", "0"),
        *repacking_options(),
        "--jinja",
        "--offline",
    ]


def check_port(host: str, port: int) -> None:
    """Raise `EnvironmentProblem` when the address cannot be listened on, before a model is loaded for it."""
    if not 0 < port < 2**16:
        raise ConfigError(f"{_address(host, port)}: no port, those are 1 to 65535; choose another with --port")
    try:
        family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        with socket.create_server(address, family=family):
            pass
    except (OSError, UnicodeError) as error:
        raise EnvironmentProblem(f"{_address(host, port)}: {_why_not(error)}") from None


def _why_not(error: OSError | UnicodeError) -> str:
    match error:
        case socket.gaierror() | UnicodeError():
            return "no such host; choose another with --host"
        case OSError(errno=errno.EADDRINUSE):
            return "the port is taken; choose another with --port"
        case OSError(errno=errno.EACCES):
            return "the system keeps this port for itself; choose another with --port"
        case _:
            return f"cannot be listened on ({error.strerror}); choose another with --host"


def _address(host: str, port: int) -> str:
    """As in a URL, where an IPv6 address stands in brackets."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def free_port() -> int:
    """A port that nobody listens on at the moment."""
    with socket.create_server((LOCALHOST, 0)) as listener:
        port: int = listener.getsockname()[1]
        return port


def serve(verified: Verified, host: str, port: int, parallel: int) -> None:
    """Become the server: signals reach it, and its exit code is this process's. Does not return."""
    command = server_command(installed_tool("llama-server"), verified, host, port, parallel)
    _become(command, verified.gguf.name, host, port)


def serve_adapters(several: Sequence[Verified], host: str, port: int, parallel: int) -> None:
    """As `serve`, for the adapters of `several` on the base that they share."""
    command = lora_command(installed_tool("llama-server"), several, host, port, parallel)
    for number, verified in enumerate(several):
        chosen = f'"lora": [{{"id": {number}, "scale": 1.0}}]'
        print(f"  lora {number}    {verified.folder}: {chosen}{' or nothing in a request' if number == 0 else ''}")
    _become(command, LORA_BASE, host, port)


def _become(command: list[str], name: str, host: str, port: int) -> None:
    check_port(host, port)
    print(f"{name}: http://{_address(host, port)}/v1", flush=True)
    os.execve(command[0], command, tool_environment(API_KEY))  # noqa: S606  (no shell; the program is the one this environment built)
