"""The yardstick of every link: the Hugging Face model in fp32 on the processor, the same on every machine."""

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from tuneline.config.schema import HardwareConfig

Rows = Sequence[Sequence[int]]  # token ids of held-out conversations
Metrics = dict[str, float | int]

# Not the hardware of the experiment: a link's figures must not depend on where the pipeline ran.
REFERENCE = HardwareConfig(
    name="reference",
    device="cpu",
    memory_gib=None,
    num_devices=1,
    precision="fp32",
    attn_implementation="sdpa",
    micro_batch_size=1,
    eval_batch_size=1,
    gradient_checkpointing=False,
    optim="adamw_torch",
)


def decisive(name: str, metrics: Mapping[str, float | int]) -> str:
    """The figure that is held to a budget: of products in float64, where those in fp32 were over it."""
    return f"float64_{name}" if f"float64_{name}" in metrics else name


def reference_logits(model: nn.Module, ids: Sequence[int], positions: Sequence[int]) -> NDArray[np.float32]:
    """Logits after `ids[: p + 1]` for each p of `positions`; one row each."""
    with torch.inference_mode():
        logits_TV = model(input_ids=torch.tensor([ids]), use_cache=False).logits[0, list(positions)]
    result: NDArray[np.float32] = logits_TV.float().numpy()
    return result
