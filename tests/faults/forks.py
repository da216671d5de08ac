"""Zygotes, and stages that they fork at request."""

import json
import os
import socket
import subprocess
import sys
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Any

# What takes time: with these, no stage imports anything else that takes more than some hundredths of a second.
LIBRARIES = (
    *("llama_cpp", "numpy.ma", "omegaconf", "phonenumbers", "pydantic", "rensa", "tabulate"),
    *("matplotlib.axes", "matplotlib.backends.backend_agg", "matplotlib.figure"),
)
MODEL_LIBRARIES = (
    *("datasets", "pandas", "peft", "pyarrow.parquet", "torch", "transformers", "trl.trainer.sft_trainer"),
    *("transformers.conversion_mapping", "transformers.models.llama.modeling_llama"),
)
MODEL_STAGES = {f"tuneline.stages.{name}" for name in ("inspect", "train", "merge", "convert", "package")}


class Forks:
    """Stages by request, one at a time: what `tests.faults.zygote` forks, those without torch from one without."""

    def __init__(self, folder: Path, environment: Mapping[str, str]) -> None:
        """In `folder`, the repository, with the variables that stages have before their command adds to them."""
        self._folder, self._environment = folder, environment
        self._zygotes: dict[bool, socket.socket] = {}
        self._end = ExitStack()

    def __enter__(self) -> "Forks":
        return self

    def __exit__(self, *error: type[BaseException] | BaseException | TracebackType | None) -> None:
        self._end.close()

    def run(
        self,
        words: Sequence[str],
        folder: Path,
        environment: Mapping[str, str],
        file_kib: int | None,
        fault: Sequence[Any],
    ) -> tuple[int, str]:
        """Exit code (negative: the signal that ended it), and what it said; `words` are module and arguments."""
        request = {
            **{"words": list(words), "folder": str(folder), "environment": dict(environment)},
            **{"file_kib": file_kib, "fault": list(fault)},
        }
        zygote = self._zygote(words[0] in MODEL_STAGES)
        reading, writing = os.pipe()
        socket.send_fds(zygote, [b"\0"], [writing])
        os.close(writing)
        zygote.sendall(f"{json.dumps(request)}\n".encode())
        with open(reading, encoding="utf-8") as said:  # noqa: PTH123  (a descriptor)
            text = said.read()
        with zygote.makefile("r", encoding="utf-8") as answers:
            match json.loads(answers.readline()):
                case int() as code:
                    return code, text
                case refused:
                    raise ValueError(refused)

    def _zygote(self, with_models: bool) -> socket.socket:
        if with_models not in self._zygotes:
            self._zygotes[with_models] = self._start((*LIBRARIES, *MODEL_LIBRARIES) if with_models else LIBRARIES)
        return self._zygotes[with_models]

    def _start(self, modules: Sequence[str]) -> socket.socket:
        ours, its = socket.socketpair()
        process = subprocess.Popen(
            [sys.executable, "-m", "tests.faults.zygote", str(its.fileno()), *modules], pass_fds=[its.fileno()],
            cwd=self._folder, env={**self._environment, "CUDA_VISIBLE_DEVICES": ""}, stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,  # as a stage's, whose buffers are those of a pipe
        )  # fmt: skip
        its.close()
        self._end.enter_context(process)  # waits for its end, which comes when nobody can ask any more
        self._end.enter_context(ours)
        return ours
