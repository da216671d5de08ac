"""Checkpoints of a training that may be killed: outside DVC's outputs, used only when whole, removed when done.

A folder per fingerprint, and in it one of the trainer's folders per checkpoint. A manifest with the SHA-256 of every
file is written last: a checkpoint without one, or with other files than it names, is not used. No torch here.
"""

import fcntl
import hashlib
import inspect
import json
import os
import shutil
import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Any

from tuneline.errors import EnvironmentProblem
from tuneline.output import write_text

MANIFEST = "manifest.json"
LIBRARIES = ("accelerate", "bitsandbytes", "peft", "safetensors", "tokenizers", "torch", "transformers", "trl")
_PREFIX = "checkpoint-"  # of the trainer's folders, before the step
_OWNER = "owner"  # locked by the process that trains, whose id it holds


def fingerprint(values: Sequence[Any], inputs: Iterable[Path]) -> str:
    """16 hex digits over all that decides a training: `values`, the bytes of `inputs`, our code, library versions.

    `values` is JSON. A folder among `inputs` counts with every file in it. The code is that of the modules loaded now.
    """
    record = {
        "values": values,
        "inputs": [{name: file_sha256(file) for name, file in _files(path)} for path in inputs],
        "code": {name: _sha256(inspect.getsource(module).encode()) for name, module in _own_modules()},
        "libraries": {name: version(name) for name in LIBRARIES},
    }
    return _sha256(json.dumps(record, sort_keys=True).encode())[:16]


def _own_modules() -> Iterator[tuple[str, Any]]:
    loaded = sorted(name for name in sys.modules if name.startswith("tuneline."))
    yield from ((name, sys.modules[name]) for name in loaded if not hasattr(sys.modules[name], "__path__"))


def _files(path: Path) -> list[tuple[str, Path]]:
    if not path.is_dir():
        return [("", path)] if path.is_file() else []  # a hub model is no path; its commit is among the values
    return [(file.relative_to(path).as_posix(), file) for file in sorted(path.rglob("*")) if file.is_file()]


def file_sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


@contextmanager
def checkpoint_folder(folder: Path) -> Iterator[Path]:
    """`folder`, held for this process, and removed when the block succeeds: its results are safe then.

    Raises `EnvironmentProblem` naming the process that trains there already. The operating system lets go of the
    folder when the process ends, however it ends.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / _OWNER).open("a+") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            file.seek(0)
            raise EnvironmentProblem(
                f"{folder}: process {file.read().strip() or 'unknown'} trains this very phase; wait for it, or stop it"
            ) from None
        file.truncate(0)
        file.write(str(os.getpid()))
        file.flush()
        yield folder
        shutil.rmtree(folder)


def seal(checkpoint: Path) -> None:
    """Write the manifest of a checkpoint whose files are all there."""
    for _, file in _files(checkpoint):
        _sync(file)  # else a power cut could leave a manifest beside empty files
    hashes = {name: file_sha256(file) for name, file in _files(checkpoint) if name != MANIFEST}
    write_text(checkpoint / MANIFEST, json.dumps(hashes, indent=2, sort_keys=True) + "\n")


def newest_whole(folder: Path) -> tuple[Path | None, list[str]]:
    """The newest checkpoint whose files are those of its manifest, and what is wrong with each newer one."""
    problems: list[str] = []
    for checkpoint in sorted(folder.glob(f"{_PREFIX}*"), key=_step, reverse=True):
        problem = damage(checkpoint)
        if problem is None:
            return checkpoint, problems
        problems.append(f"{checkpoint}: {problem}")
    return None, problems


def damage(checkpoint: Path) -> str | None:
    """What a checkpoint lacks or has too much; None for a whole one."""
    try:
        hashes = json.loads((checkpoint / MANIFEST).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return f"no readable {MANIFEST}: it was being written when its process ended"
    if not isinstance(hashes, dict):
        return f"{MANIFEST} holds no hashes"
    files = {name: file for name, file in _files(checkpoint) if name != MANIFEST}
    if missing := sorted(hashes.keys() - files.keys()):
        return f"{missing[0]} is missing"
    if foreign := sorted(files.keys() - hashes.keys()):
        return f"{foreign[0]} is not in its manifest"
    changed = [name for name, file in files.items() if file_sha256(file) != hashes[name]]
    return f"{changed[0]} has changed since it was written" if changed else None


def remove_others(folder: Path, kept: Path | None) -> None:
    """Remove every checkpoint but `kept`: a damaged one must not be mixed with one of the same step."""
    for checkpoint in folder.glob(f"{_PREFIX}*"):
        if checkpoint != kept:
            shutil.rmtree(checkpoint)


def _step(checkpoint: Path) -> int:
    number = checkpoint.name.removeprefix(_PREFIX)
    return int(number) if number.isdigit() else -1


def _sync(file: Path) -> None:
    with file.open("rb") as opened:
        os.fsync(opened.fileno())
