"""Memory that a GGUF takes to answer: measured in a process of its own, in which llama.cpp is all there is.

Run as a module it is that process: `python -m tuneline.export.memory GGUF N_CTX [ADAPTER]`, with token ids on standard
input: one argument of a program may hold no more than 128 KiB on Linux.
"""

import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from tuneline.errors import ModelError
from tuneline.export.runtime import Runtime

_STATUS = Path("/proc/self/status")  # Linux; getrusage would also count what the parent held before the exec
_KIB_PER_MIB = 2**10


def measure_memory(gguf: Path, n_ctx: int, prompt: Sequence[int], adapter: Path | None = None) -> dict[str, float]:
    """Peak resident memory (VmHWM) of a process that loads `gguf` with one context of `n_ctx` and reads `prompt`.

    `peak_memory_mib` counts the Python that drives llama.cpp, `model_memory_mib` only what loading and reading added;
    both count the pages of the file that were touched. Empty where the system does not tell (no /proc).
    """
    if not _STATUS.is_file():
        return {}
    arguments = [str(gguf), str(n_ctx)]
    arguments += [] if adapter is None else [str(adapter)]
    child = subprocess.run(  # noqa: S603  (our own module; every argument is a path or a number)
        [sys.executable, "-m", __name__, *arguments],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}, input=" ".join(map(str, prompt)),
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    if child.returncode != 0:
        reason = (child.stderr.strip().splitlines() or ["no reason given"])[-1]
        raise ModelError(f"{gguf}: its memory cannot be measured: {reason}")
    before_kib, after_kib = map(int, child.stdout.split())
    return {"peak_memory_mib": after_kib / _KIB_PER_MIB, "model_memory_mib": (after_kib - before_kib) / _KIB_PER_MIB}


def _peak_kib() -> int:
    line = next(line for line in _STATUS.read_text(encoding="ascii").splitlines() if line.startswith("VmHWM:"))
    return int(line.split()[1])


def _main(gguf: Path, n_ctx: int, prompt: Sequence[int], adapter: Path | None) -> None:
    before_kib = _peak_kib()
    with Runtime(gguf, n_ctx_tokens=n_ctx, n_sequences=1, adapter=adapter) as runtime:
        runtime.logits(prompt, [len(prompt) - 1])
        print(before_kib, _peak_kib())


if __name__ == "__main__":
    put_on = Path(sys.argv[3]) if len(sys.argv) > 3 else None
    _main(Path(sys.argv[1]), int(sys.argv[2]), [int(token) for token in sys.stdin.read().split()], put_on)
