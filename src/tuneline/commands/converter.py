"""`tuneline converter`: unpack llama.cpp's converter, from the archive that llama-cpp-python is built of.

The package index offers the runtime's source as one archive, with all of llama.cpp in it. Taking the converter from the
same archive keeps the two of one version, which no separate download would.
"""

import argparse
import subprocess
import sys
import tarfile
import tempfile
import zlib
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path, PurePosixPath

from tuneline.errors import EnvironmentProblem
from tuneline.export.llama_cpp import ADAPTER_SCRIPT, COMMIT, MODEL_SCRIPT, llama_cpp_folder, runtime_version
from tuneline.output import atomic_folder

PARTS = (MODEL_SCRIPT, ADAPTER_SCRIPT, "conversion", "gguf-py", "LICENSE")
_GIT_HEAD = (".git", "modules", "vendor", "llama.cpp", "HEAD")  # the commit of llama.cpp, where the archive holds it


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_source_arguments(parser, llama_cpp_folder())


def add_source_arguments(parser: argparse.ArgumentParser, into: Path) -> None:
    """Which source archive, and where to write what is taken from it; `into` is the default."""
    parser.add_argument("--version", required=True, help="of llama-cpp-python, such as 0.3.36")
    parser.add_argument("--archive", type=Path, help="its source archive (default: fetched from the package index)")
    shown = into.relative_to(sys.prefix)
    parser.add_argument(
        "--into", type=Path, default=into, help=f"folder to write (default: {shown} of this Python environment)"
    )


def execute(arguments: argparse.Namespace) -> None:
    """Unpack the converter of exactly the installed runtime's version; refuse another one."""
    check_runtime(arguments.version)
    with tempfile.TemporaryDirectory() as temporary:
        archive = arguments.archive or fetch(arguments.version, Path(temporary))
        with atomic_folder(arguments.into) as folder:
            unpack(archive, folder)
            (folder / "VERSION").write_text(f"{arguments.version}\n", encoding="utf-8")
    print(f"{arguments.into}: the converter of llama-cpp-python {arguments.version}")


def check_runtime(wanted: str) -> None:
    """The converter must be of the release whose runtime is installed."""
    if (installed := runtime_version()) != wanted:
        raise EnvironmentProblem(f"llama-cpp-python {installed} is installed, not {wanted}: run `make setup`")


def fetch(wanted: str, folder: Path) -> Path:
    """Download the source archive with pip, which knows the user's package index and cache."""
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--no-binary", "llama-cpp-python"]
    result = subprocess.run(  # noqa: S603  (a fixed command; the version is compared with the installed one above)
        [*command, "--dest", str(folder), f"llama-cpp-python=={wanted}"], check=False
    )
    archives = sorted(folder.glob("llama_cpp_python-*.tar.gz"))
    if result.returncode != 0 or not archives:
        raise EnvironmentProblem(
            f"pip could not download the source of llama-cpp-python {wanted}; see its message above"
        )
    return archives[0]


def unpack(archive: Path, folder: Path) -> None:
    """Extract the converter's parts of vendor/llama.cpp into `folder`.

    Raises `EnvironmentProblem` when the archive is missing or damaged, or holds no converter.
    """
    extract(archive, folder, _wanted)
    if not (folder / PARTS[0]).is_file():
        raise EnvironmentProblem(
            f"{archive}: no vendor/llama.cpp/{PARTS[0]} in it; --archive is the source (.tar.gz) of llama-cpp-python"
        )


def extract(archive: Path, folder: Path, members: Callable[[tarfile.TarFile], Iterable[tarfile.TarInfo]]) -> None:
    """Extract `members` of the archive into `folder`. Raises `EnvironmentProblem` when it is missing or damaged."""
    try:
        with tarfile.open(archive) as tar:
            for member in members(tar):
                tar.extract(member, folder, filter="data")
    except (tarfile.TarError, OSError, EOFError, zlib.error) as error:
        reason = " ".join(str(error).split())
        raise EnvironmentProblem(
            f"{archive}: cannot be unpacked ({reason}); leave --archive out to fetch it again"
        ) from None


def _wanted(tar: tarfile.TarFile) -> Iterator[tarfile.TarInfo]:
    for member in tar:
        match PurePosixPath(member.name).parts:
            case (_, "vendor", "llama.cpp", part, *rest) if part in PARTS:
                yield member.replace(name="/".join((part, *rest)))
            case (_, *inside) if tuple(inside) == _GIT_HEAD:
                yield member.replace(name=COMMIT)
