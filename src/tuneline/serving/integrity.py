"""Is a folder the packaged model it claims to be? Every byte is read again and compared with provenance.json.

provenance.json lists every other file and holds a digest of itself, which finds accidents. That nobody rewrote folder
and digest together is what the commit says: `tuneline deploy` takes the files by the hashes in the commit's dvc.lock
and writes the digest of provenance.json into deployment.json, beside the folder.
"""

import hashlib
import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tuneline.errors import ModelError
from tuneline.model.pickles import is_pickle_name

RECORD = "provenance.json"
# where a package has base and adapter as files of their own
LORA_BASE, LORA_ADAPTER = "lora/base.gguf", "lora/adapter.gguf"
DEPLOYMENT = "deployment.json"
BLOCK_BYTES = 1 << 20

Json = Any


@dataclass(frozen=True, slots=True)
class Verified:
    """A folder whose every file is the recorded one. `deployment` is None for a folder that nobody deployed."""

    folder: Path
    record: Mapping[str, Json]
    n_bytes: int
    deployment: Mapping[str, Json] | None

    @property
    def gguf(self) -> Path:
        return self.folder / _only_gguf(self.folder, self.record["files"])

    @property
    def has_lora(self) -> bool:
        """Whether base and adapter are there in files of their own."""
        return LORA_BASE in self.record["files"] and LORA_ADAPTER in self.record["files"]

    @property
    def system_prompt(self) -> str | None:
        """What every training row without a system prompt of its own began with."""
        prompt: str | None = self.record["settings"]["data"]["system_prompt"]
        return prompt

    @property
    def n_ctx(self) -> int:
        """Tokens of context that the package was measured with."""
        return int(self.record["settings"]["export"]["n_ctx"])


def model_folder(folder: Path) -> Path:
    """The packaged model in `folder`: itself, or what its `current` points to after `tuneline deploy`."""
    current = folder / "current"
    return current.resolve() if current.is_symlink() else folder.resolve()


def verify_model(folder: Path) -> Verified:
    """Read every file again. Raises `ModelError` naming the first file that is changed, missing, foreign or unsafe."""
    top = model_folder(folder)
    record = read_record(top)
    listed: Mapping[str, Mapping[str, Json]] = record["files"]
    found = sorted(_files(top))
    _check_names(top, found, listed)
    for name in sorted(listed):
        _check_file(top / name, listed[name])
    _only_gguf(top, listed)
    n_bytes = sum((top / name).stat().st_size for name in found)
    return Verified(top, record, n_bytes, _deployment(top))


def read_record(folder: Path) -> Mapping[str, Json]:
    """provenance.json, whose digest of itself must be right."""
    path = folder / RECORD
    record = _read_json(path)
    if not isinstance(record.get("files"), dict) or not all(map(_is_entry, record["files"].values())):
        raise ModelError(f"{path}: lists no files with size and hash; package the model with this version of Tuneline")
    if record.get("record_sha256") != record_sha256(record):
        raise ModelError(f"{path}: changed after packaging; deploy or package the model again")
    if not _has_settings(record):
        raise ModelError(
            f"{path}: settings lacks model.name, export.n_ctx or data.system_prompt; "
            "package the model with this version of Tuneline"
        )
    return record


def _has_settings(record: Mapping[str, Json]) -> bool:
    match record.get("settings"):
        case {
            "model": {"name": str()},
            "export": {"n_ctx": int() as n_ctx},
            "data": {"system_prompt": str() | None},
        }:
            return n_ctx > 0
        case _:
            return False


def _is_entry(entry: Json) -> bool:
    match entry:
        case {"n_bytes": int(), "sha256": str()}:
            return True
        case _:
            return False


def record_sha256(record: Mapping[str, Json]) -> str:
    """Of the record as sorted JSON, without the entry that holds this digest."""
    rest = {key: value for key, value in record.items() if key != "record_sha256"}
    return hashlib.sha256(json.dumps(rest, sort_keys=True).encode("utf-8")).hexdigest()


def file_digests(path: Path) -> dict[str, str]:
    """md5 (DVC's name for the content) and sha256, in one reading by blocks: a GGUF may be larger than the memory."""
    md5, sha256 = hashlib.md5(usedforsecurity=False), hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(BLOCK_BYTES):
            md5.update(block)
            sha256.update(block)
    return {"md5": md5.hexdigest(), "sha256": sha256.hexdigest()}


def _read_json(path: Path) -> dict[str, Json]:
    if path.is_symlink():
        raise _link_error(path)
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        reason = " ".join(str(error).split())
        raise ModelError(f"{path}: not readable ({reason}); a packaged model is what models/deploy holds") from None
    if not isinstance(record, dict):
        raise ModelError(f"{path}: not one JSON object; deploy or package the model again")
    return record


def _files(top: Path) -> Iterator[str]:
    """Every file below `top` by its relative path. Raises `ModelError` for what is no plain file or folder."""
    for folder, folders, files in os.walk(top, onerror=_unreadable):
        for name in (*folders, *files):
            path = Path(folder, name)
            if path.is_symlink():
                raise _link_error(path)
            if not path.is_file() and not path.is_dir():
                raise ModelError(f"{path}: neither file nor folder; remove it")
        yield from (Path(folder, name).relative_to(top).as_posix() for name in files)


