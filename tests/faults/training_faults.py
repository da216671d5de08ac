"""What shall go wrong in a training, or be missing from what protects it; arranged in the trainer before it starts."""

import fcntl
import inspect
import os
import signal
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.training.test_resuming import die_after
from tuneline.training import checkpoints, resuming

# What makes the trainer survive, and how it is without
PROTECTIONS: dict[str, Callable[[pytest.MonkeyPatch], None]] = {
    "manifest": lambda patch: patch.setattr(checkpoints, "damage", lambda checkpoint: None),
    "fingerprint": lambda patch: patch.setattr(checkpoints, "fingerprint", lambda values, inputs: "0" * 16),
    "lock": lambda patch: patch.setattr(fcntl, "flock", lambda file, operation: None),
    "sums": lambda patch: patch.setattr(resuming.Checkpoints, "on_train_begin", lambda *args, **kwargs: None),
}


def prepare(fault: list[Any]) -> None:
    """Arrange for what shall go wrong."""
    patch = pytest.MonkeyPatch()
    match fault:
        case []:
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
