"""The GGUF header, from bytes written by the format's description."""

from pathlib import Path

import pytest

from tests.export.conftest import header_bytes
from tuneline.errors import ModelError
from tuneline.export.header import Tensor, read_header


def test_header_says_what_was_written(tmp_path: Path) -> None:
    (tmp_path / "a.gguf").write_bytes(header_bytes({"general.name": "größe"}, {"w": (256, 3), "norm": (256,)}))
    header = read_header(tmp_path / "a.gguf")
    assert header.metadata == {"general.name": "größe"}
    assert header.tensors == (Tensor("w", (256, 3), "F16"), Tensor("norm", (256,), "F16"))


@pytest.mark.parametrize(
    "data",
    [b"", b"GGML" + bytes(60), b"GGUF" + bytes(60), header_bytes({"k": "v"}, {"w": (1, 2)})[:-9]],
    ids=["empty", "other magic", "other version", "cut off"],
)
def test_file_that_is_no_gguf_is_named_in_one_line(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "a.gguf").write_bytes(data)
    with pytest.raises(ModelError, match=r"a\.gguf: not a readable GGUF file") as caught:
        read_header(tmp_path / "a.gguf")
    assert "\n" not in str(caught.value)


def test_a_file_that_is_not_there_is_named_in_one_line(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"a\.gguf: cannot be read \(No such file or directory\); convert") as caught:
        read_header(tmp_path / "a.gguf")
    assert "\n" not in str(caught.value)
