"""The machine that trains and evaluates."""

from typing import Literal

from tuneline.config.schema.section import Count, Name, Positive, Strict

Device = Literal["cpu", "cuda", "mps"]
Precision = Literal["fp32", "bf16", "fp16"]
Attention = Literal["sdpa", "eager", "flash_attention_2"]
Optimizer = Literal["adamw_torch", "adamw_torch_fused", "paged_adamw_8bit"]


class HardwareConfig(Strict):
    """The machine; changes speed and rounding, not the experiment."""

    name: Name
    device: Device
    memory_gib: Positive | None  # accelerator memory of one device; null: not checked
    num_devices: Count
    precision: Precision  # of computation; a frozen base is held in it on accelerators
    attn_implementation: Attention
    micro_batch_size: Count  # sequences per device and forward pass
    eval_batch_size: Count  # sequences per forward pass without gradients
    gradient_checkpointing: bool  # recompute activations: less memory, about a third more time
    optim: Optimizer
