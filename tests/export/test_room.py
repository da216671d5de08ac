"""A disk that is too small is noticed before a file is begun."""

import shutil
from collections import namedtuple
from pathlib import Path

import pytest

from tuneline.errors import EnvironmentProblem
from tuneline.export.room import check_room, converted_bytes, quantised_bytes

Usage = namedtuple("Usage", "total used free")


def test_needed_and_free_bytes_are_named_in_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda path: Usage(9000, 4000, 5000))
    check_room(tmp_path / "new" / "a.gguf", 5000)
    with pytest.raises(EnvironmentProblem, match=r"a\.gguf: needs up to 5,001 bytes, 5,000 are free") as caught:
        check_room(tmp_path / "new" / "a.gguf", 5001)
    assert "\n" not in str(caught.value)


def test_sizes_follow_the_bits_of_the_type(tmp_path: Path) -> None:
    (tmp_path / "model.safetensors").write_bytes(bytes(1600))
    assert converted_bytes(tmp_path, "f16") == 1600
    assert converted_bytes(tmp_path, "f32") == 3200
    assert quantised_bytes(tmp_path / "model.safetensors", "q8_0") == 1000
    assert quantised_bytes(tmp_path / "model.safetensors", "iq4_xs") == 600
