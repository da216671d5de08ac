"""Writing a trained model: only finite weights, the same bytes for the same run, nothing of this machine."""

import json
from pathlib import Path

import torch
from peft import PeftModel
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from tuneline.errors import ModelError


def check_finite(model: torch.nn.Module) -> None:
    """Raise `ModelError` naming the first trained tensor that holds NaN or infinity."""
    for name, parameter in model.named_parameters():
        if parameter.requires_grad and not bool(torch.isfinite(parameter).all()):
            raise ModelError(f"weights of {name} are not finite after training; lower the learning rate")


def save_model(model: PreTrainedModel | PeftModel, tokenizer: PreTrainedTokenizerBase, folder: Path) -> None:
    """Write the adapter (PEFT folder) or the full model, and the tokenizer beside it, as safetensors and JSON."""
    model.save_pretrained(str(folder))
    tokenizer.save_pretrained(str(folder))
    if isinstance(model, PeftModel):
        (folder / "README.md").unlink(missing_ok=True)  # PEFT's empty model card; the package stage writes ours
        sort_adapter_config(folder / "adapter_config.json")


def sort_adapter_config(path: Path) -> None:
    """PEFT writes its module names in the order of a set, which differs from process to process."""
    config = json.loads(path.read_text(encoding="utf-8"))
    ordered = {key: sorted(value) if key == "target_modules" and isinstance(value, list) else value
               for key, value in config.items()}  # fmt: skip
    path.write_text(json.dumps(ordered, indent=2, sort_keys=True) + "\n", encoding="utf-8")
