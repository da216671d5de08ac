"""The hash of a file is that of its bytes, whoever watches."""

import hashlib
import io
import sys
from pathlib import Path

import pytest

from tuneline.model import pinned


class _Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize(
    ("stream", "shown"), [(_Terminal(), "300.0/300.0 kB"), (io.StringIO(), "weights, 300,000 bytes ...\n")]
)
def test_a_large_file_shows_that_it_is_read_and_has_the_same_hash(
    stream: io.StringIO, shown: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "weights"
    path.write_bytes(bytes(range(250)) * 1200)
    monkeypatch.setattr(pinned, "_SHOWN_BYTES", 300_000)
    monkeypatch.setattr(sys, "stderr", stream)
    assert pinned.folder_digests(tmp_path) == {"weights": hashlib.sha256(path.read_bytes()).hexdigest()}
    assert shown in stream.getvalue()


def test_a_small_file_says_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "config.json").write_bytes(b"{}")
    assert pinned.folder_digests(tmp_path) == {"config.json": hashlib.sha256(b"{}").hexdigest()}
    assert capsys.readouterr().err == ""
