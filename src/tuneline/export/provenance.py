"""Where a packaged model comes from: hashes, settings, versions. What is not pinned is not packaged.

No clock, host or path: the same inputs give the same file, so `dvc repro` can skip or repeat the stage. The commit in
it is that of the inputs (`tuneline.export.commit`): the one that holds this folder's hash in its dvc.lock is made after
it. `tuneline deploy` fetches from that later one and writes it into deployment.json, beside the folder.
"""

import hashlib
import json
import re
from collections.abc import Iterator, Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

from tuneline.config.schema import DataConfig, ModelConfig
from tuneline.errors import ConfigError, DataError
from tuneline.export.commit import Commit
from tuneline.export.llama_cpp import llama_cpp_commit, llama_cpp_folder
from tuneline.serving.integrity import file_digests, record_sha256

Json = Any
LIBRARIES = (
    "accelerate",
    "llama-cpp-python",
    "peft",
    "safetensors",
    "tokenizers",
    "torch",
    "transformers",
    "trl",
)


def check_pinned(model: ModelConfig, data: DataConfig) -> None:
    """Raise one `ConfigError` with every input that could be another one tomorrow."""
    problems = list(_unpinned(model, data))
    if problems:
        raise ConfigError(f"package: not everything is pinned: {'; '.join(problems)}")


def _unpinned(model: ModelConfig, data: DataConfig) -> Iterator[str]:
    if not model.is_local and not _is_commit(model.revision):
        yield f"model.revision: '{model.revision}' is no commit; run `tuneline pin {model.name}`"
    if model.licence.strip().lower() in ("unknown", "todo", "tbd", "other"):
        yield f"model.licence: '{model.licence}' names no licence; take it from the model's page"
    for source in data.sources:
        if source.hub is not None and not _is_commit(source.hub.revision):
            yield f"data.sources: hub.revision '{source.hub.revision}' of '{source.name}' is no commit"


def _is_commit(revision: str | None) -> bool:
    return revision is not None and re.fullmatch(r"[0-9a-f]{40}", revision) is not None


def provenance(
    settings: Json,
    commit: Commit,
    inputs: Mapping[str, Path],
    out: Path,
    licences: Mapping[str, str],
    metrics: Mapping[str, Json],
) -> str:
    """JSON with sorted keys: settings, commit, hashes of what went in and came out, licences, metrics, versions.

    The versions are those that packaged; another machine may have trained (their lock file is in the commit).
    llama.cpp is the one inside llama-cpp-python, which converter and runtime are taken from; its commit is null where
    that release does not tell. Seeds and the machine's name are among the settings. A folder among `inputs` is listed
    file by file, `out` as it is so far.
    """
    record: dict[str, Json] = {
        "settings": settings,
        "settings_sha256": hashlib.sha256(json.dumps(settings, sort_keys=True).encode("utf-8")).hexdigest(),
        "git": commit.record(),
        "inputs": {name: _hashes(path) for name, path in inputs.items()},
        "files": {name: entry | {"n_bytes": (out / name).stat().st_size} for name, entry in _hashes(out).items()},
        "licences": licences,
        "metrics": metrics,
        "libraries_at_packaging": {name: version(name) for name in LIBRARIES},
        "llama_cpp_commit": llama_cpp_commit(llama_cpp_folder()),
    }
    record["record_sha256"] = record_sha256(json.loads(json.dumps(record)))
    return json.dumps(record, indent=2, sort_keys=True, ensure_ascii=False, allow_nan=False) + "\n"


def _hashes(path: Path) -> dict[str, dict[str, str]]:
    """md5, which names the file in DVC's storage, and sha256."""
    files = [path] if path.is_file() else sorted(file for file in path.rglob("*") if file.is_file())
    if not files:
        raise DataError(f"{path}: nothing there to take a hash of; run `dvc repro`")
    top = path.parent if path.is_file() else path
    return {file.relative_to(top).as_posix(): file_digests(file) for file in files}
