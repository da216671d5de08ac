"""Whole models into one, block by block.

In memory are some blocks of rows in float32, and what was touched of one tensor in each model's mapped file.
"""

import json
import math
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import AutoConfig

from tuneline.config.schema import CombineConfig
from tuneline.errors import ModelError
from tuneline.export import formulas
from tuneline.export.checkpoint import INDEX, Checkpoint
from tuneline.export.shard import FLOATS, write_shard

HEAD, EMBEDDINGS = "lm_head.weight", "model.embed_tokens.weight"
# Of config.json: types, provenance, and what is compared elsewhere (tied weights, the tokenizer's tokens).
NOT_COMPUTING = (
    "_name_or_path", "architectures", "bos_token_id", "dtype", "eos_token_id", "pad_token_id", "tie_word_embeddings",
    "torch_dtype", "transformers_version", "use_cache",
)  # fmt: skip
ONE_MODEL = "only fine-tunes of one model, in one type, can be combined"


def combine_models(settings: CombineConfig, base: Path, seed: int, out: Path) -> None:
    """Write the combination of `settings.sources` into `out`, in shards like the first source's.

    `base` is what task vectors are taken from. Every tensor read back from disk is, bit for bit, the one computed.
    """
    models = [Checkpoint(Path(source.path)) for source in settings.sources]
    origin = [Checkpoint(base)] if needs_base(settings) else []
    for model in (*models, *origin):
        _check_floats(model)
        _check_alike(models[0], model, same_type=model not in origin)
        _check_configs(models[0].folder, model.folder)
    names = _without_tied_head(models)
    for file in dict.fromkeys(models[0].file_of[name] for name in names):
        layout = {name: models[0].shape_and_type(name) for name in names if models[0].file_of[name] == file}
        write_shard(out / file, layout, lambda name: _combined(name, models, origin, settings, seed))
    _copy_rest(models[0], names, out)


def needs_base(settings: CombineConfig) -> bool:
    return settings.combination_type in ("ties", "dare_ties", "task_arithmetic")


def _combined(
    name: str, models: Sequence[Checkpoint], origin: Sequence[Checkpoint], settings: CombineConfig, seed: int
) -> Iterator[Tensor]:
    """The tensor's blocks, in its type on disk."""
    dtype = FLOATS[models[0].shape_and_type(name)[1]]
    weights = [source.weight for source in settings.sources]
    combined: Iterator[Tensor]
    match settings.combination_type:
        case "linear":
            combined = (formulas.linear(blocks, weights) for blocks in _blocks(name, models))
        case "slerp":
            shares = formulas.arc_shares(_blocks(name, models), weights[1] / sum(weights))
            combined = (formulas.weighted_sum(blocks, shares) for blocks in _blocks(name, models))
        case _:
            combined = _on_base(name, models, origin[0], settings, seed)
    for block in combined:
        yield _in_type(block, dtype, name)
    for model in (*models, *origin):
        model.close()


def _on_base(
    name: str, models: Sequence[Checkpoint], origin: Checkpoint, settings: CombineConfig, seed: int
) -> Iterator[Tensor]:
    weights = [source.weight for source in settings.sources]
    changes = _changes(name, models, origin)
    if settings.combination_type == "task_arithmetic":
        return (formulas.task_arithmetic(base, taus, weights) for base, taus in changes)
    density, sign = settings.density, settings.majority_sign_method
    assert density is not None
    assert sign is not None  # config.rules
    if settings.combination_type == "ties":
        least = [_least_kept(name, model, origin, density) for model in models]
        return (formulas.ties(base, taus, weights, least, sign) for base, taus in changes)
    generators = [formulas.mask_generator(seed, source.path, name) for source in settings.sources]
    return (formulas.dare_ties(base, taus, weights, density, sign, generators) for base, taus in changes)


def _blocks(name: str, models: Sequence[Checkpoint]) -> Iterator[list[Tensor]]:
    """The same rows of each model at a time, in float32."""
    for blocks in zip(*(model.blocks(name) for model in models), strict=True):
        yield [block.float() for block in blocks]


def _changes(name: str, models: Sequence[Checkpoint], origin: Checkpoint) -> Iterator[tuple[Tensor, list[Tensor]]]:
    """The base's rows, and what each model changed of them."""
    for base, *tuned in _blocks(name, [origin, *models]):
        yield base, [block - base for block in tuned]


def _least_kept(name: str, model: Checkpoint, origin: Checkpoint, density: float) -> float:
    n_kept = int(density * math.prod(model.shape_and_type(name)[0]))
    return formulas.least_kept(lambda: (tau for _, (tau,) in _changes(name, [model], origin)), n_kept)


