"""Which living processes work in a folder: what they hold is nobody else's to remove."""

import os
from pathlib import Path

import psutil  # type: ignore[import-untyped]  # ships no types


def working_in(folder: Path) -> list[int]:
    """Ids of the processes that work in `folder` or below it, without this one and those that started it.

    Processes of other users are seen where the system shows them.
    """
    top = os.path.realpath(folder)
    mine = {os.getpid(), *(parent.pid for parent in psutil.Process().parents())}
    found = psutil.process_iter(["pid", "cwd"])
    return sorted(p.info["pid"] for p in found if p.info["pid"] not in mine and _is_in(p.info["cwd"], top))


def is_alive(pid: int, word: str) -> bool:
    """Whether process `pid` lives and has `word` in its command line: the system gives a number out again."""
    try:
        return any(word in part for part in psutil.Process(pid).cmdline())
    except psutil.Error:
        return False


def command_of(pid: int) -> str:
    """The command line of a process; empty for one that has ended."""
    try:
        return " ".join(psutil.Process(pid).cmdline())
    except psutil.Error:
        return ""


def with_words(*words: str) -> list[int]:
    """Ids of the living processes whose command line holds all of `words`."""
    lines = ((p.info["pid"], " ".join(p.info["cmdline"] or ())) for p in psutil.process_iter(["pid", "cmdline"]))
    return sorted(pid for pid, line in lines if pid != os.getpid() and all(word in line for word in words))


def _is_in(path: str | None, top: str) -> bool:
    return path is not None and (path == top or path.startswith(top.rstrip(os.sep) + os.sep))
