"""Several adapters of one base into one, by PEFT's `add_weighted_adapter`, and what PEFT leaves out done beside it."""

import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, PeftConfig, PeftModel
from peft.tuners.lora import LoraLayer
from peft.tuners.trainable_tokens.layer import TrainableTokensLayer
from torch import Tensor

from tuneline.config.schema import CombineConfig, ModelConfig
from tuneline.errors import ModelError
from tuneline.export.reference import REFERENCE
from tuneline.model.adapters import WEIGHTS, attach_adapter, check_adapter_fits, misfit, peft_warnings
from tuneline.model.loading import load_base
from tuneline.model.saving import sort_adapter_config
from tuneline.model.sources import first_line

FIRST, COMBINED = "default", "combined"
CONFIG = "adapter_config.json"
# PEFT sums their matrices one by one, so they have to be of one shape.
EQUAL_RANK = ("linear", "ties", "dare_linear", "dare_ties", "magnitude_prune")


def combine_adapters(settings: CombineConfig, base: ModelConfig, seed: int, out: Path) -> None:
    """Write the combination of `settings.sources` into `out`, as `PeftModel.save_pretrained` lays it out.

    Always beside the unquantised base, in fp32. DARE (Yu et al. 2023, arXiv:2311.03099) and TIES (Yadav et al. 2023,
    arXiv:2306.01708) act on A and B apart, as PEFT has it; the random masks follow from `seed` and the order of the
    base's layers.
    """
    check_adapters(settings, base)
    model = attached(settings, base)
    with torch.random.fork_rng(devices=[]), _peft_errors(settings):
        torch.manual_seed(seed)
        _add(model, settings)
    _sum_tokens(model, [source.weight for source in settings.sources], COMBINED)
    with peft_warnings():
        model.save_pretrained(str(out), selected_adapters=[COMBINED])
    for file in (out / COMBINED).iterdir():
        file.replace(out / file.name)
    (out / COMBINED).rmdir()
    sort_adapter_config(out / CONFIG)
    (out / "README.md").unlink(missing_ok=True)  # PEFT's empty model card
    _copy_tokenizer(Path(settings.sources[0].path), out)


def check_adapters(settings: CombineConfig, base: ModelConfig) -> None:
    """Raise `ModelError` for adapters of another base or rank, or of a kind that has no weighted sum."""
    folders = [Path(source.path) for source in settings.sources]
    for folder in folders:
        check_adapter_fits(folder, base)
    configs = [_lora_config(folder) for folder in folders]
    for folder, config in zip(folders, configs, strict=True):
        if reason := _no_sum(config):
            raise ModelError(f"{folder / CONFIG}: {reason}; merge it into the base and combine whole models instead")
        if config.trainable_token_indices != configs[0].trainable_token_indices:
            raise ModelError(f"{folder / CONFIG}: other trainable_token_indices than {folders[0]}; train them alike")
        if config.r != configs[0].r and settings.combination_type in EQUAL_RANK:
            raise ModelError(
                f"{folder / CONFIG}: rank {config.r}, but {configs[0].r} in {folders[0]}; "
                f"{settings.combination_type} needs equal ranks, cat and svd do not"
            )


def attached(settings: CombineConfig, base: ModelConfig) -> PeftModel:
    """The base with every source on top, called as `_names` has it; only the first one is active."""
    first, *others = [Path(source.path) for source in settings.sources]
    model = attach_adapter(load_base(base, REFERENCE, None), first, is_trainable=False)
    for name, folder in zip(_names(len(settings.sources))[1:], others, strict=True):
        _attach_another(model, folder, name)
    return model


def with_weighted_sum(model: PeftModel, weights: Sequence[float]) -> PeftModel:
    """`model` (see `attached`) as base plus sum_i w_i dW_i, added to its weights: the yardstick of each combination."""
    names = _names(len(weights))
    _sum_tokens(model, weights, FIRST)
    for layer in (module for module in model.modules() if isinstance(module, LoraLayer)):
        base: Any = layer.get_base_layer()
        for name, weight in zip(names, weights, strict=True):
            if name in layer.lora_A:
                base.weight.data += weight * _delta(layer, name)
        layer.enable_adapters(False)
    return model


