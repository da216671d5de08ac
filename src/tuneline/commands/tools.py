"""`tuneline tools`: build llama-server and llama-imatrix, from the archive that llama-cpp-python is built of.

They are linked against the libraries that llama-cpp-python installed. So only the programs are compiled, and they
compute with the very code that the pipeline measures.
"""

import argparse
import os
import shutil
import subprocess
import tempfile
from importlib.util import find_spec
from pathlib import Path
from typing import get_args

from tuneline.commands.converter import add_source_arguments, check_runtime, extract, fetch
from tuneline.errors import EnvironmentProblem
from tuneline.export.llama_cpp import Tool, llama_cpp_folder
from tuneline.output import atomic_folder

RECIPE = Path(__file__).with_name("llama_cpp")  # the folder of our CMakeLists.txt
TOOLS: tuple[Tool, ...] = get_args(Tool)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_source_arguments(parser, llama_cpp_folder() / "bin")


def execute(arguments: argparse.Namespace) -> None:
    """Build the programs of exactly the installed runtime's version; a failed build leaves the old ones."""
    check_runtime(arguments.version)
    check_builders()
    with tempfile.TemporaryDirectory() as temporary:
        archive = arguments.archive or fetch(arguments.version, Path(temporary))
        source = unpack_source(archive, Path(temporary) / "source")
        build(source, installed_libraries(), arguments.version, Path(temporary) / "build")
        with atomic_folder(arguments.into) as folder:
            for tool in TOOLS:
                shutil.copy2(Path(temporary) / "build" / "bin" / tool, folder / tool)
            shutil.copyfile(source / "LICENSE", folder / "LICENSE")
            (folder / "VERSION").write_text(f"{arguments.version}\n", encoding="utf-8")
    print(f"{arguments.into}: {', '.join(TOOLS)} of llama-cpp-python {arguments.version}")


def check_builders() -> None:
    """Raise `EnvironmentProblem` naming what a build needs and this machine lacks."""
    compiler = os.environ.get("CXX", "c++")
    missing = [program for program in ("cmake", compiler) if shutil.which(program) is None]
    if missing:
        raise EnvironmentProblem(
            f"llama.cpp's programs need {' and '.join(missing)}, not on PATH; install cmake and a C++ compiler, "
            "then run `make setup` again"
        )


def installed_libraries() -> Path:
    """The folder with libllama and libggml of llama-cpp-python."""
    spec = find_spec("llama_cpp")
    if spec is None or not spec.submodule_search_locations:
        raise EnvironmentProblem("llama-cpp-python is not installed: run `make setup`")
    return Path(spec.submodule_search_locations[0]) / "lib"


def unpack_source(archive: Path, folder: Path) -> Path:
    """Extract the archive into `folder`; its vendor/llama.cpp. Raises `EnvironmentProblem` for an unusable one."""
    extract(archive, folder, lambda tar: tar)
    found = sorted(folder.glob("*/vendor/llama.cpp/CMakeLists.txt"))
    if not found:
        raise EnvironmentProblem(f"{archive}: no vendor/llama.cpp in it; --archive is the source of llama-cpp-python")
    return found[0].parent


def build(source: Path, libraries: Path, release: str, folder: Path) -> None:
    """Compile `TOOLS` into `folder`/bin. Raises `EnvironmentProblem` with the first error that the build printed."""
    settings = {"LLAMA_CPP": source, "LIBRARIES": libraries, "LLAMA_CPP_PYTHON": release, "CMAKE_BUILD_TYPE": "Release"}
    _run(["cmake", "-S", str(RECIPE), "-B", str(folder), *(f"-D{key}={value}" for key, value in settings.items())])
    _run(["cmake", "--build", str(folder), "--parallel", str(os.cpu_count() or 1), "--target", *TOOLS])


def _run(command: list[str]) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603  (cmake, with paths)
    if done.returncode != 0:
        reason = _first_error(done.stderr + done.stdout) or f"exit code {done.returncode}"
        raise EnvironmentProblem(f"llama.cpp's programs cannot be built with {command[0]} and this compiler: {reason}")


def _first_error(output: str) -> str:
    """The first line that speaks of an error, and the one after it: CMake says where first, and then what."""
    lines = [line.strip() for line in output.splitlines() if line.strip()]
    first = next((index for index, line in enumerate(lines) if "error" in line.lower()), len(lines))
    return " ".join(lines[first : first + 2])
