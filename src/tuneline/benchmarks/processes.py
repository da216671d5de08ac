"""A command's time and memory, its child processes included."""

import json
import resource
import subprocess
import time
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tuneline.data.records import Json
from tuneline.errors import EnvironmentProblem

_INTERVAL_S = 0.05
_PROC = Path("/proc")


@dataclass(frozen=True, slots=True)
class Measured:
    """One run, from the start of the process to its end."""

    seconds: float
    # Of the process and those that it waited for, in user and kernel mode: steadier than seconds on a busy machine.
    # Workers that a fork server started are not among them.
    cpu_seconds: float
    peak_bytes: int  # proportional set size (PSS) of all processes at one time; 0 where it was not sampled
    output: dict[str, Json]  # the last line that it printed


def run(words: Sequence[str | Path], *, is_memory_sampled: bool) -> Measured:
    """Run a program whose last line on stdout is a JSON object. Raises `EnvironmentProblem` when it fails.

    Sampling takes processor time (it reads the page tables), so speed and memory want runs of their own.
    """
    started, cpu_before = time.perf_counter(), _cpu_seconds()
    with subprocess.Popen(  # noqa: S603  (this project's own programs, with the interpreter that the user names)
        [str(word) for word in words], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        peak = _peak(process) if is_memory_sampled else 0
        out, errors = process.communicate()
        seconds = time.perf_counter() - started
    if process.returncode:
        last = errors.decode("utf-8", "replace").strip().rpartition("\n")[2]
        raise EnvironmentProblem(f"{' '.join(map(str, words[:3]))}: ended with code {process.returncode}: {last}")
    return Measured(seconds, _cpu_seconds() - cpu_before, peak, json.loads(out.decode().strip().rpartition("\n")[2]))


def _cpu_seconds() -> float:
    """Of all child processes that have ended."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def _peak(process: subprocess.Popen[bytes]) -> int:
    """The largest sample until the process ends; it must print no more than a pipe holds."""
    peak = 0
    while process.poll() is None:
        peak = max(peak, sum(_pss_bytes(pid) for pid in _tree(process.pid)))
        time.sleep(_INTERVAL_S)
    return peak


def _tree(root: int) -> list[int]:
    """The process and all that descend from it."""
    children: defaultdict[int, list[int]] = defaultdict(list)
    for entry in _PROC.iterdir():
        if entry.name.isdigit() and (parent := _parent(entry)) is not None:
            children[parent].append(int(entry.name))
    found = [root]
    for pid in found:
        found += children[pid]
    return found


def _parent(entry: Path) -> int | None:
    try:
        # behind the name, which stands in brackets and may hold anything: state, parent ...
        return int((entry / "stat").read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()[1])
    except (OSError, IndexError):
        return None  # ended meanwhile


def _pss_bytes(pid: int) -> int:
    try:
        lines = (_PROC / str(pid) / "smaps_rollup").read_text(encoding="ascii").splitlines()
    except OSError:
        return 0
    return sum(int(line.split()[1]) * 1024 for line in lines if line.startswith("Pss:"))
