"""Tokenizers and weights, from disk or hub to the configured device: checked, or refused in one line."""

import contextlib
import json
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from huggingface_hub import hf_hub_download
from huggingface_hub.errors import EntryNotFoundError, LocalEntryNotFoundError
from safetensors import SafetensorError
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoTokenizer,
    BitsAndBytesConfig,
    GenerationConfig,
    PretrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)
from transformers.utils import GENERATION_CONFIG_NAME
from transformers.utils.logging import disable_progress_bar

from tuneline.config.schema import Family, HardwareConfig, ModelConfig, QuantizationConfig
from tuneline.errors import EnvironmentProblem, ModelError
from tuneline.model.devices import take_devices
from tuneline.model.pinned import check_digests
from tuneline.shortage import is_out_of_memory

if not sys.stderr.isatty():
    # a pipe gets plain lines, and loading has nothing to say there
    disable_progress_bar()  # type: ignore[no-untyped-call]

# Tokens that published tokenizers reserve and never write into a conversation, best first.
PAD_CANDIDATES = (
    "<|pad|>",
    "<pad>",
    "[PAD]",
    "<|finetune_right_pad_id|>",
    "<|reserved_special_token_0|>",
    "<|endoftext|>",
    "<|endofprompt|>",
    "[control_8]",
    "<unk>",
)

# What Llama 3.x writes by itself where nobody sets `date_string`; llama.cpp's server sets it, to today.
FIXED_DATE = "26 Jul 2024"


def load_tokenizer(model: ModelConfig) -> PreTrainedTokenizerBase:
    """The base model's tokenizer, with a chat template and a pad token that is not EOS.

    `model.chat_template_kwargs` become part of the template, and so does a date where it would write today's: whoever
    renders it later, from the adapter's folder or inside the GGUF, renders what was trained.
    When the published pad token is missing or equals EOS, an unused token that the vocabulary already has
    takes its place (no embedding is added). Raises `ModelError`, or `EnvironmentProblem` when a hub model
    cannot be had.
    """
    require_base(model)
    with one_line_errors(model.name_or_path, model.revision):
        tokenizer = AutoTokenizer.from_pretrained(model.name_or_path, **_source(model))
    checked = _checked_tokenizer(tokenizer, model.name_or_path)
    _fix_template(checked, model.name_or_path, model.chat_template_kwargs)
    return checked


def load_tokenizer_from(folder: Path) -> PreTrainedTokenizerBase:
    """The tokenizer saved beside a trained or merged model, checked like the base's."""
    require_folder(folder)
    with one_line_errors(str(folder), None):
        tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=False)
    checked = _checked_tokenizer(tokenizer, str(folder))
    _fix_template(checked, str(folder), {})
    return checked


def load_config(model: ModelConfig) -> PretrainedConfig:
    """The base model's config.json."""
    require_base(model)
    with one_line_errors(model.name_or_path, model.revision):
        config: PretrainedConfig = AutoConfig.from_pretrained(model.name_or_path, **_source(model))
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


def stop_token_ids(model: ModelConfig, tokenizer: PreTrainedTokenizerBase) -> tuple[int, ...]:
    """Tokens that end a turn: the tokenizer's EOS and those in the model's generation_config.json.

    Gemma ends a turn with <end_of_turn> and Phi with <|end|>, neither of which is their tokenizer's EOS.
    """
    require_base(model)
    ids = {tokenizer.eos_token_id}
    with one_line_errors(model.name_or_path, model.revision):
        folder = _folder_of_generation_config(model)
        if folder is not None:
            config: Any = GenerationConfig.from_pretrained(folder)
            ids |= set(_as_list(config.eos_token_id))
    return tuple(sorted(ids))


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
            **_source(model),
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


def _checked_tokenizer(tokenizer: PreTrainedTokenizerBase, name: str) -> PreTrainedTokenizerBase:
    if tokenizer.chat_template is None:
        raise ModelError(
            f"{name}: its tokenizer has no chat template; use the model's instruct variant, or point "
            "model.name_or_path at a local copy of the model with a chat_template.jinja"
        )
    if tokenizer.eos_token_id is None:
        raise ModelError(f"{name}: its tokenizer has no EOS token, so nothing tells the model where to stop")
    if tokenizer.pad_token_id in (None, tokenizer.eos_token_id):
        tokenizer.pad_token = _unused_token(tokenizer, name)
    tokenizer.padding_side = "right"
    for how in ("is_local", "local_files_only"):  # it was found: saved with it, as if HF_HUB_OFFLINE made another one
        tokenizer.init_kwargs.pop(how, None)
    return tokenizer


