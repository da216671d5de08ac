"""Where setup put llama.cpp's own programs; imports nothing heavy, so that commands can ask."""

import os
import re
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Literal

from tuneline.errors import EnvironmentProblem

Tool = Literal["llama-server", "llama-imatrix"]

COMMIT = "COMMIT"  # file in `llama_cpp_folder`
MODEL_SCRIPT, ADAPTER_SCRIPT = "convert_hf_to_gguf.py", "convert_lora_to_gguf.py"  # the same


def llama_cpp_folder() -> Path:
    """What setup took and built from the source archive of llama-cpp-python: converter, and programs in `bin`."""
    return Path(sys.prefix) / "share" / "llama.cpp"


def llama_cpp_commit(folder: Path) -> str | None:
    """The commit of llama.cpp that release and converter are of; None where the source archive did not say."""
    try:
        found = (folder / COMMIT).read_text(encoding="utf-8").strip()
    except OSError:
        return None
    return found if re.fullmatch(r"[0-9a-f]{40}", found) else None


def installed_tool(name: Tool) -> Path:
    """The program `name`. Raises `EnvironmentProblem` when it is missing or was built beside another runtime."""
    return of_runtime(llama_cpp_folder() / "bin", name)


def of_runtime(folder: Path, name: str) -> Path:
    """The file `name` in `folder`, whose file VERSION says that it belongs to the installed llama-cpp-python.

    Raises `EnvironmentProblem` when it is missing, or of another release than the runtime.
    """
    file, marker, wanted = folder / name, folder / "VERSION", runtime_version()
    if not file.is_file() or not marker.is_file():
        raise EnvironmentProblem(f"{file}: llama.cpp's {name} is not there; run `make setup`")
    found = marker.read_text(encoding="utf-8").strip()
    if found != wanted:
        raise EnvironmentProblem(
            f"{marker}: {name} is that of llama-cpp-python {found}, installed is {wanted}; run `make setup`"
        )
    return file


def tool_environment(*kept: str) -> dict[str, str]:
    """This process's variables, without those that llama.cpp reads options from (another chat template among them).

    `kept` names those that a tool is to see all the same.
    """
    return {name: value for name, value in os.environ.items() if not name.startswith("LLAMA_") or name in kept}


def runtime_version() -> str:
    """The installed release of llama-cpp-python, or `none`."""
    try:
        return version("llama-cpp-python")
    except PackageNotFoundError:
        return "none"


def last_line(output: str) -> str:
    """What a program had to say in the end: of a traceback, the error."""
    lines = output.strip().splitlines()
    return lines[-1].strip() if lines else "no reason given"
