"""`tuneline tools` says in one line what a build lacks, and leaves the old programs when it fails."""

import argparse
from pathlib import Path

import pytest

from tests.commands.test_converter import archive_with
from tuneline.commands import converter, tools
from tuneline.errors import EnvironmentProblem


def test_missing_builders_are_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("CXX", raising=False)
    with pytest.raises(EnvironmentProblem, match=r"need cmake and c\+\+, not on PATH; install") as caught:
        tools.check_builders()
    assert "\n" not in str(caught.value)


def test_an_archive_without_llama_cpp_is_refused(tmp_path: Path) -> None:
    archive = archive_with(tmp_path / "x.tar.gz", ["x/README.md"])
    with pytest.raises(EnvironmentProblem, match=r"x\.tar\.gz: no vendor/llama\.cpp in it"):
        tools.unpack_source(archive, tmp_path / "out")


def test_a_failed_build_leaves_the_old_programs_and_says_the_first_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(converter, "runtime_version", lambda: "1.2.3")
    recipe = tmp_path / "recipe"
    recipe.mkdir()
    (recipe / "CMakeLists.txt").write_text("cmake_minimum_required(VERSION 3.18)\nmessage(FATAL_ERROR broken)\n")
    monkeypatch.setattr(tools, "RECIPE", recipe)
    monkeypatch.setattr(tools, "check_builders", lambda: None)
    archive = archive_with(tmp_path / "x.tar.gz", ["x/vendor/llama.cpp/CMakeLists.txt"])
    into = tmp_path / "bin"
    into.mkdir()
    (into / "llama-server").write_text("old")
    with pytest.raises(EnvironmentProblem, match=r"cannot be built .*CMake Error .*broken") as caught:
        tools.execute(argparse.Namespace(version="1.2.3", archive=archive, into=into))
    assert "\n" not in str(caught.value)
    assert (into / "llama-server").read_text() == "old"
