"""What killed processes left on the disk: found, weighed, and removed unless a living process holds it."""

import re
import shutil
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil  # type: ignore[import-untyped]  # ships no types

from tuneline.training.checkpoints import describe, discard, holder, size_bytes
from tuneline.upkeep.processes import command_of, with_words, working_in

HALF_WRITTEN = re.compile(r"\..+\.(partial(\.yaml)?|previous|scratch)")  # by tuneline.output, config.compose
REMOVED = re.compile(r"\..+\.removed")  # and tuneline.training.checkpoints
SHARED_CACHE_SECONDS = 3600
NOT_OURS = (".git", ".venv", ".dvc", ".checkpoints", "node_modules")

Repo = Any  # dvc.repo.Repo


@dataclass(frozen=True, slots=True)
class Leftover:
    """`held` says which process still works with it; None: nobody."""

    path: Path
    what: str
    n_bytes: int
    held: str | None


def leftovers(repo: Repo, checkpoints: Path) -> list[Leftover]:
    """Checkpoints of trainings that did not end, half-written outputs and objects, folders of dead experiments."""
    root = Path(repo.root_dir)
    return [
        *unfinished(checkpoints),
        *half_written(root),
        *half_stored(Path(repo.cache.local.path)),
        *dead_workspaces(root, Path(repo.tmp_dir) / "exps"),
    ]


def unfinished(checkpoints: Path) -> Iterator[Leftover]:
    """A training that ends removes its own. The same training, started again, would go on from these."""
    for folder in _folders(checkpoints):
        if REMOVED.fullmatch(folder.name):
            yield Leftover(folder, "half-removed checkpoints", size_bytes(folder), None)
        else:
            pid = holder(folder)
            held = None if pid is None else f"process {pid} trains"
            yield Leftover(folder, f"unfinished training, {describe(folder)}", size_bytes(folder), held)


def half_written(root: Path) -> Iterator[Leftover]:
    """Held while any Tuneline process works in this repository: which of them writes what is not recorded."""
    working = [pid for pid in working_in(root) if "tuneline" in command_of(pid)]
    held = f"process {working[0]} works here" if working else None
    for path in _half_written_in(root):
        yield Leftover(path, "half-written", size_bytes(path), held)


def _half_written_in(folder: Path) -> Iterator[Path]:
    for path in sorted(folder.iterdir()):
        if HALF_WRITTEN.fullmatch(path.name):
            yield path
        elif path.is_dir() and not path.is_symlink() and path.name not in NOT_OURS:
            yield from _half_written_in(path)


def half_stored(cache: Path) -> Iterator[Leftover]:
    """What DVC had of an object when it was killed or the disk was full, by the name that dvc_objects.fs.utils gives.

    Held while any DVC runs here, and for an hour: another machine may share the cache.
    """
    dvc = with_words("dvc")
    for path in sorted(cache.glob("*/.*.tmp")):
        recent = time.time() - path.stat().st_mtime < SHARED_CACHE_SECONDS
        held = f"process {dvc[0]} may be writing it" if dvc else "less than an hour old" if recent else None
        yield Leftover(path, "half-stored", size_bytes(path), held)


def dead_workspaces(root: Path, folder: Path) -> Iterator[Leftover]:
    """Folders in which `dvc exp run --temp` or a queue's worker ran an experiment; an end in order removes them."""
    for workspace in _folders(folder):
        if workspace.name.startswith("tmp"):
            yield Leftover(workspace, "folder of an experiment", size_bytes(workspace), _user(root, workspace))


def _user(root: Path, workspace: Path) -> str | None:
    """A process that works in the folder, or a DVC process that may be filling it: one that was there before it."""
    if within := working_in(workspace):
        return f"process {within[0]} works in it"
    made = workspace.stat().st_ctime
    dvc = [pid for pid in working_in(root) if "dvc" in command_of(pid) and _started(pid) <= made]
    return f"process {dvc[0]} may be filling it" if dvc else None


def _started(pid: int) -> float:
    try:
        return float(psutil.Process(pid).create_time())
    except psutil.Error:
        return float("inf")


def _folders(top: Path) -> list[Path]:
    return sorted(path for path in top.iterdir() if path.is_dir()) if top.is_dir() else []


def remove(leftover: Leftover) -> bool:
    """Whether it is gone; one that is held, or was taken up again since it was found, stays."""
    if leftover.held is not None:
        return False
    if leftover.what.startswith("unfinished"):
        return discard(leftover.path)
    if leftover.path.is_dir():
        shutil.rmtree(leftover.path, ignore_errors=True)
    else:
        leftover.path.unlink(missing_ok=True)
    return not leftover.path.exists()
