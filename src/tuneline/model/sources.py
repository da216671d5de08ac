"""Where a model comes from: a folder that is there and as pinned, or the hub; and a library's errors in one line."""

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from safetensors import SafetensorError

from tuneline.config.schema import ModelConfig
from tuneline.errors import EnvironmentProblem, ModelError
from tuneline.model.pinned import check_digests
from tuneline.shortage import is_out_of_memory


def require_base(model: ModelConfig) -> None:
    """Raise `ModelError` where a local base is missing (it must not be taken for a hub id) or not as pinned."""
    if model.revision is None:
        require_folder(Path(model.name_or_path))
        check_digests(model)


def require_folder(folder: Path) -> None:
    """Raise `ModelError` where there is no such model folder."""
    if not folder.is_dir():
        raise ModelError(f"{folder}: no such model folder; fetch it with `dvc pull` or make it with `dvc repro`")


def hub_arguments(model: ModelConfig) -> dict[str, Any]:
    """What a model's `from_pretrained` is given beside its name."""
    return {"trust_remote_code": model.trust_remote_code, **revision_arguments(model)}


def revision_arguments(model: ModelConfig) -> dict[str, Any]:
    """The same for what runs no code."""
    return {} if model.revision is None else {"revision": model.revision}


@contextlib.contextmanager
def one_line_errors(name: str, revision: str | None) -> Iterator[None]:
    """Turn a library's loading errors into `ModelError`, or `EnvironmentProblem` for a model on the hub."""
    try:
        yield
    except ImportError as error:
        raise EnvironmentProblem(
            f"{at_revision(name, revision)} needs a Python package that is not installed here: {first_line(error)}"
        ) from error
    except (MemoryError, OSError, ValueError, RuntimeError, SafetensorError) as error:
        if is_out_of_memory(error):
            raise EnvironmentProblem(
                f"{at_revision(name, revision)}: out of memory while it was loaded ({first_line(error)}); choose "
                "hardware.precision bf16, method qlora or a smaller model, or take a device with more memory"
            ) from error
        if revision is None or isinstance(error, RuntimeError):
            raise ModelError(f"{name}: cannot be loaded: {first_line(error)}") from error
        raise EnvironmentProblem(
            f"model.name_or_path: {at_revision(name, revision)} cannot be loaded: {first_line(error)}; "
            f"without network, fetch it first where there is one: `hf download {name} --revision {revision}`"
        ) from error


def at_revision(name: str | None, revision: str | None) -> str:
    """A model as messages name it."""
    return f"'{name}'" if revision is None else f"'{name}' at revision {revision}"


def first_line(error: BaseException) -> str:
    """The first line of the message that is not blank, or the kind of error where there is none."""
    return next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)
