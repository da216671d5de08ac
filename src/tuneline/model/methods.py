"""Which weights are trained: PEFT's adapters on a frozen base, or all of them."""

from pathlib import Path
from typing import Any, cast

import torch
from peft import LoraConfig as PeftLoraConfig
from peft import PeftModel, get_peft_model, prepare_model_for_kbit_training
from transformers import PreTrainedModel, set_seed

from tuneline.config.schema import HardwareConfig, LoraConfig, MethodConfig, ModelConfig, QuantizationConfig
from tuneline.errors import ModelError
from tuneline.model.adapters import attach_adapter, check_adapter_fits, peft_warnings
from tuneline.model.loading import is_adapter, load_base_for_training, load_full
from tuneline.model.sources import first_line

TrainableModel = PreTrainedModel | PeftModel


def initial_model(
    init: Path,
    model: ModelConfig,
    method: MethodConfig,
    lora: LoraConfig | None,
    quantization: QuantizationConfig | None,
    hardware: HardwareConfig,
    seed: int,
) -> TrainableModel:
    """What a phase starts from: the base (`init` is `model.tracked_path`) with a fresh adapter drawn by `seed`,
    or what an earlier phase left in the folder `init`: its adapter or its full model goes on being trained."""
    set_seed(seed)
    from_base = str(init) == model.tracked_path
    match method.family:
        case "full" if from_base:
            return load_base_for_training(model, hardware, quantization, "full")
        case "full":
            _require(not is_adapter(init), init, "an adapter, but method full starts from a whole model")
            return load_full(init, hardware, torch.float32)
        case "adapter" if from_base:
            base = load_base_for_training(model, hardware, quantization, "adapter")
            return apply_method(base, method, lora, model.revision)
        case "adapter":
            _require(is_adapter(init), init, f"no adapter, but method {method.name} goes on training one")
            check_adapter_fits(init, model)
            base = load_base_for_training(model, hardware, quantization, "adapter")
            return attach_adapter(_frozen(base, method), init, is_trainable=True)


def apply_method(
    base: PreTrainedModel, method: MethodConfig, lora: LoraConfig | None, base_revision: str | None
) -> TrainableModel:
    """`base` with what the method trains on top; a new adapter is drawn from torch's random state.

    LoRA: Hu et al. 2021, arXiv:2106.09685; QLoRA: arXiv:2305.14314; DoRA: arXiv:2402.09353;
    rsLoRA: arXiv:2312.03732. Raises `ModelError` when `lora.target_modules` are not in the model.
    """
    match method.name:
        case "full":
            return base
        case "lora" | "dora" | "rslora" | "qlora":
            return with_adapter(_frozen(base, method), lora, base_revision)


def with_adapter(base: PreTrainedModel, lora: LoraConfig | None, base_revision: str | None) -> PeftModel:
    """`base` with a new adapter on top. Raises `ModelError` when `lora.target_modules` are not in it."""
    try:
        with peft_warnings():
            return cast(PeftModel, get_peft_model(base, _peft_config(lora, base_revision)))
    except ValueError as error:
        raise ModelError(f"lora: no adapter fits {base.name_or_path}: {first_line(error)}") from error


def _peft_config(lora: LoraConfig | None, base_revision: str | None) -> PeftLoraConfig:
    assert lora is not None, "the schema requires lora for every adapter method"
    values = lora.model_dump()
    if not isinstance(lora.target_modules, str):
        values["target_modules"] = list(lora.target_modules)
    return PeftLoraConfig(task_type="CAUSAL_LM", revision=base_revision, **values)


def _frozen(base: PreTrainedModel, method: MethodConfig) -> PreTrainedModel:
    """The base, ready to carry an adapter: for 4-bit weights PEFT casts the norms to fp32."""
    match method.name:
        case "qlora":
            # the trainer switches gradient checkpointing on, where the hardware asks for it
            prepare: Any = prepare_model_for_kbit_training  # untyped in PEFT
            prepared: PreTrainedModel = prepare(base, use_gradient_checkpointing=False)
            return prepared
        case _:
            return base


def _require(holds: bool, init: Path, found: str) -> None:
    if not holds:
        raise ModelError(f"{init}: holds {found}; run the earlier phase again with this method (dvc repro)")
