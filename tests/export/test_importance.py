"""The importance matrix: of training rows alone, read back as llama.cpp wrote it, and felt by the quants."""

import os
import signal
import struct
import subprocess
import sys
from pathlib import Path
from time import monotonic, sleep
from typing import TYPE_CHECKING

import numpy as np
import pytest

from tests.export.conftest import PEFT_WARNING, conversation
from tuneline.data.record_files import write_examples
from tuneline.data.records import Example
from tuneline.errors import DataError, EnvironmentProblem, ModelError
from tuneline.export import llama_cpp
from tuneline.export.llama_cpp import installed_tool

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings(PEFT_WARNING)]


def floats_gguf(path: Path, tensors: dict[str, list[float]]) -> Path:
    """A GGUF without metadata, of flat F32 tensors at offsets that are multiples of 32, by the format's description."""
    infos, data = b"", b""
    for name, values in tensors.items():
        infos += struct.pack("<Q", len(name)) + name.encode() + struct.pack("<IQIQ", 1, len(values), 0, len(data))
        data += np.array(values, "<f4").tobytes()
        data += bytes(-len(data) % 32)
    head = b"GGUF" + struct.pack("<IQQ", 3, len(tensors), 0) + infos
    path.write_bytes(head + bytes(-len(head) % 32) + data)
    return path


def test_importance_is_sum_over_count_and_one_where_an_expert_saw_nothing(tmp_path: Path) -> None:
    from tuneline.export.importance import read_importance

    file = floats_gguf(tmp_path / "i.gguf", {"w.in_sum2": [2.0, 4.0, 9.0, 9.0], "w.counts": [2.0, 0.0]})
    assert {name: mean.tolist() for name, mean in read_importance(file).items()} == {"w": [1.0, 2.0, 1.0, 1.0]}


@pytest.mark.parametrize(
    ("tensors", "message"),
    [
        ({"w.in_sum2": [1.0]}, "sums without counts"),
        ({"w.in_sum2": [float("nan")], "w.counts": [1.0]}, "not finite for w"),
        ({"w": [1.0]}, "holds no importance"),
    ],
)
def test_a_file_that_is_no_importance_matrix_is_refused(
    tmp_path: Path, tensors: dict[str, list[float]], message: str
) -> None:
    from tuneline.export.importance import read_importance

    with pytest.raises(ModelError, match=rf"i\.gguf: {message}.*compute the importance matrix again"):
        read_importance(floats_gguf(tmp_path / "i.gguf", tensors))


def test_calibration_rows_do_not_depend_on_the_order_of_the_file(examples: list[Example]) -> None:
    from tuneline.export.calibration import calibration_rows

    assert calibration_rows(examples, 5) == calibration_rows(examples[::-1], 5)
    with pytest.raises(DataError, match=r"export\.imatrix: no conversation"):
        calibration_rows([], 5)


def test_calibration_text_is_read_as_the_tokens_that_training_sees(
    f16: Path, tokenizer: "PreTrainedTokenizerBase", examples: list[Example]
) -> None:
    from tuneline.export.calibration import calibration_text
    from tuneline.export.runtime import open_vocabulary
    from tuneline.model.template import encode_conversation

    trained = [token for row in examples for token in encode_conversation(tokenizer, row.messages, row.tools).input_ids]
    with open_vocabulary(f16) as vocabulary:
        assert vocabulary.encode(calibration_text(tokenizer, examples), add_special=True) == trained


def test_only_training_rows_are_calibrated_with() -> None:
    from tuneline.commands.wiring import stages_of

    stage = stages_of(Path("dvc.yaml"))["imatrix"]
    assert {dep for dep in stage["deps"] if dep.startswith("data/")} == {"data/splits/train.jsonl"}


