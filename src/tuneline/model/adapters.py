"""PEFT adapters read back from disk onto their base. Apart from loading.py, since importing PEFT takes seconds."""

import contextlib
import re
import warnings
from collections.abc import Iterator
from pathlib import Path

from peft import PeftConfig, PeftModel
from safetensors import SafetensorError
from transformers import PreTrainedModel

from tuneline.config.schema import HardwareConfig, ModelConfig, QuantizationConfig
from tuneline.errors import ModelError
from tuneline.model.loading import is_adapter, load_base, load_merged
from tuneline.model.sources import at_revision, first_line, require_folder

WEIGHTS = "adapter_model.safetensors"
CONFIG = "adapter_config.json"


def load_tuned(
    folder: Path, model: ModelConfig, hardware: HardwareConfig, quantization: QuantizationConfig | None
) -> PreTrainedModel | PeftModel:
    """What a phase trained, in eval mode: base plus adapter, or the full model when `folder` holds one."""
    require_folder(folder)
    if not is_adapter(folder):
        return load_merged(folder, hardware)
    check_adapter_fits(folder, model)
    return attach_adapter(load_base(model, hardware, quantization), folder, is_trainable=False)


def bare_model(model: PreTrainedModel | PeftModel) -> PreTrainedModel:
    """The Transformers model itself; an adapter's layers stay in their places inside it."""
    if not isinstance(model, PeftModel):
        return model
    bare = model.get_base_model()
    assert isinstance(bare, PreTrainedModel)
    return bare


def attach_adapter(base: PreTrainedModel, folder: Path, is_trainable: bool) -> PeftModel:
    """`base` with the adapter in `folder` on top. Raises `ModelError` when its tensors do not fit the base."""
    problems = (OSError, RuntimeError, ValueError, KeyError, TypeError, SafetensorError, UserWarning)
    try:
        with peft_warnings():
            # PEFT only warns about tensors that the file lacks, and leaves them as initialised
            warnings.filterwarnings("error", message="Found missing adapter keys")
            return PeftModel.from_pretrained(base, str(folder), is_trainable=is_trainable)
    except problems as error:
        raise ModelError(
            f"{folder / WEIGHTS}: the adapter does not fit its base: {misfit(error, 'default')}"
        ) from error


def misfit(error: BaseException, name: str) -> str:
    """What PEFT says of the adapter called `name`, by the first tensor that does not fit, as the file names it."""
    text = str(error).replace(f".{name}.", ".")
    if found := re.search(r"Found missing adapter keys[^\[]*\['([^']+)'", text):
        return f"tensor {found[1]} is missing"
    if found := re.search(r"size mismatch for (\S+): .*?\[(.*?)\].*?\[(.*?)\]", text):
        shapes = [shape.replace(", ", "x") for shape in (found[2], found[3])]
        return f"tensor {found[1]} is {shapes[0]} instead of {shapes[1]}"
    return first_line(error)


@contextlib.contextmanager
def peft_warnings() -> Iterator[None]:
    """Silence what PEFT 0.21 does that Transformers 5.23 warns about; nobody here can act on it."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="`is_gradient_checkpointing` is deprecated", category=FutureWarning)
        yield


def check_adapter_fits(folder: Path, model: ModelConfig) -> None:
    """Raise `ModelError` when the adapter in `folder` was trained on another base than `model`."""
    config = _read_config(folder)
    trained_on = (config.base_model_name_or_path, config.revision)
    if trained_on != (model.name_or_path, model.revision):
        raise ModelError(
            f"{folder}/adapter_config.json: the adapter was trained on {at_revision(*trained_on)}, but "
            f"model.name_or_path is {at_revision(model.name_or_path, model.revision)}; train it again (dvc repro) or "
            "select the model it was made for"
        )


def _read_config(folder: Path) -> PeftConfig:
    try:
        config: PeftConfig = PeftConfig.from_pretrained(str(folder))
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:  # no JSON, no object, no known type
        raise ModelError(
            f"{folder / CONFIG}: not a readable PEFT configuration ({first_line(error)}); train the adapter again"
        ) from error
    return config
