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
_CPU_INFO = Path("/proc/cpuinfo")
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


def is_repacking_safe(cpu_info: Path = _CPU_INFO) -> bool:
    """Whether llama.cpp may lay quantised weights out anew for this processor.

    For AMX it does, and then ends in a segmentation fault as it multiplies them: seen with q8_0 and q4_k_m and the
    release that is pinned here, reported as https://github.com/ggml-org/llama.cpp/issues/20824, and explained by
    /pull/26954: the compiler takes the tiles' configuration away.
    """
    try:
        return "amx_int8" not in cpu_info.read_text(encoding="utf-8", errors="replace").split()
    except OSError:  # of Linux alone, where llama.cpp asks the system for AMX
        return True


def repacking_options() -> list[str]:
    """For llama.cpp's programs; llama-cpp-python's word for it is `use_extra_bufts`."""
    return [] if is_repacking_safe() else ["--no-repack"]


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
