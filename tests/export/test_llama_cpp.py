"""Where llama.cpp's programs are, and that only those of the installed runtime are run."""

import subprocess
from pathlib import Path
from typing import Any

import pytest

from tuneline.errors import EnvironmentProblem, ModelError
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


@pytest.mark.slow
@pytest.mark.parametrize("is_safe", [True, False])
def test_the_runtime_is_told_too(is_safe: bool, f16: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from tuneline.export import runtime

    told: list[bool] = []

    def load(_: bytes, params: Any) -> None:
        assert "use_extra_bufts" in dict(params._fields_), "another release calls it otherwise, and takes any name"
        told.append(params.use_extra_bufts)

    monkeypatch.setattr("llama_cpp.llama_model_load_from_file", load)
    monkeypatch.setattr(runtime, "is_repacking_safe", lambda: is_safe)
    with pytest.raises(ModelError, match="cannot load it"):
        runtime.check_weights(f16)
    assert told == [is_safe]


@pytest.mark.slow
def test_the_importance_matrix_is_computed_with_it(f16: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from tuneline.export import calibration

    commands: list[list[str]] = []

    def run(command: list[str], **_: object) -> "subprocess.CompletedProcess[str]":
        commands.append(command)
        return subprocess.CompletedProcess(command, 1, "", "refused")

    monkeypatch.setattr(subprocess, "run", run)
    for is_safe in (True, False):
        monkeypatch.setattr(llama_cpp, "is_repacking_safe", lambda is_safe=is_safe: is_safe)
        with pytest.raises(ModelError, match="refused"):
            calibration.compute(tmp_path / "tool", f16, tmp_path / "rows.txt", tmp_path / "out.gguf", n_ctx=64)
    assert ["--no-repack" in command for command in commands] == [False, True]
