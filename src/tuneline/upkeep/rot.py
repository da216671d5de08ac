"""Is every byte still what was recorded? DVC's cache, the stages' outputs, packaged models, checkpoints.

Disks, memory and cables flip bits, and DVC trusts a cached object that is write-protected. Everything with a recorded
hash is read here: an object of the cache bears it as its name, an output has it in dvc.lock, a packaged model in its
provenance.json, a checkpoint in its manifest.
"""

import json
import os
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dvc_data.hashfile.hash_info import HashInfo
from dvc_data.hashfile.tree import Tree

from tuneline.errors import TunelineError
from tuneline.serving.integrity import RECORD, read_record
from tuneline.training.checkpoints import MANIFEST
from tuneline.upkeep.reading import Algorithm, File

OBJECT = re.compile(r"[0-9a-f]{2}/[0-9a-f]{30}(\.dir)?")

Repo = Any  # dvc.repo.Repo


@dataclass(frozen=True, slots=True)
class Recorded:
    """A file, or a folder, and the digests of its files by their path in it ("" for a file by itself)."""

    top: Path
    algorithm: Algorithm
    digests: Mapping[str, str]
    tree: str | None  # md5 that DVC gives a folder, when only that is known: `digests` are then empty
    closed: bool  # whether a file that is not among `digests` is one too many
    heal: str

    def names(self) -> list[str]:
        """The files that are read: what is there, for a folder that is all of what was recorded."""
        return sorted(_present(self.top)) if self.closed else sorted(self.digests)


class Files:
    """Every file once, whatever path it is known by: DVC may link an output to its object."""

    def __init__(self) -> None:
        self._files: dict[tuple[int, int], File] = {}
        self._by_path: dict[Path, File] = {}

    def want(self, path: Path, algorithm: Algorithm) -> None:
        try:
            status = path.stat()
        except OSError:
            return  # missing: that is told when digests are compared
        file = self._files.setdefault((status.st_dev, status.st_ino), File(path, status.st_size))
        file.algorithms.add(algorithm)
        self._by_path[path] = file

    def all(self) -> list[File]:
        return list(self._files.values())

    def digest(self, path: Path, algorithm: Algorithm) -> str | None:
        """None for a file that is missing or cannot be read."""
        file = self._by_path.get(path)
        return None if file is None or file.digests is None else file.digests[algorithm]


def wanted(records: Iterable[Recorded]) -> Files:
    files = Files()
    for record in records:
        for name in record.names():
            files.want(record.top / name, record.algorithm)
    return files


def problems(record: Recorded, files: Files) -> Iterator[str]:
    """One line for each file that is damaged, missing or too many, with the way to heal it."""
    if record.tree is not None:
        found = {name: files.digest(record.top / name, "md5") for name in record.names()}
        if record.tree != tree_digest({name: digest or "" for name, digest in found.items()}):
            yield f"{record.top}: not the folder that was recorded; {record.heal}"
        return
    for name, digest in sorted(record.digests.items()):
        found_digest = files.digest(record.top / name, record.algorithm)
        if found_digest != digest and (found_digest is not None or record.top.exists()):
            said = "missing or unreadable" if found_digest is None else f"damaged, {record.algorithm} {found_digest}"
            yield f"{record.top / name}: {said}; {record.heal.format(path=record.top / name)}"
    for name in record.names():
        if name not in record.digests:
            yield f"{record.top / name}: foreign; {record.heal}"


def tree_digest(digests: Mapping[str, str]) -> str:
    """DVC's name for a folder with these files."""
    tree: Any = Tree()  # type: ignore[no-untyped-call]
    for name, digest in digests.items():
        tree.add(tuple(name.split("/")), None, HashInfo("md5", digest))
    tree.digest()
    return str(tree.hash_info.value)


def recorded(repo: Repo, checkpoints: Path) -> tuple[list[Recorded], list[str]]:
    """Everything with a recorded hash, and a line for each record that cannot be read."""
    records = [cached(repo), *outputs(repo)]
    unread: list[str] = []
    for folder in [record.top for record in records if (record.top / RECORD).is_file()]:
        try:
            records.append(packaged(folder))
        except TunelineError as error:
            unread.append(str(error))
    return [*records, *saved(checkpoints)], unread


def cached(repo: Repo) -> Recorded:
    """The objects of the cache, whose names are their md5."""
    top = Path(repo.cache.local.path)
    names = [name for name in _present(top) if OBJECT.fullmatch(name)]
    digests = {name: name.replace("/", "").removesuffix(".dir") for name in names}
    heal = (
        "rm -f '{path}', then `dvc fetch` from a remote, or `dvc commit -f` where the output is whole, or `dvc repro`"
    )
    return Recorded(top, "md5", digests, None, closed=False, heal=heal)


def outputs(repo: Repo) -> Iterator[Recorded]:
    """The outputs of the stages as dvc.lock has them; those that are not here are no damage."""
    for out in repo.index.outs:
        top = Path(out.fs_path)
        if out.hash_info and out.hash_info.name == "md5" and top.exists():
            name = os.path.relpath(top)
            back = f"`dvc checkout -f {name}`" if out.use_cache else f"`git checkout {name}`"
            yield _output(
                repo, top, out.hash_info, f"{back} brings back what dvc.lock records, `dvc repro` makes it anew"
            )


def _output(repo: Repo, top: Path, hash_info: Any, heal: str) -> Recorded:
    if not hash_info.isdir:
        return Recorded(top, "md5", {"": hash_info.value}, None, closed=False, heal=heal)
    try:
        entries = json.loads(Path(repo.cache.local.oid_to_path(hash_info.value)).read_text(encoding="utf-8"))
        digests = {entry["relpath"]: entry["md5"] for entry in entries}
    except (OSError, ValueError, KeyError, TypeError):
        digests = {}
    if tree_digest(digests) != hash_info.value:  # not in the cache, or damaged there
        return Recorded(top, "md5", {}, hash_info.value, closed=True, heal=heal)
    return Recorded(top, "md5", digests, None, closed=True, heal=heal)


def packaged(folder: Path) -> Recorded:
    """A packaged model. Raises `ModelError` when its provenance.json is damaged."""
    listed = read_record(folder)["files"]
    digests = {name: entry["sha256"] for name, entry in listed.items()}
    return Recorded(folder, "sha256", digests, None, closed=False, heal="`dvc repro package` packages it again")


def saved(checkpoints: Path) -> Iterator[Recorded]:
    """Checkpoints that were written to their end; a training passes over the others by itself."""
    for manifest in sorted(checkpoints.glob(f"*/*/{MANIFEST}")):
        try:
            digests = json.loads(manifest.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            digests = {MANIFEST: "a readable manifest"}
        heal = f"rm -r '{manifest.parent}': its training then goes on from the checkpoint before"
        yield Recorded(manifest.parent, "sha256", digests, None, closed=False, heal=heal)


def unverified_remotes(repo: Repo) -> list[str]:
    """Remotes that DVC pulls from without reading again what came."""
    remotes: Mapping[str, Mapping[str, Any]] = repo.config["remote"]
    return [
        f"remote '{name}': what is pulled is not verified; `dvc remote modify {name} verify true`"
        for name, settings in remotes.items()
        if not settings.get("verify")
    ]


def _present(top: Path) -> Iterator[str]:
    """Files below a folder by their path in it; the empty string for a file."""
    if top.is_file():
        yield ""
    for folder, _, names in os.walk(top):
        yield from (Path(folder, name).relative_to(top).as_posix() for name in names)