def _in_type(combined: Tensor, dtype: torch.dtype, name: str) -> Tensor:
    rounded = combined.to(dtype)
    if not bool(torch.isfinite(rounded).all()):
        raise ModelError(f"combine: {name} is not finite in {dtype}; lower merge.combine.sources[*].weight")
    return rounded


def _check_configs(first: Path, other: Path) -> None:
    """Raise `ModelError` naming the first setting in which two models differ: equal shapes may compute otherwise."""
    mine, theirs = _computing(first), _computing(other)
    differing = sorted(key for key in mine.keys() | theirs.keys() if mine.get(key) != theirs.get(key))
    if differing:
        key = differing[0]
        raise ModelError(
            f"{other / 'config.json'}: {key} is {theirs.get(key)!r}, but {mine.get(key)!r} in {first / 'config.json'}; "
            f"{ONE_MODEL}"
        )


def _computing(folder: Path) -> dict[str, Any]:
    """The settings that say what is computed; Transformers' defaults where one is not written."""
    config = AutoConfig.from_pretrained(folder, trust_remote_code=False).to_dict()
    return {key: value for key, value in config.items() if key not in NOT_COMPUTING}


def _check_alike(first: Checkpoint, other: Checkpoint, *, same_type: bool) -> None:
    """Raise `ModelError` naming the first tensor of one model that the other lacks, or has in another shape or type.

    A base in 16 bits is the same in 32, and what was trained on it is often kept in those.
    """
    tied = {HEAD} if is_tied(first.folder) and is_tied(other.folder) else set()
    one_sided = sorted((set(first.file_of) ^ set(other.file_of)) - tied)
    if one_sided:
        having, lacking = (first, other) if one_sided[0] in first.file_of else (other, first)
        raise ModelError(
            f"{lacking.path_of(one_sided[0])}: tensor {one_sided[0]} is missing, "
            f"{having.path_of(one_sided[0])} has it; {ONE_MODEL}"
        )
    for name in (name for name in first.file_of if name in other.file_of):
        mine, theirs = first.shape_and_type(name), other.shape_and_type(name)
        if mine[0] != theirs[0] or (same_type and mine != theirs):
            raise ModelError(
                f"{other.path_of(name)}: tensor {name} is {_shown(*theirs)}, but {_shown(*mine)} in "
                f"{first.path_of(name)}; {ONE_MODEL}"
            )


def _check_floats(model: Checkpoint) -> None:
    """Raise `ModelError` for a tensor that holds no floating-point numbers; those of quantised models have no sum."""
    for name in model.file_of:
        shape, dtype = model.shape_and_type(name)
        if dtype not in FLOATS:
            raise ModelError(
                f"{model.path_of(name)}: tensor {name} is {_shown(shape, dtype)}, allowed is {', '.join(FLOATS)}; "
                "combine the models as they were before quantisation"
            )


def _shown(shape: tuple[int, ...], dtype: str) -> str:
    return f"{'x'.join(map(str, shape))} {dtype}"


def _without_tied_head(models: Sequence[Checkpoint]) -> list[str]:
    """Names in the first model's order; of two tied embeddings only the one that Transformers writes."""
    names = list(models[0].file_of)
    if not is_tied(models[0].folder) or HEAD not in names:
        return names
    for model in models:
        if HEAD in model.file_of and not _equal(model, HEAD, EMBEDDINGS):
            raise ModelError(f"{model.folder}: {HEAD} and {EMBEDDINGS} are tied by config.json, but differ on disk")
    return [name for name in names if name != HEAD]


def _equal(model: Checkpoint, one: str, other: str) -> bool:
    if model.shape_and_type(one) != model.shape_and_type(other):
        return False
    return all(torch.equal(a, b) for a, b in zip(model.blocks(one), model.blocks(other), strict=True))


def is_tied(folder: Path) -> bool:
    config = AutoConfig.from_pretrained(folder, trust_remote_code=False)
    return bool(config.get_text_config().tie_word_embeddings)


def _copy_rest(first: Checkpoint, names: Sequence[str], out: Path) -> None:
    """The files beside the weights: configurations, tokenizer, chat template, and an index where there was one."""
    for file in sorted(first.folder.iterdir()):
        if file.is_file() and file.suffix != ".safetensors" and file.name != INDEX:
            shutil.copyfile(file, out / file.name)
    if (first.folder / INDEX).is_file():
        total = sum(file.stat().st_size for file in out.glob("*.safetensors"))
        index = {"metadata": {"total_size": total}, "weight_map": {name: first.file_of[name] for name in names}}
        (out / INDEX).write_text(json.dumps(index, indent=2, sort_keys=True) + "\n", encoding="utf-8")
