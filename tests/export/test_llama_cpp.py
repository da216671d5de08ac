"""Where llama.cpp's programs are, and that only those of the installed runtime are run."""

from pathlib import Path

import pytest

from tuneline.errors import EnvironmentProblem
from tuneline.export.llama_cpp import tool_in


def built(folder: Path, release: str) -> Path:
    (folder / "llama-server").write_text("")
    (folder / "VERSION").write_text(f"{release}\n")
    return folder


def test_a_program_of_the_installed_runtime_is_found(tmp_path: Path) -> None:
    assert tool_in(built(tmp_path, "1.2.3"), "llama-server", "1.2.3") == tmp_path / "llama-server"


@pytest.mark.parametrize(("wanted", "message"), [("1.2.4", r"is that of .* 1\.2\.3, installed is 1\.2\.4")])
def test_a_program_of_another_release_is_refused(tmp_path: Path, wanted: str, message: str) -> None:
    with pytest.raises(EnvironmentProblem, match=f"{message}; run `make setup`"):
        tool_in(built(tmp_path, "1.2.3"), "llama-server", wanted)


def test_a_program_that_is_not_there_says_what_to_run(tmp_path: Path) -> None:
    with pytest.raises(EnvironmentProblem, match=r"llama-imatrix: llama.cpp's program is not there; run `make setup`"):
        tool_in(built(tmp_path, "1.2.3"), "llama-imatrix", "1.2.3")
