"""What a device can compute."""

from collections.abc import Iterator

from tuneline.config.rules.wording import listed, refused
from tuneline.config.schema import Device, HardwareConfig, Precision

# fp16 needs a gradient scaler, which PyTorch has for CUDA; mixed precision on mps is incomplete.
_PRECISIONS: dict[Device, tuple[Precision, ...]] = {
    "cpu": ("fp32", "bf16"),
    "cuda": ("fp32", "bf16", "fp16"),
    "mps": ("fp32",),
}


def hardware_rules(hardware: HardwareConfig) -> Iterator[str]:
    device, precision, attention = hardware.device, hardware.precision, hardware.attn_implementation
    if precision not in _PRECISIONS[device]:
        yield refused("hardware.precision", precision, f"on {device} is {listed(_PRECISIONS[device])}")
    if hardware.num_devices != 1:
        allowed = "is 1: one process trains on one device, and nothing here starts several"
        yield refused("hardware.num_devices", hardware.num_devices, allowed)
    if device != "cuda":
        yield from _without_cuda(hardware)
    elif hardware.memory_gib is None:
        yield "hardware.memory_gib: null, device cuda needs the memory of one device; write it in GiB"
    if attention == "flash_attention_2" and (device != "cuda" or precision == "fp32"):
        allowed = f"on {device} in {precision} is sdpa, eager"
        yield refused("hardware.attn_implementation", attention, allowed)


def _without_cuda(hardware: HardwareConfig) -> Iterator[str]:
    if hardware.optim == "paged_adamw_8bit":
        allowed = f"on {hardware.device} is adamw_torch, adamw_torch_fused"
        yield refused("hardware.optim", hardware.optim, allowed)
