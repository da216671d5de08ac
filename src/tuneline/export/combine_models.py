"""Whole models into one, shard by shard.

In memory are about one shard of each model, the one being written, and float32 copies of the tensor at hand.
"""

import json
import shutil
from collections.abc import Sequence
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor
from transformers import AutoConfig

from tuneline.config.schema import CombineConfig
from tuneline.errors import ModelError
from tuneline.export import formulas
from tuneline.export.checkpoint import INDEX, Checkpoint

HEAD, EMBEDDINGS = "lm_head.weight", "model.embed_tokens.weight"


def combine_models(settings: CombineConfig, base: Path, seed: int, out: Path) -> None:
    """Write the combination of `settings.sources` into `out`, in shards like the first source's.

    `base` is what task vectors are taken from. Every tensor read back from disk is, bit for bit, the one computed.
    """
    models = [Checkpoint(Path(source.path)) for source in settings.sources]
    origin = [Checkpoint(base)] if needs_base(settings) else []
    for other in (*models[1:], *origin):
        _check_alike(models[0], other)
    names = _without_tied_head(models)
    for file in dict.fromkeys(models[0].file_of[name] for name in names):
        shard = [name for name in names if models[0].file_of[name] == file]
        tensors = {name: _combined(name, models, origin, settings, seed) for name in shard}
        for model in (*models, *origin):
            model.close()  # unmapped, so that reading back what is written has their room
        _write_shard(out / file, tensors)
        del tensors  # before the next shard is computed
    _copy_rest(models[0], names, out)


def needs_base(settings: CombineConfig) -> bool:
    return settings.combination_type in ("ties", "dare_ties", "task_arithmetic")


def _combined(
    name: str, models: Sequence[Checkpoint], origin: Sequence[Checkpoint], settings: CombineConfig, seed: int
) -> Tensor:
    dtype = models[0].get(name).dtype
    tensors = [model.get(name).float() for model in models]
    weights = [source.weight for source in settings.sources]
    match settings.combination_type:
        case "linear":
            combined = formulas.linear(tensors, weights)
        case "slerp":
            combined = formulas.slerp(tensors[0], tensors[1], weights[1] / sum(weights))
        case _:
            combined = _on_base(name, origin[0].get(name).float(), tensors, settings, seed)
    return _in_type(combined, dtype, name)


def _on_base(name: str, base: Tensor, tensors: Sequence[Tensor], settings: CombineConfig, seed: int) -> Tensor:
    weights = [source.weight for source in settings.sources]
    taus = [tensor - base for tensor in tensors]
    if settings.combination_type == "task_arithmetic":
        return formulas.task_arithmetic(base, taus, weights)
    assert settings.density is not None
    assert settings.majority_sign_method is not None  # config.rules
    if settings.combination_type == "ties":
        return formulas.ties(base, taus, weights, settings.density, settings.majority_sign_method)
    seeds = [formulas.tensor_seed(seed, source.path, name) for source in settings.sources]
    return formulas.dare_ties(base, taus, weights, settings.density, settings.majority_sign_method, seeds)


def _in_type(combined: Tensor, dtype: torch.dtype, name: str) -> Tensor:
    rounded = combined.to(dtype)
    if not bool(torch.isfinite(rounded).all()):
        raise ModelError(f"combine: {name} is not finite in {dtype}; lower merge.combine.sources[*].weight")
    return rounded.contiguous()


def _check_alike(first: Checkpoint, other: Checkpoint) -> None:
    """Raise `ModelError` naming the first tensor of one model that the other lacks, or has in another shape or type."""
    tied = {HEAD} if is_tied(first.folder) and is_tied(other.folder) else set()
    one_sided = sorted((set(first.file_of) ^ set(other.file_of)) - tied)
    if one_sided:
        lacking = other if one_sided[0] in first.file_of else first
        raise ModelError(f"{lacking.folder}: tensor {one_sided[0]} is missing; {_pair(first, other)}")
    for name in first.file_of:
        if name in other.file_of and (mine := first.shape_and_type(name)) != (theirs := other.shape_and_type(name)):
            raise ModelError(
                f"{other.folder}: tensor {name} is {_shown(*theirs)}, but {_shown(*mine)} in {first.folder}; "
                f"{_pair(first, other)}"
            )


def _pair(first: Checkpoint, other: Checkpoint) -> str:
    return f"only fine-tunes of one model, in one type, can be combined ({first.folder} and {other.folder})"


def _shown(shape: tuple[int, ...], dtype: str) -> str:
    return f"{'x'.join(map(str, shape))} {dtype}"


def _without_tied_head(models: Sequence[Checkpoint]) -> list[str]:
    """Names in the first model's order; of two tied embeddings only the one that Transformers writes."""
    names = list(models[0].file_of)
    if not is_tied(models[0].folder) or HEAD not in names:
        return names
    for model in models:
        if HEAD in model.file_of and not torch.equal(model.get(HEAD), model.get(EMBEDDINGS)):
            raise ModelError(f"{model.folder}: {HEAD} and {EMBEDDINGS} are tied by config.json, but differ on disk")
    return [name for name in names if name != HEAD]


def is_tied(folder: Path) -> bool:
    config = AutoConfig.from_pretrained(folder, trust_remote_code=False)
    return bool(config.get_text_config().tie_word_embeddings)


def _write_shard(file: Path, tensors: dict[str, Tensor]) -> None:
    save_file(tensors, file, metadata={"format": "pt"})
    with safe_open(file, framework="pt") as written:
        changed = [name for name, tensor in tensors.items() if not torch.equal(written.get_tensor(name), tensor)]
    if changed:
        raise ModelError(f"{file}: tensor {changed[0]} was not written as it is in memory; is the disk sound?")


def _copy_rest(first: Checkpoint, names: Sequence[str], out: Path) -> None:
    """The files beside the weights: configurations, tokenizer, chat template, and an index where there was one."""
    for file in sorted(first.folder.iterdir()):
        if file.is_file() and file.suffix != ".safetensors" and file.name != INDEX:
            shutil.copyfile(file, out / file.name)
    if (first.folder / INDEX).is_file():
        total = sum(file.stat().st_size for file in out.glob("*.safetensors"))
        index = {"metadata": {"total_size": total}, "weight_map": {name: first.file_of[name] for name in names}}
        (out / INDEX).write_text(json.dumps(index, indent=2, sort_keys=True) + "\n", encoding="utf-8")
