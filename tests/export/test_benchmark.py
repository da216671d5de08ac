"""The benchmark of quantising: its file is one that llama.cpp reads, and both sides did the same work."""

from pathlib import Path

import pytest

from tuneline.benchmarks.random_gguf import Shape, write_random_gguf
from tuneline.commands.main import dispatch
from tuneline.errors import BudgetError
from tuneline.export.header import Tensor, read_header, read_layout

SMALL = Shape(n_layers=1, hidden=256, intermediate=512, n_heads=4, n_kv_heads=2, n_vocab=300, n_merges=20)


def test_the_file_is_whole_and_the_same_for_a_seed(tmp_path: Path) -> None:
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        write_random_gguf(tmp_path / name, SMALL, seed)
    first, second, other = ((tmp_path / name).read_bytes() for name in "abc")
    assert first == second != other
    header = read_header(tmp_path / "a")
    assert header.metadata["tokenizer.ggml.tokens"] == [f"token {i}" for i in range(300)]
    assert Tensor("blk.0.attn_k.weight", (256, 128), "F16") in header.tensors
    layout = read_layout(tmp_path / "a")
    assert layout.tensors == header.tensors
    assert layout.metadata == {**header.metadata, "tokenizer.ggml.tokens": [], "tokenizer.ggml.merges": []}
    last = header.tensors[-1]
    assert last == Tensor("output_norm.weight", (256,), "F32")
    assert len(first) % 32 == 0
    matrices = 256 * 300 + 256 * (256 + 128 + 128 + 256) + 3 * 256 * 512
    assert last.offset == 2 * matrices + 4 * 2 * 256


@pytest.mark.slow
def test_both_sides_are_timed_on_the_same_work(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_random_gguf(tmp_path / "f16.gguf", SMALL, 0)
    words = ["--source", str(tmp_path / "f16.gguf"), "--scratch", str(tmp_path), "--quants", "q4_k_m"]
    dispatch(["benchmark-quantize", *words, "--repeats", "1"])
    (line,) = capsys.readouterr().out.splitlines()
    assert line.startswith("q4_k_m   stage ")
    assert "ratio" in line
    assert [file.name for file in tmp_path.iterdir()] == ["f16.gguf"]


@pytest.mark.slow
def test_other_work_is_not_compared(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from tuneline.export import benchmark
    from tuneline.export.quantize import FILE_TYPES

    write_random_gguf(tmp_path / "f16.gguf", SMALL, 0)
    monkeypatch.setattr(benchmark, "FILE_TYPES", {"q4_k_m": FILE_TYPES["q4_0"]})
    with pytest.raises(BudgetError, match="did not do the same"):
        benchmark.compare(tmp_path / "f16.gguf", tmp_path, "q4_k_m", 1)
