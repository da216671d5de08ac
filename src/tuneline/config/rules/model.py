"""A folder, or a hub model with its pin."""

from collections.abc import Iterator

from tuneline.config.rules.wording import refused
from tuneline.config.schema import ModelConfig


def model_rules(model: ModelConfig) -> Iterator[str]:
    if model.is_local:
        yield from _folder_model(model)
        return
    own_file = f"conf/model/{model.name}.yaml"
    if model.tracked_path != own_file:
        allowed = f"is {own_file} for a hub model (its pin), or model.name_or_path for a folder"
        yield refused("model.tracked_path", model.tracked_path, allowed)
    if model.name_or_path.count("/") > 1:
        allowed = "is a hub id such as Qwen/Qwen3-8B; for a folder set model.tracked_path to the same path"
        yield refused("model.name_or_path", model.name_or_path, allowed)
    if model.revision is None:
        allowed = f"is a commit, or {model.name_or_path} could change; run `tuneline pin {model.name}`"
        yield refused("model.revision", model.revision, f"{allowed}, then `make params`")
    if model.sha256 is not None:
        yield refused("model.sha256", dict(model.sha256), "for a hub model is null; its revision pins it")


def _folder_model(model: ModelConfig) -> Iterator[str]:
    if not model.name_or_path.startswith("models/"):
        allowed = f"for a folder is one in models/; a hub model has tracked_path conf/model/{model.name}.yaml"
        yield refused("model.name_or_path", model.name_or_path, allowed)
    if model.revision is not None:
        yield refused("model.revision", model.revision, "for a folder is null; model.sha256 pins it")
    if not model.sha256:
        allowed = f"for a folder has the hash of each file; run `tuneline pin {model.name}`, then `make params`"
        yield refused("model.sha256", model.sha256, allowed)