def _fix_template(tokenizer: PreTrainedTokenizerBase, name: str, values: Mapping[str, bool | int | str]) -> None:
    """Put `values` in front of the chat template. Raises `ModelError` for one it does not name, or for a clock."""
    with one_line_errors(name, None):  # several templates, and none is called default
        template = str(tokenizer.get_chat_template())
    head = "".join(_settings(template, name, values))
    if "strftime_now" in template and "date_string" not in template:
        raise ModelError(
            f"{name}: its chat template writes today's date (strftime_now), so that tomorrow's tokens differ; point "
            "model.name_or_path at a local copy whose chat_template.jinja writes a fixed one"
        )
    if _writes_a_date(template) and not _sets(head + template, "date_string"):
        head += _setting("date_string", FIXED_DATE)
    if head:
        tokenizer.chat_template = head + template


def _writes_a_date(template: str) -> bool:
    return "date_string" in template and ("strftime_now" in template or FIXED_DATE in template)


def _settings(template: str, name: str, values: Mapping[str, bool | int | str]) -> Iterator[str]:
    """The lines that are not in the template yet: it may come from a model that was trained with the same."""
    for key, value in sorted(values.items()):
        line = _setting(key, value)
        if key not in template:
            raise ModelError(f"model.chat_template_kwargs: the chat template of {name} does not read '{key}'")
        if line not in template:
            if _sets(template, key):
                raise ModelError(
                    f"model.chat_template_kwargs: the chat template of {name} sets '{key}' itself, so {value!r} would "
                    "change nothing; take it out of one of the two"
                )
            yield line


def _setting(key: str, value: bool | int | str) -> str:
    """A line that renders to nothing: `trim_blocks`, as Transformers sets it, takes its newline away."""
    return f"{{% set {key} = {json.dumps(value, ensure_ascii=False)} %}}\n"


def _sets(template: str, key: str) -> bool:
    return f"{{% set {key} = " in template


def _unused_token(tokenizer: PreTrainedTokenizerBase, name: str) -> str:
    vocabulary = tokenizer.get_vocab()
    for token in PAD_CANDIDATES:
        in_use = token in (tokenizer.eos_token, tokenizer.bos_token) or token in str(tokenizer.chat_template)
        if token in vocabulary and not in_use:
            return token
    raise ModelError(
        f"{name}: the pad token {tokenizer.pad_token!r} is missing or equals EOS (a model trained so never "
        f"stops), and none of {', '.join(PAD_CANDIDATES)} is free; set pad_token in tokenizer_config.json"
    )


def _source(model: ModelConfig) -> dict[str, Any]:
    return {"trust_remote_code": model.trust_remote_code, **revision_arguments(model)}


def revision_arguments(model: ModelConfig) -> dict[str, Any]:
    return {} if model.revision is None else {"revision": model.revision}


def _folder_of_generation_config(model: ModelConfig) -> Path | None:
    """None where the model has no such file, which is allowed; that the hub cannot be reached is an `OSError`."""
    if model.revision is None:
        folder = Path(model.name_or_path)
        return folder if (folder / GENERATION_CONFIG_NAME).is_file() else None
    try:
        return Path(hf_hub_download(model.name_or_path, GENERATION_CONFIG_NAME, revision=model.revision)).parent
    except LocalEntryNotFoundError:
        raise
    except EntryNotFoundError:
        return None


def require_base(model: ModelConfig) -> None:
    """Raise `ModelError` where a local base is missing (it must not be taken for a hub id) or not as pinned."""
    if model.revision is None:
        require_folder(Path(model.name_or_path))
        check_digests(model)


def require_folder(folder: Path) -> None:
    """Raise `ModelError` where there is no such model folder."""
    if not folder.is_dir():
        raise ModelError(f"{folder}: no such model folder; fetch it with `dvc pull` or make it with `dvc repro`")


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


def _as_list(value: int | list[int] | None) -> list[int]:
    if value is None:
        return []
    return [value] if isinstance(value, int) else value
