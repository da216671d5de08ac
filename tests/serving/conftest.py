"""A packaged folder of a few bytes, with everything that verification looks at."""

import json
from pathlib import Path

import pytest

from tuneline.serving.integrity import RECORD, file_digests, record_sha256

GGUF = "tiny.gguf"


def write_package(folder: Path, gguf: bytes = b"GGUF" + bytes(range(200))) -> Path:
    """`gguf` is the file's content; the rest is the same for every folder."""
    (folder / "tokenizer").mkdir(parents=True)
    (folder / GGUF).write_bytes(gguf)
    (folder / "README.md").write_text("# tiny\n")
    (folder / "tokenizer/tokenizer.json").write_text("{}\n")
    return record(folder)


def record(folder: Path) -> Path:
    """Write provenance.json for whatever lies in `folder`."""
    (folder / RECORD).unlink(missing_ok=True)
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    listed = {
        path.relative_to(folder).as_posix(): file_digests(path) | {"n_bytes": path.stat().st_size} for path in files
    }
    content = {"files": listed, "settings": {"export": {"n_ctx": 64}, "model": {"name": "tiny"}}}
    content["record_sha256"] = record_sha256(content)
    (folder / RECORD).write_text(json.dumps(content))
    return folder


@pytest.fixture
def package(tmp_path: Path) -> Path:
    return write_package(tmp_path / "deploy")