def _link_error(path: Path) -> ModelError:
    """DVC makes links where cache.type says so; its cache holds contents as files/md5/XX/REST."""
    if path.resolve().parts[-4:-2] == ("files", "md5"):
        return ModelError(
            f"{path}: a symbolic link into DVC's cache, which may change later; "
            "run `dvc config cache.type reflink,copy` and `dvc checkout --relink` for plain files"
        )
    return ModelError(f"{path}: a symbolic link; a packaged model holds plain files only")


def _unreadable(error: OSError) -> None:
    raise ModelError(f"{error.filename}: cannot be read ({error.strerror})") from None


def _check_names(top: Path, found: list[str], listed: Mapping[str, Json]) -> None:
    for name in found:
        if name not in listed and name != RECORD:
            raise ModelError(f"{top / name}: foreign, {RECORD} does not list it; remove it or deploy the model again")
    for name in sorted(listed):
        if name not in found:
            raise ModelError(f"{top / name}: missing, {RECORD} lists it; deploy or package the model again")


def _check_file(path: Path, entry: Mapping[str, Json]) -> None:
    check_no_pickle(path)
    size = path.stat().st_size
    if size != entry["n_bytes"]:
        kind = "truncated" if size < entry["n_bytes"] else "grown"
        raise ModelError(f"{path}: {kind}, {size} bytes instead of {entry['n_bytes']}; deploy the model again")
    found = file_digests(path)["sha256"]
    if found != entry["sha256"]:
        raise ModelError(
            f"{path}: changed, sha256 {found[:12]}... instead of {entry['sha256'][:12]}...; deploy it again"
        )


def check_no_pickle(path: Path) -> None:
    """Raises `ModelError` for a file that could be unpickled, by its name or its first bytes, even if it is listed."""
    with path.open("rb") as file:
        start = file.read(9)
    # Protocols 2 to 5 start so; a safetensors file may, too: it starts with the length of the JSON that follows.
    pickled = start[:1] == b"\x80" and start[1:2] in (b"\x02", b"\x03", b"\x04", b"\x05") and start[8:] != b"{"
    archived = start.startswith(b"PK\x03\x04")  # what torch.save writes
    if is_pickle_name(path) or pickled or archived:
        raise ModelError(f"{path}: a pickle or archive, which can run code when loaded; ship GGUF or safetensors only")


def _only_gguf(top: Path, listed: Mapping[str, Json]) -> str:
    """The model at the top of the folder; base and adapter alone lie below it."""
    names = [name for name in listed if name.endswith(".gguf") and name not in (LORA_BASE, LORA_ADAPTER)]
    if len(names) != 1:
        raise ModelError(f"{top / RECORD}: lists {len(names)} GGUF files, not one; package the model again")
    with (top / names[0]).open("rb") as file:
        if file.read(4) != b"GGUF":
            raise ModelError(f"{top / names[0]}: no GGUF file; package the model again")
    return names[0]


def _deployment(top: Path) -> Mapping[str, Json] | None:
    """Where the folder was fetched from, when `tuneline deploy` fetched it; its provenance.json must be that one."""
    path = top.parent / DEPLOYMENT
    if not path.is_file():
        return None
    deployment = _read_json(path)
    if not all(isinstance(deployment.get(key), str) for key in ("commit", "repo", "rev")):
        raise ModelError(f"{path}: lacks commit, repo or rev; deploy the model again")
    if deployment.get("provenance_sha256") != file_digests(top / RECORD)["sha256"]:
        raise ModelError(f"{top / RECORD}: not the file that {path} says was deployed; deploy the model again")
    return deployment


def _made_of(record: Mapping[str, Json]) -> Iterator[str]:
    """Of the commit whose inputs it was made of; folders of earlier releases name none."""
    match record.get("git"):
        case {"commit": str() as commit, "dirty": bool() as dirty}:
            yield f"  made of   commit {commit}{', and changes that were not committed' if dirty else ''}"


def described(verified: Verified) -> list[str]:
    """Lines for a person: what was read, what it is, where it comes from."""
    listed, model = verified.record["files"], verified.record["settings"]["model"]["name"]
    lines = [
        f"{verified.folder}: {len(listed) + 1} files, {verified.n_bytes / 2**20:.1f} MiB, every hash as recorded",
        f"  model     {verified.gguf.name}, from {model}, {verified.n_ctx} tokens of context",
    ]
    lines += _made_of(verified.record)
    if verified.has_lora:
        lines += [f"  adapter   {LORA_ADAPTER} on {LORA_BASE}: `tuneline serve ... --lora` shares the base with others"]
    if verified.deployment is None:
        return [*lines, "  commit    not deployed from one: `tuneline deploy` records it"]
    source = verified.deployment
    return [*lines, f"  commit    {source['commit']} ({source['rev']} of {source['repo']})"]
