"""Where llama.cpp's programs are, and that only those of the installed runtime are run."""

from pathlib import Path

import pytest

from tuneline.errors import EnvironmentProblem
from tuneline.export import llama_cpp
from tuneline.export.llama_cpp import is_repacking_safe, of_runtime, repacking_options


@pytest.fixture(autouse=True)
def _runtime(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(llama_cpp, "runtime_version", lambda: "1.2.3")


def built(folder: Path, release: str) -> Path:
    (folder / "llama-server").write_text("")
    (folder / "VERSION").write_text(f"{release}\n")
    return folder


def test_a_program_of_the_installed_runtime_is_found(tmp_path: Path) -> None:
    assert of_runtime(built(tmp_path, "1.2.3"), "llama-server") == tmp_path / "llama-server"


def test_a_program_of_another_release_is_refused(tmp_path: Path) -> None:
    match = r"VERSION: llama-server is that of .* 1\.2\.2, installed is 1\.2\.3; run `make setup`"
    with pytest.raises(EnvironmentProblem, match=match):
        of_runtime(built(tmp_path, "1.2.2"), "llama-server")


def test_a_program_that_is_not_there_says_what_to_run(tmp_path: Path) -> None:
    with pytest.raises(
        EnvironmentProblem, match=r"llama-imatrix: llama.cpp's llama-imatrix is not there; run `make setup`"
    ):
        of_runtime(built(tmp_path, "1.2.3"), "llama-imatrix")


@pytest.mark.parametrize(
    ("flags", "is_safe"), [("avx512_vnni amx_bf16 amx_tile amx_int8", False), ("avx512_vnni", True)]
)
def test_weights_are_not_laid_out_for_amx_which_ends_llama_cpp(flags: str, is_safe: bool, tmp_path: Path) -> None:
    cpu_info = tmp_path / "cpuinfo"
    cpu_info.write_text(f"processor\t: 0\nflags\t\t: fpu {flags}\n")
    assert is_repacking_safe(cpu_info) == is_safe


def test_where_the_system_says_nothing_about_its_processor_weights_are_laid_out(tmp_path: Path) -> None:
    assert is_repacking_safe(tmp_path / "cpuinfo")


def test_programs_are_told_where_repacking_is_not_safe(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(llama_cpp, "is_repacking_safe", lambda: False)
    assert repacking_options() == ["--no-repack"]
    monkeypatch.setattr(llama_cpp, "is_repacking_safe", lambda: True)
    assert repacking_options() == []
