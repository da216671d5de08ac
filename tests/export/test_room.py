"""A disk that is too small is noticed before a file is begun."""

import json
import shutil
from collections import namedtuple
from pathlib import Path

import pytest

from tests.export.conftest import header_bytes
from tuneline.config.schema import QuantType
from tuneline.errors import EnvironmentProblem, ModelError
from tuneline.export.room import check_room, converted_bytes, quantised_bytes

Usage = namedtuple("Usage", "total used free")


def test_needed_and_free_bytes_are_named_in_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda path: Usage(9000, 4000, 5000))
    check_room(tmp_path / "new" / "a.gguf", 5000)
    with pytest.raises(EnvironmentProblem, match=r"a\.gguf: needs up to 5,001 bytes, 5,000 are free") as caught:
        check_room(tmp_path / "new" / "a.gguf", 5001)
    assert "\n" not in str(caught.value)


def write_safetensors(file: Path, header: dict[str, object]) -> None:
    """The header alone, by the format's description."""
    text = json.dumps(header).encode()
    file.write_bytes(len(text).to_bytes(8, "little") + text)


@pytest.mark.parametrize("stored", ["F32", "BF16"])
def test_what_is_converted_takes_its_own_bits_whatever_was_stored(stored: str, tmp_path: Path) -> None:
    entry = {"dtype": stored, "shape": [1000, 100], "data_offsets": [0, 0]}
    write_safetensors(tmp_path / "model.safetensors", {"__metadata__": {"format": "pt"}, "w": entry})
    assert 200_000 <= converted_bytes(tmp_path, "f16") <= 201_000
    assert 400_000 <= converted_bytes(tmp_path, "f32") <= 401_000


def test_the_tokenizer_counts_in_what_is_converted(tmp_path: Path) -> None:
    (tmp_path / "tokenizer.json").write_bytes(bytes(5000))
    assert converted_bytes(tmp_path, "f16") == 5000


@pytest.mark.parametrize(
    ("header", "length"),
    [(b"{", 1), (b"[]", 2), (b"{\xff", 2**62), (b'{"w": {}}', 9)],
    ids=["cut", "list", "long", "no shape"],
)
def test_a_damaged_file_is_named_in_one_line(header: bytes, length: int, tmp_path: Path) -> None:
    (tmp_path / "model.safetensors").write_bytes(length.to_bytes(8, "little") + header)
    with pytest.raises(ModelError, match=r"model\.safetensors: no readable safetensors file") as caught:
        converted_bytes(tmp_path, "f16")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("quant", "row", "bits"),
    [("q8_0", 192, 8.5), ("q4_0", 192, 4.5), ("q4_k_m", 192, 8.5), ("q4_k_m", 256, 6.5625), ("q4_k_m", 100, 16.0)],
)
def test_rows_that_fit_no_block_count_with_the_type_they_fall_back_to(
    quant: QuantType, row: int, bits: float, tmp_path: Path
) -> None:
    (tmp_path / "f16.gguf").write_bytes(header_bytes({}, {"blk.0.ffn_up.weight": (row, 1000)}))
    assert quantised_bytes(tmp_path / "f16.gguf", quant) >= row * 1000 * bits / 8
