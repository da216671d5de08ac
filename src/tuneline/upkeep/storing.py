"""Is every output of the stages in DVC's cache? On a full disk `dvc repro` may lose one, and still end with code 0."""

import json
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
