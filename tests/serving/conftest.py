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
    settings = {"export": {"n_ctx": 64}, "model": {"name": "tiny"}, "data": {"system_prompt": None}}
    content = {"files": listed, "settings": settings}
    content["record_sha256"] = record_sha256(content)
    (folder / RECORD).write_text(json.dumps(content))
    return folder


@pytest.fixture
def package(tmp_path: Path) -> Path:
    return write_package(tmp_path / "deploy")


@pytest.fixture(scope="session")
def shipped(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Two folders by the code of the package stage, from the embedded base model; they differ in a setting."""
    from tests.export.conftest import convert_folder, experiment, reports
    from tuneline.export.package import Inputs, package
    from tuneline.export.quantize import quantize

    top = tmp_path_factory.mktemp("shipped")
    base = Path("models/base/sqlama").resolve()
    quantize(convert_folder(base, top / "f16.gguf"), top / "q8_0.gguf", "q8_0")
    inputs = Inputs(base / "config.json", base / "config.json", base, base, base)
    for name, it in (("v1", experiment()), ("v2", experiment(licence="mit"))):
        (top / name).mkdir()
        package(it, reports(), top / "q8_0.gguf", inputs, top / name)
    return top / "v1", top / "v2"
