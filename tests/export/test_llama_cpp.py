"""Where llama.cpp's programs are, and that only those of the installed runtime are run."""

from pathlib import Path

import pytest

from tuneline.errors import EnvironmentProblem
from tuneline.export import llama_cpp
from tuneline.export.llama_cpp import of_runtime


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
