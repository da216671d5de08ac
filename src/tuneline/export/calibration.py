"""Calibration: llama.cpp measures on the project's own training rows how strongly each input channel is used."""

import math
import subprocess
from collections.abc import Iterable, Sequence
from pathlib import Path

from transformers import PreTrainedTokenizerBase

from tuneline.data.records import Example
from tuneline.entry import mortal
from tuneline.errors import DataError, ModelError
from tuneline.export.header import read_layout
from tuneline.export.llama_cpp import last_line, repacking_options, tool_environment
from tuneline.export.room import check_room
from tuneline.export.runtime import n_threads
from tuneline.model.template import render_conversation
from tuneline.output import atomic_file

_HEADER_BYTES = 2**13  # the names of its text files among it
_ENTRY_BYTES = 128  # each tensor's alignment, and its entry in the header; sums and counts are one each


def calibration_rows(train: Sequence[Example], n_rows: int) -> list[Example]:
    """`n_rows` conversations of the training rows, chosen by id, a content hash: whatever their order.

    Raises `DataError` when there are none: other rows would not be what the model is asked.
    """
    conversations = [example for example in train if example.kind == "conversation"]
    if not conversations:
        raise DataError("export.imatrix: no conversation among the training rows to calibrate with; set it to null")
    return sorted(conversations, key=lambda example: example.id)[:n_rows]


def calibration_text(tokenizer: PreTrainedTokenizerBase, rows: Iterable[Example]) -> str:
    """The rows as the model sees them in training, one after the other."""
    return "".join(render_conversation(tokenizer, row.messages, row.tools) for row in rows)


def compute(tool: Path, gguf: Path, text: Path, out: Path, *, n_ctx: int) -> None:
    """Run llama.cpp's imatrix over the file `text`, in pieces of `n_ctx` tokens.

    Raises `ModelError` with its last line when it fails, as with fewer than two pieces of text, and
    `EnvironmentProblem` when the disk has no room for the matrix.
    """
    check_room(out, importance_bytes(gguf))
    with atomic_file(out) as temporary:
        # --no-ppl: the perplexity of training rows says nothing here and takes most of the memory
        options = ["--parse-special", "--no-ppl", "--ctx-size", str(n_ctx), "--n-gpu-layers", "0"]
        options += ["--threads", str(n_threads(gguf.stat().st_size)), *repacking_options()]
        files = ["--model", str(gguf), "--file", str(text), "--output-file", str(temporary), "--output-format", "gguf"]
        command = mortal([str(tool), *files, *options])
        done = subprocess.run(command, capture_output=True, text=True, check=False, env=tool_environment())  # noqa: S603
        if done.returncode != 0 or not temporary.is_file():
            raise ModelError(f"{gguf}: llama-imatrix fails: {last_line(done.stderr or done.stdout)}")


def importance_bytes(gguf: Path) -> int:
    """At most what the importance matrix of `gguf` takes: 32 bits for each input channel of each weight matrix.

    An expert has channels of its own, and one count.
    """
    matrices = [tensor.shape for tensor in read_layout(gguf).tensors if len(tensor.shape) > 1]
    counted = sum((n_inputs + 1) * math.prod(rest[1:]) for n_inputs, *rest in matrices)
    return 4 * counted + 2 * _ENTRY_BYTES * len(matrices) + _HEADER_BYTES
