"""Weights, from disk or hub to the configured device: complete, or refused in one line."""

import sys
from pathlib import Path
from typing import Any

import torch
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    BitsAndBytesConfig,
    PretrainedConfig,
    PreTrainedModel,
)
from transformers.utils.logging import disable_progress_bar

from tuneline.config.schema import Family, HardwareConfig, ModelConfig, QuantizationConfig
from tuneline.errors import EnvironmentProblem, ModelError
from tuneline.model.devices import take_devices
from tuneline.model.sources import (
    at_revision,
    hub_arguments,
    one_line_errors,
    require_base,
    require_folder,
    revision_arguments,
)

if not sys.stderr.isatty():
    # a pipe gets plain lines, and loading has nothing to say there
    disable_progress_bar()  # type: ignore[no-untyped-call]


def load_config(model: ModelConfig) -> PretrainedConfig:
    """The base model's config.json."""
    require_base(model)
    with one_line_errors(model.name_or_path, model.revision):
        config: PretrainedConfig = AutoConfig.from_pretrained(model.name_or_path, **hub_arguments(model))
    return config


def load_shape(model: ModelConfig) -> PreTrainedModel:
    """The base model without its weights: of the architecture, and in the type, that its config.json names.

    On the meta device, which takes no memory. Raises `ModelError` where the architecture is not known.
    """
    config = load_config(model)
    with one_line_errors(model.name_or_path, model.revision), torch.device("meta"):
        auto: Any = AutoModelForCausalLM  # untyped in Transformers
        shape: PreTrainedModel = auto.from_config(config, trust_remote_code=model.trust_remote_code)
    return shape


def load_base(model: ModelConfig, hardware: HardwareConfig, quantization: QuantizationConfig | None) -> PreTrainedModel:
    """The base model in eval mode on the device, in `inference_dtype`."""
    return _load_base_in(inference_dtype(hardware), model, hardware, quantization)


def load_base_for_training(
    model: ModelConfig, hardware: HardwareConfig, quantization: QuantizationConfig | None, family: Family
) -> PreTrainedModel:
    """The base model as training wants it, in `training_dtype`."""
    return _load_base_in(training_dtype(hardware, family), model, hardware, quantization)


def load_merged(folder: Path, hardware: HardwareConfig) -> PreTrainedModel:
    """A standalone model folder in eval mode on the device, in `inference_dtype`."""
    return load_full(folder, hardware, inference_dtype(hardware))


def load_full(folder: Path, hardware: HardwareConfig, dtype: torch.dtype) -> PreTrainedModel:
    """A standalone model folder in eval mode on the device, every tensor present and of the right shape."""
    require_folder(folder)
    device = torch_device(hardware)
    with one_line_errors(str(folder), None):
        loaded: Any = AutoModelForCausalLM.from_pretrained(
            folder,
            dtype=dtype,
            attn_implementation=hardware.attn_implementation,
            trust_remote_code=False,
            use_safetensors=True,  # a pickle runs code when it is read
            output_loading_info=True,
            ignore_mismatched_sizes=True,  # `_complete` refuses them, by name
        )
    return _placed(_complete(loaded, str(folder)), device)


def is_adapter(folder: Path) -> bool:
    """Whether `folder` holds a PEFT adapter (and not full weights)."""
    return (folder / "adapter_config.json").is_file()


def torch_device(hardware: HardwareConfig) -> torch.device:
    """The configured device, or `EnvironmentProblem` when this machine has none: never another one instead.

    Waits until this process has it for itself, before PyTorch looks at it.
    """
    take_devices(hardware.device, hardware.num_devices)
    match hardware.device:
        case "cpu":
            return torch.device("cpu")
        case "cuda":
            present = torch.cuda.is_available() and torch.cuda.device_count() >= hardware.num_devices
        case "mps":
            present = torch.backends.mps.is_available()
    if not present:
        raise EnvironmentProblem(
            f"hardware.device: '{hardware.device}' x {hardware.num_devices} is configured "
            f"(hardware={hardware.name}), but PyTorch {torch.__version__} sees {torch.cuda.device_count()} CUDA "
            "devices here; choose the hardware you have, e.g. -S hardware=cpu"
        )
    return torch.device(hardware.device)


def inference_dtype(hardware: HardwareConfig) -> torch.dtype:
    """The type that weights are held in when they are not trained: `hardware.precision`, but fp32 on a CPU."""
    if hardware.device == "cpu":
        return torch.float32
    match hardware.precision:
        case "fp32":
            return torch.float32
        case "bf16":
            return torch.bfloat16
        case "fp16":
            return torch.float16


def training_dtype(hardware: HardwareConfig, family: Family) -> torch.dtype:
    """The type of the base's weights in training: fp32 when they are trained themselves, since updates get
    lost in 16 bits (autocast computes in `hardware.precision`); otherwise frozen, as at inference."""
    match family:
        case "full":
            return torch.float32
        case "adapter":
            return inference_dtype(hardware)


def _load_base_in(
    dtype: torch.dtype,
    model: ModelConfig,
    hardware: HardwareConfig,
    quantization: QuantizationConfig | None,
) -> PreTrainedModel:
    require_base(model)
    _refuse_quantized(model)
    device = torch_device(hardware)
    with one_line_errors(model.name_or_path, model.revision):
        loaded: Any = AutoModelForCausalLM.from_pretrained(
            model.name_or_path,
            dtype=dtype,
            attn_implementation=hardware.attn_implementation,
            use_safetensors=True,
            output_loading_info=True,
            ignore_mismatched_sizes=True,  # `_complete` refuses them, by name
            **_quantized_placement(quantization, device),
            **hub_arguments(model),
        )
    weights = _complete(loaded, model.name_or_path)
    return weights if quantization is not None else _placed(weights, device)


def _refuse_quantized(model: ModelConfig) -> None:
    """Raise `ModelError` for a base whose files hold quantised weights.

    What is merged into those is rounded to their few bits again, so an adapter trained on them could not be shipped.
    """
    with one_line_errors(model.name_or_path, model.revision):
        config, _ = PretrainedConfig.get_config_dict(model.name_or_path, **revision_arguments(model))
    found = config.get("quantization_config")
    if found is not None:
        raise ModelError(
            f"model.name_or_path: {at_revision(model.name_or_path, model.revision)} is quantised already "
            f"({found.get('quant_method', 'unnamed')} in its config.json), and an adapter merged into it would be "
            "rounded with it; name the model in 16 bits, method=qlora quantises it for training alone"
        )


def _quantized_placement(quantization: QuantizationConfig | None, device: torch.device) -> dict[str, Any]:
    """4-bit weights are packed on their way to the device, so the loader has to know it."""
    if quantization is None:
        return {}
    config: Any = BitsAndBytesConfig(**quantization.model_dump())  # type: ignore[no-untyped-call]  # untyped
    return {"quantization_config": config, "device_map": {"": device}}


def _placed(weights: Any, device: torch.device) -> PreTrainedModel:
    placed: PreTrainedModel = weights.to(device)
    return placed


def _complete(loaded: tuple[PreTrainedModel, dict[str, Any]], source: str) -> PreTrainedModel:
    """The model, unless tensors were missing or misshapen: Transformers would fill those with random numbers."""
    weights, info = loaded
    broken = sorted({*info["missing_keys"], *(name for name, *_shapes in info["mismatched_keys"])})
    if broken:
        raise ModelError(f"{source}: {len(broken)} tensors of its weights are missing or misshapen: {broken[0]}")
    return weights
