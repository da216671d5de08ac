"""Trainers that start in no time: a process that has imported all they need forks one for each request.

`python -m tests.faults.zygote`; a request is a line of JSON on standard input, the answer the trainer's exit code on
standard output. It runs the train stage in `folder` with `argv`, says what it has to say into `log`, and meets `fault`.
"""

import fcntl
import inspect
import json
import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.training.test_resuming import die_after
from tuneline.entry import run
from tuneline.stages import train as stage
from tuneline.training import checkpoints, loop, objectives, resuming  # noqa: F401  (imported before the fork)

# What makes the trainer survive, and how it is without
PROTECTIONS: dict[str, Callable[[pytest.MonkeyPatch], None]] = {
    "manifest": lambda patch: patch.setattr(checkpoints, "damage", lambda checkpoint: None),
    "fingerprint": lambda patch: patch.setattr(checkpoints, "fingerprint", lambda values, inputs: "0" * 16),
    "lock": lambda patch: patch.setattr(fcntl, "flock", lambda file, operation: None),
    "sums": lambda patch: patch.setattr(resuming.Checkpoints, "on_train_begin", lambda *args, **kwargs: None),
}


def serve() -> None:
    for line in sys.stdin:
        request = json.loads(line)
        child = os.fork()
        if child == 0:
            become_trainer(request)
        _, status = os.waitpid(child, 0)
        print(os.waitstatus_to_exitcode(status), flush=True)


def become_trainer(request: dict[str, Any]) -> None:
    os.chdir(request["folder"])
    with open(request["log"], "w") as log:  # noqa: PTH123
        os.dup2(log.fileno(), 1)
        os.dup2(log.fileno(), 2)
    sys.argv = request["argv"]
    prepare(request["fault"])
    code: Any = 0
    try:
        run(stage.main)
    except SystemExit as end:
        code = end.code
    except BaseException:
        import traceback

        traceback.print_exc()
        code = 2
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def prepare(fault: list[Any]) -> None:
    """Arrange for what shall go wrong."""
    patch = pytest.MonkeyPatch()
    match fault:
        case ["none"]:
            pass
        case ["without", str(protection), list(other)]:
            PROTECTIONS[protection](patch)
            prepare(other)
        case ["signal", int(number), int(micro_batch)]:
            die_after(patch, micro_batch, lambda: os.kill(os.getpid(), number))
        case ["files", str(checkpoint), int(n_files)]:
            threading.Thread(target=die_at_file, args=(checkpoint, n_files), daemon=True).start()
        case ["memory", int(n_bytes), int(micro_batch)]:
            die_after(patch, micro_batch, lambda: limit_memory(n_bytes))
        case ["cuda", int(micro_batch)]:
            die_after(patch, micro_batch, out_of_cuda_memory)
        case ["edited code"]:
            source = inspect.getsource
            patch.setattr(inspect, "getsource", lambda module: source(module) + "# edited")
        case _:
            raise AssertionError(fault)


def die_at_file(name: str, n_files: int) -> None:
    """kill -9 as soon as the checkpoint has that many files, or is complete."""
    while True:
        for folder in Path(".checkpoints").glob(f"*/{name}"):
            found = [file.name for file in folder.iterdir() if not file.name.startswith(".")]
            if len(found) >= n_files:
                os.kill(os.getpid(), signal.SIGKILL)
        time.sleep(0.0002)


def limit_memory(n_bytes: int) -> None:
    """No more than that beside what is in use, and a tensor that is larger."""
    import resource

    import torch

    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + n_bytes, used + n_bytes))
    torch.ones(n_bytes + 2**30, dtype=torch.uint8)


def out_of_cuda_memory() -> None:
    """What PyTorch says when a GPU is full."""
    import torch

    raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has a total capacity of ...\n")


if __name__ == "__main__":
    serve()