def test_an_importance_matrix_changes_the_quant_and_not_its_types(
    f16: Path, tokenizer: "PreTrainedTokenizerBase", tmp_path: Path
) -> None:
    from tuneline.export.calibration import calibration_text, compute, importance_bytes
    from tuneline.export.header import read_header
    from tuneline.export.importance import read_importance
    from tuneline.export.quantize import quantize

    rows = [conversation(f"How many are {i}?", f"SELECT {i} FROM t{i % 7}") for i in range(40)]
    (tmp_path / "rows.txt").write_text(calibration_text(tokenizer, rows))
    tool = installed_tool("llama-imatrix")
    compute(tool, f16, tmp_path / "rows.txt", tmp_path / "imatrix.gguf", n_ctx=64)
    size_bytes = (tmp_path / "imatrix.gguf").stat().st_size
    assert size_bytes <= importance_bytes(f16) <= 2 * size_bytes  # what the disk is asked for before
    importance = read_importance(tmp_path / "imatrix.gguf")
    quantize(f16, tmp_path / "plain.gguf", "q2_k")
    quantize(f16, tmp_path / "weighted.gguf", "q2_k", importance)
    assert {"blk.0.attn_q.weight", "blk.1.ffn_down.weight"} <= importance.keys()
    plain, weighted = read_header(tmp_path / "plain.gguf"), read_header(tmp_path / "weighted.gguf")
    assert plain.tensors == weighted.tensors
    assert (tmp_path / "plain.gguf").read_bytes() != (tmp_path / "weighted.gguf").read_bytes()


def test_too_little_text_is_said_and_no_matrix_is_left(f16: Path, tmp_path: Path) -> None:
    from tuneline.export.calibration import compute

    (tmp_path / "rows.txt").write_text("SELECT 1")
    with pytest.raises(ModelError, match=r"llama-imatrix fails: "):
        compute(installed_tool("llama-imatrix"), f16, tmp_path / "rows.txt", tmp_path / "imatrix.gguf", n_ctx=64)
    assert not list(tmp_path.glob("*imatrix*"))


def test_without_the_program_the_stage_says_what_to_run_and_writes_nothing(
    f16: Path, merged: Path, examples: list[Example], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from tuneline.config.compose import compose
    from tuneline.stages import imatrix

    calibrated = ["export.imatrix={n_rows: 8, n_ctx: 64}"]
    compose(Path("conf"), tmp_path / "params.yaml", calibrated)
    write_examples(tmp_path / "train.jsonl", examples)
    monkeypatch.setattr(llama_cpp, "llama_cpp_folder", lambda: tmp_path / "share")
    files = {"params": "params.yaml", "train": "train.jsonl", "text": "rows.txt", "out": "imatrix.gguf"}
    words = [word for name, file in files.items() for word in (f"--{name}", str(tmp_path / file))]
    monkeypatch.setattr(sys, "argv", ["imatrix", *words, "--merged", str(merged), "--source", str(f16)])
    with pytest.raises(EnvironmentProblem, match=r"bin/llama-imatrix: .* is not there; run `make setup`") as caught:
        imatrix.main()
    assert "\n" not in str(caught.value)
    assert {path.name for path in tmp_path.iterdir()} == {"params.yaml", "train.jsonl"}


def test_a_quantise_killed_while_it_writes_leaves_no_file_under_the_name(f16: Path, tmp_path: Path) -> None:
    out, partial = tmp_path / "q2_k.gguf", tmp_path / ".q2_k.gguf.partial"
    command = [sys.executable, "-m", "tuneline.stages.quantize", "--params", "params.yaml", "--quant", "q2_k"]
    child = subprocess.Popen(
        [*command, "--source", str(f16), "--out", str(out)], env={**os.environ, "PYTHONPATH": "src"}
    )
    deadline = monotonic() + 60
    while not partial.exists() and child.poll() is None and monotonic() < deadline:
        sleep(0.0005)
    child.send_signal(signal.SIGKILL)
    assert child.wait() == -signal.SIGKILL
    assert partial.exists()
    assert not out.exists()
