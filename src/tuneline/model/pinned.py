"""Is a local base model the one that conf/ pins? To DVC whatever lies in the folder of a frozen stage is its output.

Every file counts: another tokenizer or config trains another model just as another weight does.
"""

import hashlib
import sys
from collections.abc import Mapping
from contextlib import AbstractContextManager
from functools import cache
from pathlib import Path
from typing import BinaryIO

from tuneline.config.schema import ModelConfig
from tuneline.errors import ModelError

_SHOWN_BYTES = 2**30  # about a second to read and hash
_BLOCK_BYTES = 2**20


def check_digests(model: ModelConfig) -> None:
    """Raises `ModelError` naming the first file that is not as pinned. A hub model is what its revision says."""
    if model.sha256 is None:
        return
    folder = Path(model.name_or_path)
    found = folder_digests(folder)
    for name in sorted(found.keys() | model.sha256.keys()):
        if found.get(name) != model.sha256.get(name):
            raise ModelError(
                f"{folder / name}: {_said(found.get(name))}, model.sha256 has {_said(model.sha256.get(name))}; "
                f"`git checkout -- {folder}` (or `dvc checkout`) brings back what was pinned; where the change is "
                f"meant, `tuneline pin {model.name}`, then `make params`"
            )


def folder_digests(folder: Path) -> Mapping[str, str]:
    """SHA-256 of each file in `folder` by its path there, without hidden ones: those are git's and the system's.

    Raises `ModelError` for a file that cannot be read.
    """
    files = {path.relative_to(folder).as_posix(): path for path in sorted(folder.rglob("*")) if path.is_file()}
    return {name: _digest(path) for name, path in files.items() if not any(p.startswith(".") for p in Path(name).parts)}


def _digest(path: Path) -> str:
    try:
        status = path.stat()
        return _read_digest(path.absolute(), status.st_size, status.st_mtime_ns)
    except OSError as error:
        raise ModelError(f"{path}: cannot be read ({error.strerror}); it needs rights and a sound disk") from None


@cache  # a stage loads tokenizer, config and weights, each after a check
def _read_digest(path: Path, n_bytes: int, changed_ns: int) -> str:
    digest = hashlib.sha256()
    with _opened(path, n_bytes) as file:
        while block := file.read(_BLOCK_BYTES):
            digest.update(block)
    return digest.hexdigest()


def _opened(path: Path, n_bytes: int) -> AbstractContextManager[BinaryIO]:
    """What takes seconds shows a bar in a terminal, and in a pipe a line."""
    if n_bytes < _SHOWN_BYTES:
        return path.open("rb")
    what = f"sha256 of {path.name}"
    if sys.stderr.isatty():
        from rich import progress
        from rich.console import Console
        from rich.markup import escape

        return progress.open(path, "rb", total=n_bytes, description=escape(what), console=Console(stderr=True))
    print(f"{what}, {n_bytes:,} bytes ...", file=sys.stderr, flush=True)
    return path.open("rb")


def _said(digest: str | None) -> str:
    return "no such file" if digest is None else f"sha256 {digest[:12]}..."