def _delta(layer: Any, name: str) -> Tensor:
    """scaling * B A, written out."""
    product: Tensor = layer.scaling[name] * (layer.lora_B[name].weight @ layer.lora_A[name].weight)
    return product


def _lora_config(folder: Path) -> LoraConfig:
    config = PeftConfig.from_pretrained(str(folder))
    if not isinstance(config, LoraConfig):
        raise ModelError(f"{folder / CONFIG}: a {config.peft_type} adapter, combine takes LoRA and rsLoRA")
    return config


def _no_sum(config: LoraConfig) -> str | None:
    if config.use_dora:
        return "a DoRA adapter, whose learned norms have no sum"
    if config.bias != "none":
        return f"bias '{config.bias}' is trained, which PEFT leaves out of a combination"
    if config.modules_to_save:
        return f"whole modules are trained ({', '.join(config.modules_to_save)}), which have no sum"
    if config.rank_pattern or config.alpha_pattern:
        return "ranks differ by layer, which PEFT does not combine"
    return None


def _attach_another(model: PeftModel, folder: Path, name: str) -> None:
    try:
        with peft_warnings():
            result = model.load_adapter(str(folder), adapter_name=name, torch_device="cpu")
    except (OSError, RuntimeError, ValueError, KeyError) as error:
        raise ModelError(f"{folder / WEIGHTS}: the adapter does not fit its base: {misfit(error, name)}") from error
    if result.missing_keys or result.unexpected_keys:
        what, keys = (
            ("is missing", result.missing_keys) if result.missing_keys else ("is extra", result.unexpected_keys)
        )
        tensor = sorted(keys)[0].replace(f".{name}.", ".")
        raise ModelError(f"{folder / WEIGHTS}: tensor {tensor} {what}, unlike its config says; train it again")


def _add(model: PeftModel, settings: CombineConfig) -> None:
    """PEFT copies the first source's config, and scales by lora_alpha / r = 1; rsLoRA's sqrt(r) would come on top."""
    first = model.peft_config[FIRST]
    assert isinstance(first, LoraConfig)
    model.peft_config[FIRST] = replace(first, use_rslora=False)  # the layers keep their scaling
    options: dict[str, Any] = {
        "combination_type": settings.combination_type,
        "svd_rank": settings.svd_rank,
        "svd_full_matrices": False,  # the same result without a square matrix of the layer's width
        "density": settings.density,
    }
    if settings.majority_sign_method is not None:
        options["majority_sign_method"] = settings.majority_sign_method
    add: Any = model.add_weighted_adapter
    weights = [source.weight for source in settings.sources]
    add(_names(len(weights)), weights, COMBINED, **options)


def _sum_tokens(model: PeftModel, weights: Sequence[float], target: str) -> None:
    """Trained token embeddings of adapter `target`: base + sum_i w_i (row_i - base). PEFT has whole rows, no changes,
    and leaves them out of a combination.
    """
    for layer in (module for module in model.modules() if isinstance(module, TrainableTokensLayer)):
        if layer.tied_adapter is None:  # the tied layer has the same rows
            rows: Any = layer.trainable_tokens_delta
            embeddings: Any = layer.get_base_layer()
            base = embeddings.weight.data[layer.token_indices[FIRST]]
            named = zip(_names(len(weights)), weights, strict=True)
            rows[target].data = base + torch.stack([w * (rows[name].data - base) for name, w in named]).sum(dim=0)


def _names(n_sources: int) -> list[str]:
    """What PEFT calls the sources' adapters, in their order."""
    return [FIRST, *(f"source_{number}" for number in range(1, n_sources))]  # PEFT looks for names inside of keys


@contextmanager
def _peft_errors(settings: CombineConfig) -> Iterator[None]:
    try:
        with peft_warnings():
            yield
    except (ValueError, TypeError) as error:
        paths = ", ".join(source.path for source in settings.sources)
        raise ModelError(f"merge.combine.sources: {paths} cannot be combined: {first_line(error)}") from error


def _copy_tokenizer(source: Path, out: Path) -> None:
    for file in sorted(source.iterdir()):
        if file.is_file() and file.suffix in (".json", ".jinja", ".model", ".txt") and not (out / file.name).exists():
            shutil.copyfile(file, out / file.name)
