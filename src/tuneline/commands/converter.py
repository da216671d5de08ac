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
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path, PurePosixPath

from tuneline.errors import EnvironmentProblem
from tuneline.export.llama_cpp import COMMIT
from tuneline.output import atomic_folder

PARTS = ("convert_hf_to_gguf.py", "convert_lora_to_gguf.py", "conversion", "gguf-py", "LICENSE")
_GIT_HEAD = (".git", "modules", "vendor", "llama.cpp", "HEAD")  # the commit of llama.cpp, where the archive holds it


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--version", required=True, help="of llama-cpp-python, such as 0.3.36")
    parser.add_argument("--archive", type=Path, help="its source archive (default: fetched from the package index)")
    parser.add_argument(
        "--into", type=Path, help="folder to write (default: share/llama.cpp of this Python environment)"
    )


def execute(arguments: argparse.Namespace) -> None:
    """Unpack the converter of exactly the installed runtime's version; refuse another one."""
    into = arguments.into or Path(sys.prefix) / "share" / "llama.cpp"
    check_runtime(arguments.version)
    with tempfile.TemporaryDirectory() as temporary:
        archive = arguments.archive or fetch(arguments.version, Path(temporary))
        with atomic_folder(into) as folder:
            unpack(archive, folder)
            (folder / "VERSION").write_text(f"{arguments.version}\n", encoding="utf-8")
    print(f"{into}: the converter of llama-cpp-python {arguments.version}")


def check_runtime(wanted: str) -> None:
    """The converter must be of the release whose runtime is installed."""
    try:
        installed = version("llama-cpp-python")
    except PackageNotFoundError:
        installed = "none"
    if installed != wanted:
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
    try:
        with tarfile.open(archive) as tar:
            for member in _wanted(tar):
                tar.extract(member, folder, filter="data")
    except (tarfile.TarError, OSError, EOFError, zlib.error) as error:
        reason = " ".join(str(error).split())
        raise EnvironmentProblem(
            f"{archive}: cannot be unpacked ({reason}); leave --archive out to fetch it again"
        ) from None
    if not (folder / PARTS[0]).is_file():
        raise EnvironmentProblem(
            f"{archive}: no vendor/llama.cpp/{PARTS[0]} in it; --archive is the source (.tar.gz) of llama-cpp-python"
        )


def _wanted(tar: tarfile.TarFile) -> Iterator[tarfile.TarInfo]:
    for member in tar:
        match PurePosixPath(member.name).parts:
            case (_, "vendor", "llama.cpp", part, *rest) if part in PARTS:
                yield member.replace(name="/".join((part, *rest)))
            case (_, *inside) if tuple(inside) == _GIT_HEAD:
                yield member.replace(name=COMMIT)
