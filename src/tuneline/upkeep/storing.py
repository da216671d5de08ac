"""What DVC lets pass: outputs that a full disk kept out of its cache, and frozen ones that changed.

On a full disk `dvc repro` may lose an output, and still end with code 0. Of a frozen stage it records whatever lies
there: a flipped bit in the base model becomes the new base model.
"""

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

Repo = Any  # dvc.repo.Repo


def not_stored(repo: Repo) -> Iterator[str]:
    """One line for each output that was not made, or that the cache lacks, whole or in part."""
    for out in repo.index.outs:
        if out.use_cache:
            name = str(Path(out.fs_path).relative_to(repo.root_dir))
            if not out.hash_info:
                yield f"{name}: not in dvc.lock"
            elif missing := _missing(repo.cache.local, out.hash_info):
                yield f"{name}: {missing}"


def _missing(cache: Any, hash_info: Any) -> str | None:
    path = Path(cache.oid_to_path(hash_info.value))
    if not path.is_file():
        return "not in the cache"
    if not hash_info.isdir:
        return None
    try:
        entries = json.loads(path.read_text(encoding="utf-8"))
        lost = [one["relpath"] for one in entries if not Path(cache.oid_to_path(one["md5"])).is_file()]
    except (ValueError, KeyError, TypeError):
        return "its list of files in the cache is damaged"
    return f"{len(lost)} of {len(entries)} files are not in the cache: {', '.join(lost[:3])}" if lost else None


def changed_frozen(repo: Repo) -> Iterator[str]:
    """One line for each file that git holds of a frozen stage's outputs and that has other bytes now, or is gone."""
    for stage in repo.index.stages:
        for out in stage.outs if stage.frozen else ():
            name = Path(out.fs_path).relative_to(repo.root_dir).as_posix()
            for file, digest in _committed(repo, name).items():
                if digest != _git_digest(repo, file):
                    yield f"{file}: not as committed, and its stage is frozen; `git checkout -- {name}` brings it back"


def _committed(repo: Repo, name: str) -> dict[str, str]:
    """Git's digest of each file, by its path."""
    listed = _git(repo, "ls-tree", "-r", "-z", "HEAD", "--", name)
    entries = (line.split("\t", 1) for line in (listed or "").split("\0") if line)
    return {file: described.split()[2] for described, file in entries}


def _git_digest(repo: Repo, file: str) -> str | None:
    """Of the bytes that are there: `git status` does not read a file again whose size and time are the old ones."""
    digest = _git(repo, "hash-object", "--", file)
    return None if digest is None else digest.strip()


def _git(repo: Repo, *words: str) -> str | None:
    """What git prints; None when it fails."""
    command = ["git", *words]
    ran = subprocess.run(command, cwd=repo.root_dir, capture_output=True, text=True, check=False)  # noqa: S603
    return ran.stdout if ran.returncode == 0 else None
