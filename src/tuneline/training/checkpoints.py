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
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from importlib.metadata import version
from pathlib import Path
from typing import Any, TextIO

from tuneline.config.schema import HardwareConfig, TrainConfig
from tuneline.errors import EnvironmentProblem
from tuneline.flushing import flush
from tuneline.output import write_text

MANIFEST = "manifest.json"
LIBRARIES = ("accelerate", "bitsandbytes", "peft", "safetensors", "tokenizers", "torch", "transformers", "trl")
# Settings that decide what is kept, and nothing of what is trained.
KEEPING = ("save_steps", "save_total_limit", "unfinished_kept", "unfinished_max_gib")
_PREFIX = "checkpoint-"  # of the trainer's folders, before the step
_TRIES = 10  # to hold a folder
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


def _own_modules() -> list[tuple[str, Any]]:
    """Also the one that Python was started with, which it calls `__main__`."""
    loaded = {_name(name, module): module for name, module in sys.modules.items()}
    return [
        (name, loaded[name])
        for name in sorted(loaded)
        if name.startswith("tuneline.") and not hasattr(loaded[name], "__path__")
    ]


def _name(name: str, module: Any) -> str:
    return module.__spec__.name if name == "__main__" and module.__spec__ is not None else name


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
    with _claimed(folder) as owner:
        owner.truncate(0)
        owner.write(str(os.getpid()))
        owner.flush()
        yield folder
        _remove(folder)


def _claimed(folder: Path) -> TextIO:
    for _ in range(_TRIES):
        folder.mkdir(parents=True, exist_ok=True)
        with suppress(FileNotFoundError):  # removed at this very moment by who held it
            if (owner := _claim(folder)) is not None:
                return owner
        time.sleep(0.05)  # it may be somebody who only asks whether it is held
    raise EnvironmentProblem(
        f"{folder}: process {holder(folder) or 'unknown'} trains this very phase; wait for it, or stop it"
    )


def _claim(folder: Path) -> TextIO | None:
    """The owner's file, locked; None when another process has it. Raises `FileNotFoundError` when it is gone."""
    owner = (folder / _OWNER).open("a+")
    try:
        fcntl.flock(owner, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if not os.path.samestat(os.fstat(owner.fileno()), (folder / _OWNER).stat()):
            raise FileNotFoundError(folder)
    except BlockingIOError:
        owner.close()
        return None
    except FileNotFoundError:
        owner.close()
        raise
    return owner


def holder(folder: Path) -> str | None:
    """Id of the process that trains in `folder`; None when nobody does."""
    try:
        owner = _claim(folder)
        if owner is None:
            return (folder / _OWNER).read_text(encoding="utf-8").strip() or "unknown"
        owner.close()
    except FileNotFoundError:
        pass
    return None


def discard(folder: Path) -> bool:
    """Remove the checkpoints of a training; False, and nothing happens, while a process trains there."""
    try:
        owner = _claim(folder)
    except FileNotFoundError:
        return True
    if owner is None:
        return False
    with owner:
        _remove(folder)
    return True


def _remove(folder: Path) -> None:
    """All at once for others: who starts the same training now begins with an empty folder."""
    aside = folder.with_name(f".{folder.name}.{os.getpid()}.removed")
    folder.rename(aside)
    shutil.rmtree(aside, ignore_errors=True)


def drop_oldest(top: Path, n_kept: int, max_gib: float) -> list[Path]:
    """Bound what unfinished trainings leave in `top`: their number, and their bytes together. Returns what was removed.

    Those that were written to last stay; those that run are neither counted nor touched.
    """
    idle = sorted((folder for folder in _trainings(top) if holder(folder) is None), key=_last_written, reverse=True)
    n_bytes, removed = 0, []
    for n_before, folder in enumerate(idle):
        n_bytes += size_bytes(folder)
        if (n_before >= n_kept or n_bytes > max_gib * 2**30) and discard(folder):
            removed.append(folder)
    return removed


def _trainings(top: Path) -> list[Path]:
    return [path for path in top.iterdir() if path.is_dir() and not path.name.startswith(".")] if top.is_dir() else []


def _last_written(folder: Path) -> float:
    return max((file.stat().st_mtime for name, file in _files(folder) if name != _OWNER), default=0.0)


def size_bytes(path: Path) -> int:
    """What a file, or all files of a folder, take."""
    return sum(file.lstat().st_size for _, file in _files(path))


def describe(folder: Path) -> str:
    """Its newest checkpoint that was written to its end."""
    steps = [_step(manifest.parent) for manifest in folder.glob(f"{_PREFIX}*/{MANIFEST}")]
    return f"checkpoint of step {max(steps)}" if steps else "no whole checkpoint"


def needed_bytes(n_trained: int, settings: TrainConfig, hardware: HardwareConfig) -> int:
    """At most what the checkpoints of a training take: weights, AdamW's two moments and the best weights, in fp32
    (moments in 8 bits with paged_adamw_8bit); one more of them than is kept, while the newest is written."""
    moments_bytes = 2 if hardware.optim == "paged_adamw_8bit" else 8
    best_bytes = 0 if settings.early_stopping_patience is None else 4
    return n_trained * (4 + moments_bytes + best_bytes) * (settings.save_total_limit + 1)


def seal(checkpoint: Path) -> None:
    """Write the manifest of a checkpoint whose files are all there."""
    for _, file in _files(checkpoint):
        flush(file)  # else a power cut could leave a manifest beside empty files
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
