"""A packaged model from a git revision into a folder that always holds a whole model.

    DIR/current                                  -> .versions/<commit>-<path>/model, replaced by one rename
    DIR/.versions/<commit>-<path>/model            the packaged folder, as it was verified
    DIR/.versions/<commit>-<path>/deployment.json  repository, revision and commit it was fetched from
    DIR/.versions/.fetching                      what a fetch has so far; a killed one's is removed by the next

A version is written beside the others, verified, flushed to the disk and renamed before `current` moves: whenever the
process is killed, `current` is the old model or the new one.

<path> is a digest of the path in the repository: one commit may hold several packaged models.
The commit is known here, not in models/deploy: a stage's output must be the same bytes for the same inputs, and the
commit that holds its hash is made after it. A commit is clean by nature, so no dirty flag is needed either.
"""

import fcntl
import hashlib
import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

from tuneline.errors import EnvironmentProblem, ModelError
from tuneline.export.room import check_room
from tuneline.flushing import flush
from tuneline.output import write_text
from tuneline.serving.integrity import DEPLOYMENT, RECORD, Verified, file_digests, verify_model

if TYPE_CHECKING:
    from tuneline.serving.source import Source  # DVC takes a second to import


def deploy(source: "Source", to: Path, keep: int) -> Verified:
    """Make `to/current` the model of `source`, and keep the `keep` latest versions for a quick way back.

    A version that is still there is verified again, not fetched. Raises `EnvironmentProblem` when `to` cannot be used
    or the disk is too small, `ModelError` when the fetched files are not as recorded; `current` is then untouched.
    """
    with _one_deployment(to) as versions:
        version = versions / version_name(source)
        verified = _already_there(version) or _fetch(source, version)
        deployment = _deployment(source, version / "model")
        write_text(version / DEPLOYMENT, json.dumps(deployment, indent=2, sort_keys=True) + "\n")
        flush(version / DEPLOYMENT)
        flush(version)
        flush(versions)  # the version's own name, before `current` points to it
        _point(to / "current", version / "model")
        _prune(versions, version.name, keep)
    return replace(verified, folder=version / "model", deployment=deployment)


def version_name(source: "Source") -> str:
    """Of the folder for this commit and path, however the path is spelled."""
    path = PurePosixPath(os.path.normpath(source.path)).as_posix()
    return f"{source.commit}-{hashlib.sha256(path.encode()).hexdigest()[:12]}"


@contextmanager
def _one_deployment(to: Path) -> Iterator[Path]:
    """The folder of versions, locked: a second deployment into the same place ends at once."""
    versions = to / ".versions"
    if (to / "current").exists() and not (to / "current").is_symlink():
        raise EnvironmentProblem(f"{to / 'current'}: not a link that `tuneline deploy` made; choose another --to")
    try:
        versions.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise EnvironmentProblem(f"{to}: cannot hold a model ({error.strerror}); choose another --to") from None
    with (versions / ".lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise EnvironmentProblem(f"{to}: another deployment is running there; wait for it") from None
        yield versions


def _already_there(version: Path) -> Verified | None:
    """The version when it lies there undamaged."""
    if not version.is_dir():
        return None
    try:
        return verify_model(version / "model")
    except ModelError:
        return None


def _fetch(source: "Source", version: Path) -> Verified:
    """Download, verify, flush, rename. A damaged version of the same commit gives way at the very end."""
    partial = version.with_name(".fetching")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir()
    try:
        check_room(partial / "model", source.n_bytes(), "make room or choose another --to")
        source.download(partial / "model")
        verified = verify_model(partial / "model")
        _flush_all(partial)
        shutil.rmtree(version, ignore_errors=True)
        partial.rename(version)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return verified


def _deployment(source: "Source", model: Path) -> dict[str, str]:
    return {
        "commit": source.commit,
        "path": source.path,
        "provenance_sha256": file_digests(model / RECORD)["sha256"],
        "repo": source.public_repo,
        "rev": source.rev,
    }


def _point(link: Path, target: Path) -> None:
    """Replace the link by one rename, which a reader sees before or after, never between."""
    temporary = link.with_name(".current.partial")
    temporary.unlink(missing_ok=True)
    temporary.symlink_to(os.path.relpath(target, link.parent))  # relative: the whole folder may be moved
    temporary.replace(link)
    flush(link.parent)


def _prune(versions: Path, current: str, keep: int) -> None:
    """Remove all but the `keep` versions that were deployed last; the current one stays in any case."""
    others = [path for path in versions.iterdir() if path.is_dir() and path.name != current]
    for path in sorted(others, key=_deployed_at)[: max(0, len(others) - keep + 1)]:
        shutil.rmtree(path, ignore_errors=True)


def _deployed_at(version: Path) -> int:
    """Nanoseconds; 0 for what was fetched and never deployed."""
    record = version / DEPLOYMENT
    return record.stat().st_mtime_ns if record.exists() else 0


def _flush_all(folder: Path) -> None:
    """Everything below `folder` on the disk, so that a rename that survives a power cut names whole files."""
    for parent, _, files in os.walk(folder):
        for name in files:
            flush(Path(parent, name))
        flush(Path(parent))
