"""Quantisation: the file has the types its name says."""

from pathlib import Path
from typing import get_args

import pytest

from tests.export.conftest import PEFT_WARNING, convert_folder, header_bytes, save_model, save_tokenizer
from tuneline.config.schema import OutType, QuantType
from tuneline.errors import ConfigError, ModelError

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings(PEFT_WARNING)]


def matrix_types(gguf: Path) -> set[str]:
    from tuneline.export.header import read_header

    return {tensor.type for tensor in read_header(gguf).tensors if len(tensor.shape) > 1}


def test_every_type_of_the_schema_is_one_of_llama_cpps() -> None:
    import llama_cpp

    from tuneline.export.quantize import FILE_TYPES

    assert set(FILE_TYPES) == {*get_args(QuantType), "f32", "f16", "bf16"}
    for quant, number in FILE_TYPES.items():
        name = llama_cpp.llama_ftype_name(number)
        assert name is not None
        size = {"s": "Small", "m": "Medium", "l": "Large"}
        assert quant.split("_")[0].upper() in name.decode().upper()
        assert "_k_" not in quant or size[quant[-1]] in name.decode()


@pytest.mark.parametrize(
    ("quant", "types"),
    [
        ("q8_0", {"Q8_0"}),
        ("q6_k", {"Q6_K"}),
        ("q5_k_m", {"Q5_K", "Q6_K"}),
        ("q5_k_s", {"Q5_K", "Q6_K"}),
        ("q4_k_m", {"Q4_K", "Q6_K"}),
        ("q4_k_s", {"Q4_K", "Q5_K", "Q6_K"}),
        ("q4_0", {"Q4_0", "Q6_K"}),
        # llama.cpp's mixes add Q5_K or Q4_K here only where four heads share their keys, or from eight layers on
        ("iq4_xs", {"IQ4_XS", "Q6_K"}),
        ("q3_k_m", {"Q3_K", "Q4_K", "Q5_K", "Q6_K"}),
        ("q2_k", {"Q2_K", "Q3_K", "Q6_K"}),
    ],
)
def test_matrices_have_the_types_of_the_name(f16: Path, tmp_path: Path, quant: QuantType, types: set[str]) -> None:
    from tuneline.export.quantize import n_fallback_tensors, quantize

    quantize(f16, tmp_path / "out.gguf", quant)
    assert matrix_types(tmp_path / "out.gguf") == types
    assert n_fallback_tensors(tmp_path / "out.gguf", quant) == 0


def test_rows_that_fit_no_block_of_the_type_are_refused(tmp_path: Path) -> None:
    from tuneline.export.quantize import quantize

    (tmp_path / "f16.gguf").write_bytes(header_bytes({}, {"blk.0.attn_q.weight": (160, 160), "norm.weight": (160,)}))
    with pytest.raises(ModelError, match=r"'q4_k_m' needs weight rows that are multiples of 256.* have 160.*q8_0"):
        quantize(tmp_path / "f16.gguf", tmp_path / "q4.gguf", "q4_k_m")
    assert not list(tmp_path.glob("*q4.gguf*"))


def test_file_of_another_type_than_its_name_is_refused(f16: Path, tmp_path: Path) -> None:
    from tuneline.export.quantize import check_file_type, quantize

    quantize(f16, tmp_path / "q8_0.gguf", "q4_0")
    check_file_type(tmp_path / "q8_0.gguf", "q4_0")
    with pytest.raises(ModelError, match=r"q8_0\.gguf: it is of type q4_0, not q8_0"):
        check_file_type(tmp_path / "q8_0.gguf", "q8_0")


def test_file_that_does_not_say_its_type_is_refused(tmp_path: Path) -> None:
    from tuneline.export.quantize import check_file_type

    (tmp_path / "f16.gguf").write_bytes(header_bytes({}, {"w": (32, 32)}))
    with pytest.raises(ModelError, match=r"f16\.gguf: it is of type unknown, not f16; quantise it again"):
        check_file_type(tmp_path / "f16.gguf", "f16")


