"""`tuneline converter` unpacks the wanted parts, only those, and only of the installed runtime's version."""

import argparse
import io
import subprocess
import tarfile
from pathlib import Path

import pytest

from tuneline.commands import converter
from tuneline.errors import EnvironmentProblem
from tuneline.export.llama_cpp import llama_cpp_commit


def archive_with(path: Path, names: list[str]) -> Path:
    with tarfile.open(path, "w:gz") as tar:
        for name in names:
            member = tarfile.TarInfo(name)
            member.size = len(name)
            tar.addfile(member, io.BytesIO(name.encode()))
    return path


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    inside = ["convert_hf_to_gguf.py", "conversion/llama.py", "gguf-py/gguf/__init__.py", "src/llama.cpp"]
    names = [f"llama_cpp_python-1.2.3/vendor/llama.cpp/{name}" for name in inside]
    return archive_with(tmp_path / "source.tar.gz", [*names, "llama_cpp_python-1.2.3/README.md"])


@pytest.fixture
def unpacked(archive: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder in which the archive's converter was put, beside a runtime of its version."""
    monkeypatch.setattr(converter, "runtime_version", lambda: "1.2.3")
    into = tmp_path / "share"
    converter.execute(argparse.Namespace(version="1.2.3", archive=archive, into=into))
    return into


def test_only_the_converter_is_unpacked_with_its_version(unpacked: Path) -> None:
    files = {path.relative_to(unpacked).as_posix() for path in unpacked.rglob("*") if path.is_file()}
    assert files == {"VERSION", "convert_hf_to_gguf.py", "conversion/llama.py", "gguf-py/gguf/__init__.py"}
    assert (unpacked / "VERSION").read_text() == "1.2.3\n"


@pytest.mark.parametrize(
    ("head", "commit"), [("0123456789abcdef0123456789abcdef01234567\n", True), ("ref: refs/heads/main\n", False)]
)
def test_the_commit_of_llama_cpp_is_kept_where_the_archive_has_it(head: str, commit: bool, tmp_path: Path) -> None:
    path = tmp_path / "source.tar.gz"
    with tarfile.open(path, "w:gz") as tar:
        for name, text in (
            ("vendor/llama.cpp/convert_hf_to_gguf.py", ""),
            (".git/modules/vendor/llama.cpp/HEAD", head),
        ):
            member = tarfile.TarInfo(f"llama_cpp_python-1.2.3/{name}")
            member.size = len(text)
            tar.addfile(member, io.BytesIO(text.encode()))
    converter.unpack(path, tmp_path / "share")
    assert llama_cpp_commit(tmp_path / "share") == (head.strip() if commit else None)
    assert llama_cpp_commit(tmp_path) is None


def test_another_version_than_the_runtimes_is_refused(
    archive: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(converter, "runtime_version", lambda: "1.2.4")
    with pytest.raises(EnvironmentProblem, match=r"1\.2\.4 is installed, not 1\.2\.3"):
        converter.execute(argparse.Namespace(version="1.2.3", archive=archive, into=tmp_path / "share"))
    assert not (tmp_path / "share").exists()


def test_a_path_that_climbs_out_of_the_folder_is_refused(tmp_path: Path) -> None:
    evil = archive_with(tmp_path / "evil.tar.gz", ["x/vendor/llama.cpp/conversion/../../../outside.py"])
    with pytest.raises(EnvironmentProblem, match="outside the destination"):
        converter.unpack(evil, tmp_path / "share" / "inner")
    assert not (tmp_path / "outside.py").exists()


def damaged(path: Path, whole: Path, n_bytes: int) -> Path:
    path.write_bytes(whole.read_bytes()[:n_bytes])
    return path


def test_an_archive_that_cannot_be_used_is_one_line_and_leaves_the_old_converter(
    archive: Path, unpacked: Path, tmp_path: Path
) -> None:
    unusable = {
        tmp_path / "nothing.tar.gz": "cannot be unpacked",
        damaged(tmp_path / "cut.tar.gz", archive, 200): "cannot be unpacked",
        damaged(tmp_path / "empty.tar.gz", archive, 0): "cannot be unpacked",
        archive_with(tmp_path / "other.tar.gz", ["x/vendor/llama.cpp/LICENSE"]): "no vendor/llama.cpp/convert_hf",
    }
    for path, message in unusable.items():
        with pytest.raises(EnvironmentProblem, match=f"{path.name}: {message}") as caught:
            converter.execute(argparse.Namespace(version="1.2.3", archive=path, into=unpacked))
        assert "\n" not in str(caught.value)
        assert (unpacked / "convert_hf_to_gguf.py").is_file()


def test_only_the_runtime_itself_has_to_come_as_source(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []

    def pip(command: list[str], **_: object) -> subprocess.CompletedProcess[str]:
        asked.extend(command)
        (tmp_path / "llama_cpp_python-1.2.3.tar.gz").touch()
        return subprocess.CompletedProcess(command, 0)

    monkeypatch.setattr(subprocess, "run", pip)
    assert converter.fetch("1.2.3", tmp_path).name == "llama_cpp_python-1.2.3.tar.gz"
    # with :all: pip would also build its own build tools from source
    assert asked[asked.index("--no-binary") + 1] == "llama-cpp-python"
