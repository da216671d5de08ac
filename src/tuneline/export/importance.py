"""The importance matrix: how strongly each input channel of each weight matrix is used on the project's own rows.

Quantisation then spends its precision where the model's inputs are large (llama.cpp, tools/imatrix/README.md).
"""

import subprocess
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from transformers import PreTrainedTokenizerBase

from tuneline.data.records import Example
from tuneline.errors import DataError, ModelError
from tuneline.export.header import read_floats
from tuneline.model.template import render_conversation
from tuneline.output import atomic_file

Importance = dict[str, NDArray[np.float32]]

_SUMS, _COUNTS = ".in_sum2", ".counts"  # llama.cpp, common/imatrix-loader.cpp


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

    Raises `ModelError` with its last line when it fails, as with fewer than two pieces of text.
    """
    with atomic_file(out) as temporary:
        # --no-ppl: the perplexity of training rows says nothing here and takes most of the memory
        options = ["--parse-special", "--no-ppl", "--ctx-size", str(n_ctx), "--n-gpu-layers", "0"]
        files = ["--model", str(gguf), "--file", str(text), "--output-file", str(temporary), "--output-format", "gguf"]
        done = subprocess.run([str(tool), *files, *options], capture_output=True, text=True, check=False)  # noqa: S603
        if done.returncode != 0 or not temporary.is_file():
            raise ModelError(f"{gguf}: llama-imatrix fails: {_last_line(done.stderr or done.stdout)}")


def read_importance(path: Path) -> Importance:
    """Mean square of each input channel, by the name of the weight matrix; the experts of a matrix one after the other.

    Sums and counts are what the file holds; an expert that no token reached counts as 1 everywhere, as in llama.cpp's
    tools/quantize/quantize.cpp. Raises `ModelError` when the file is no such matrix or holds no finite number.
    """
    tensors = read_floats(path)
    sums = {name.removesuffix(_SUMS): values for name, values in tensors.items() if name.endswith(_SUMS)}
    try:
        means = {name: _mean(values, tensors[name + _COUNTS]) for name, values in sums.items()}
    except KeyError as error:
        raise ModelError(f"{path}: sums without counts ({error}); compute the importance matrix again") from None
    bad = sorted(name for name, mean in means.items() if not np.isfinite(mean).all())
    if bad or not means:
        what = f"not finite for {', '.join(bad[:3])}" if bad else "holds no importance of any weight"
        raise ModelError(f"{path}: {what}; compute the importance matrix again")
    return means


def _mean(sums: NDArray[np.float32], counts: NDArray[np.float32]) -> NDArray[np.float32]:
    sums_EC, counts_E1 = sums.reshape(counts.size, -1), counts.reshape(-1, 1)
    mean_EC = np.divide(sums_EC, counts_E1, out=np.ones_like(sums_EC), where=counts_E1 > 0)
    return mean_EC.reshape(-1)


def _last_line(output: str) -> str:
    lines = output.strip().splitlines()
    return lines[-1] if lines else "no reason given"
