"""Proof on the model at hand, before it is trained, that documents which share a row do not see each other."""

import contextlib

import torch

from tuneline.config.schema import HardwareConfig
from tuneline.errors import ModelError
from tuneline.training.packing import Layout, collate
from tuneline.training.tokens import TokenRow

MAX_RELATIVE_DIFFERENCE = 1e-3  # of the largest |logit|: above the rounding of bf16 kernels, far below a leak


def check_isolation(model: torch.nn.Module, layout: Layout, vocab_size: int, hardware: HardwareConfig) -> None:
    """Change one document of a packed row and compare the logits of the next. Raises `ModelError` when they move.

    Computed as training computes: the flash kernels refuse fp32, and weights that are trained are held in it.
    """
    if layout == "padded":
        return
    with autocast(hardware):
        before, changed = _logits_of_second(model, layout, 1), _logits_of_second(model, layout, vocab_size // 2)
    moved = float((before - changed).abs().max() / before.abs().max().clamp(min=1e-6))
    if moved > MAX_RELATIVE_DIFFERENCE:
        raise ModelError(
            f"packing: true, but in {type(model).__name__} a document sees the one before it (its logits move by "
            f"{moved:.2g} of the largest); set the phase's packing: false, or another hardware.attn_implementation"
        )


def autocast(hardware: HardwareConfig) -> contextlib.AbstractContextManager[object]:
    """The type that a training step computes in, whatever the weights are held in."""
    match hardware.precision:
        case "fp32":
            return contextlib.nullcontext()
        case "bf16":
            return torch.autocast(hardware.device, torch.bfloat16)
        case "fp16":
            return torch.autocast(hardware.device, torch.float16)


@torch.no_grad()
def _logits_of_second(model: torch.nn.Module, layout: Layout, first_id: int) -> torch.Tensor:
    n_first, n_second = 7, 6
    first = [first_id + t for t in range(n_first)]
    second = [3 + t for t in range(n_second)]
    rows = [TokenRow("first", first, first), TokenRow("second", second, second)]
    device = next(model.parameters()).device
    batch = collate([rows], layout, pad_token_id=0)
    inputs = {key: value.to(device) if isinstance(value, torch.Tensor) else value for key, value in batch.items()}
    was_training = model.training
    logits: torch.Tensor = model.eval()(**{**inputs, "labels": None}, use_cache=False).logits
    model.train(was_training)
    return logits[0, n_first : n_first + n_second].float()
