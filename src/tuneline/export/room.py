"""Whether a file fits on the disk, before the minutes that writing it takes."""

import json
import math
import shutil
from pathlib import Path

from tuneline.config.schema import OutType, QuantType
from tuneline.errors import EnvironmentProblem, ModelError
from tuneline.export.header import Tensor, read_layout

_SOURCE_BITS = {"F32": 32.0, "F16": 16.0, "BF16": 16.0}  # llama.cpp quantises no others
_Q8_0_BITS = 8.5
_MIXED_BITS = 2.5625  # a mixture's widest type beside its name: Q6_K, of 6.5625 bits, in q4_k_m
_PADDING_BYTES = 128  # each tensor's alignment, and its entry in the header
_RAISED = ("output.weight", "token_embd.weight")  # Q6_K or more, whatever the name says
_RAISED_WITH_EXPERTS = ("attn_k.weight", "attn_v.weight")  # Q8_0 where there are eight


def check_room(out: Path, needed_bytes: int, fix: str = "make room (`dvc gc --workspace` removes old results)") -> None:
    """Raise `EnvironmentProblem` with needed and free bytes when the disk of `out` cannot hold that much."""
    folder = next(parent for parent in out.absolute().parents if parent.exists())
    free_bytes = shutil.disk_usage(folder).free
    if free_bytes < needed_bytes:
        raise EnvironmentProblem(
            f"{out}: needs up to {needed_bytes:,} bytes, {free_bytes:,} are free on its disk; {fix}"
        )


def converted_bytes(merged: Path, outtype: OutType) -> int:
    """At most what the safetensors in `merged` become, with the tokenizer: vectors are stored in 32 bits."""
    tensors = [tensor for file in merged.glob("*.safetensors") for tensor in _safetensors_shapes(file)]
    wide = 4 if outtype == "f32" else 2
    weights = sum(math.prod(shape) * (wide if len(shape) > 1 else 4) for shape in tensors)
    others = sum(file.stat().st_size for file in merged.iterdir() if file.is_file() and file.suffix != ".safetensors")
    return weights + others + _PADDING_BYTES * len(tensors)


def quantised_bytes(source: Path, quant: QuantType) -> int:
    """At most what `source`, of 16 or 32 bits per weight, becomes: rows that fit no block get a wider type."""
    tensors = read_layout(source).tensors
    weights = sum(math.prod(tensor.shape) * _SOURCE_BITS.get(tensor.type, 0) / 8 for tensor in tensors)
    header = max(0, source.stat().st_size - math.floor(weights))
    found = sum(math.prod(tensor.shape) * _most_bits(tensor, quant) / 8 + _PADDING_BYTES for tensor in tensors)
    return header + math.ceil(found)


def _most_bits(tensor: Tensor, quant: QuantType) -> float:
    """Per weight: what llama.cpp's mixtures and fallbacks take for such a matrix at most."""
    simple = quant in ("q4_0", "q4_1", "q5_0", "q5_1", "q8_0")
    named = next(int(letter) for letter in quant if letter.isdigit())
    raised = tensor.name.startswith(_RAISED) or tensor.name.endswith(_RAISED_WITH_EXPERTS)
    if len(tensor.shape) == 1:
        return _SOURCE_BITS["F32"]
    if tensor.shape[0] % 32 != 0:
        return _SOURCE_BITS["F16"]
    if raised or (not simple and tensor.shape[0] % 256 != 0):
        return _Q8_0_BITS
    return named + (1 if simple else _MIXED_BITS)


def _safetensors_shapes(file: Path) -> list[list[int]]:
    """From the header alone, and without PyTorch. Raises `ModelError` where there is none."""
    try:
        with file.open("rb") as data:
            length = int.from_bytes(data.read(8), "little")
            header = json.loads(data.read(min(length, file.stat().st_size)))  # a damaged length asks for no memory
        return [entry["shape"] for name, entry in header.items() if name != "__metadata__"]
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise ModelError(f"{file}: no readable safetensors file; merge again") from error


def folder_bytes(folder: Path) -> int:
    """What a copy of all files in `folder` takes."""
    return sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())