def test_source_that_is_not_there_is_one_line(tmp_path: Path) -> None:
    from tuneline.export.quantize import quantize

    with pytest.raises(ModelError, match=r"f16\.gguf: cannot be read \(No such file"):
        quantize(tmp_path / "f16.gguf", tmp_path / "q8_0.gguf", "q8_0")


def test_partial_fallback_is_counted_and_said(tmp_path: Path) -> None:
    """Hidden size 384 is no multiple of 256, the MLP's 768 is: only its down projections can have Q4_K or Q6_K."""
    from tuneline.export.quantize import describe, n_fallback_tensors, quantize

    save_model(tmp_path / "model", 0, tied=True, hidden_size=384)
    save_tokenizer(tmp_path / "model")
    quantize(convert_folder(tmp_path / "model", tmp_path / "f16.gguf"), tmp_path / "q4.gguf", "q4_k_m")
    assert n_fallback_tensors(tmp_path / "q4.gguf", "q4_k_m") == 1 + 2 * 6  # embeddings; q, k, v, o, gate, up
    assert "13 fell back to another type" in describe(tmp_path / "q4.gguf", "q4_k_m")


def test_file_that_is_no_gguf_is_refused(tmp_path: Path) -> None:
    from tuneline.export.quantize import quantize

    (tmp_path / "in.gguf").write_bytes(b"GGML" + bytes(64))
    with pytest.raises(ModelError, match=r"in\.gguf: not a readable GGUF"):
        quantize(tmp_path / "in.gguf", tmp_path / "out.gguf", "q8_0")


def test_truncated_weights_are_refused_and_nothing_is_written(f16: Path, tmp_path: Path) -> None:
    from tuneline.export.quantize import quantize

    (tmp_path / "in.gguf").write_bytes(f16.read_bytes()[:-100_000])
    with pytest.raises(ModelError, match=r"cannot quantise it to q8_0: .*tensor"):
        quantize(tmp_path / "in.gguf", tmp_path / "out.gguf", "q8_0")
    assert not list(tmp_path.glob("*out.gguf*"))


def test_unknown_type_is_refused_with_the_list_and_the_nearest() -> None:
    from tuneline.export.quantize import quant_type

    with pytest.raises(ConfigError, match=r"'q4km' is not a llama.cpp type; one of f32, .*; did you mean 'q4_k_m'"):
        quant_type("q4km")


QUANTS: tuple[QuantType, ...] = (
    "q8_0",
    "q6_k",
    "q5_k_m",
    "q4_k_m",
    "q4_0",
    "q5_1",
    "iq4_nl",
    "iq4_xs",
    "q3_k_m",
    "q2_k",
)


@pytest.mark.parametrize("outtype", ["f16", "f32"])
@pytest.mark.parametrize("hidden_size", [192, 256, 384])
def test_no_file_is_larger_than_the_room_that_was_asked_for(hidden_size: int, outtype: OutType, tmp_path: Path) -> None:
    """Nor much smaller, which would refuse a disk that it fits on. Rows of 192 and 384 fall back to wider types."""
    from tuneline.export.gguf import convert
    from tuneline.export.llama_cpp import llama_cpp_folder
    from tuneline.export.quantize import quantize
    from tuneline.export.room import converted_bytes, quantised_bytes
    from tuneline.model.tokenizers import load_tokenizer_from

    folder, source, out = tmp_path / "model", tmp_path / "source.gguf", tmp_path / "out.gguf"
    save_model(folder, 0, tied=True, hidden_size=hidden_size)
    save_tokenizer(folder)
    tokenizer = load_tokenizer_from(folder)
    convert(folder, tokenizer, source, outtype=outtype, name="tiny", converter=llama_cpp_folder())
    assert source.stat().st_size <= converted_bytes(folder, outtype) <= 1.1 * source.stat().st_size
    for quant in QUANTS if hidden_size != 192 else ("q8_0", "q4_0", "q5_1", "iq4_nl"):
        quantize(source, out, quant)
        assert out.stat().st_size <= quantised_bytes(source, quant) <= 2 * out.stat().st_size, quant
