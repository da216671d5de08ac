"""The quantise stage against one bare call of llama.cpp, as processes: what checks, imports and safe writing cost."""

import filecmp
import os
import resource
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from tuneline.config.schema import QuantType
from tuneline.errors import BudgetError, EnvironmentProblem
from tuneline.export.quantize import FILE_TYPES

Job = tuple[Sequence[str], Path]  # a module with its arguments, and the file that it writes


@dataclass(frozen=True, slots=True)
class Run:
    """One run, from the start of the process to its end."""

    seconds: float
    cpu_seconds: float  # in user and kernel mode: steadier than seconds on a busy machine


@dataclass(frozen=True, slots=True)
class Comparison:
    stage: list[Run]
    bare: list[Run]

    @property
    def ratio(self) -> float:
        """Median seconds of the stage / those of the bare call."""
        return median(run.seconds for run in self.stage) / median(run.seconds for run in self.bare)

    @property
    def cpu_ratio(self) -> float:
        return median(run.cpu_seconds for run in self.stage) / median(run.cpu_seconds for run in self.bare)


def compare(source: Path, folder: Path, quant: QuantType, n_repeats: int) -> Comparison:
    """Quantise `source` with either in turn, `n_repeats` times, into `folder`, after one run of each that counts not.

    Raises `BudgetError` when the two files differ: then it was not the same work.
    """
    ours, theirs = folder / f"{quant}.gguf", folder / f"{quant}-bare.gguf"
    stage = ["tuneline.stages.quantize", "--params", "params.yaml", "--quant", quant]
    stage += ["--source", str(source), "--out", str(ours)]
    bare = ["tuneline.export.bare_quantize", str(source), str(theirs), str(FILE_TYPES[quant])]
    pairs = [_pair((stage, ours), (bare, theirs), turned=bool(n % 2)) for n in range(n_repeats + 1)]
    if not filecmp.cmp(ours, theirs, shallow=False):
        raise BudgetError(f"benchmark: {ours} and {theirs} differ; the stage and the bare call did not do the same")
    return Comparison([pair[0] for pair in pairs[1:]], [pair[1] for pair in pairs[1:]])


def _pair(stage: Job, bare: Job, *, turned: bool) -> tuple[Run, Run]:
    """Both once; `turned` the bare call first, as whoever comes second waits for the other's file to reach the disk."""
    if turned:
        second, first = _run(*bare), _run(*stage)
        return first, second
    return _run(*stage), _run(*bare)


def _run(words: Sequence[str], out: Path) -> Run:
    """Writing over an old file is slower than writing a new one, so it is removed first."""
    out.unlink(missing_ok=True)
    started, cpu_before = time.perf_counter(), _cpu_seconds()
    done = subprocess.run(  # noqa: S603  (this project's own modules)
        [sys.executable, "-m", *words],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},  # the very package that runs here
        stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, check=False,
    )  # fmt: skip
    seconds = time.perf_counter() - started
    if done.returncode != 0:
        raise EnvironmentProblem(f"benchmark: {words[0]} failed: {done.stderr.strip().splitlines()[-1:]}")
    return Run(seconds, _cpu_seconds() - cpu_before)


def _cpu_seconds() -> float:
    """Of all child processes that have ended."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime
