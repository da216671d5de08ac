"""One safetensors file, written block by block: no tensor has to be in memory as a whole.

Format: https://github.com/huggingface/safetensors#format (the header's length in 8 bytes, a JSON header, the numbers).
"""

import hashlib
import json
import math
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from torch import Tensor

from tuneline.errors import ModelError
from tuneline.export.checkpoint import row_blocks

FLOATS = {"F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}
ShapeAndType = tuple[tuple[int, ...], str]  # the type by its name in the format, one of FLOATS


def write_shard(file: Path, layout: Mapping[str, ShapeAndType], blocks: Callable[[str], Iterable[Tensor]]) -> None:
    """Write the tensors of `layout`; `blocks(name)` gives the rows of one, in its type.

    Raises `ModelError` when what is read back is not, bit for bit, what was given.
    """
    digests = {}
    # the widest first, so that every number lies at a multiple of its size
    layout = dict(sorted(layout.items(), key=lambda item: (-FLOATS[item[1][1]].itemsize, item[0])))
    with file.open("wb") as out:
        out.write(_header(layout))
        for name in layout:
            digest = hashlib.sha256()
            for block in blocks(name):
                data = _bytes(block)
                digest.update(data)
                out.write(data)
            digests[name] = digest.digest()
    with safe_open(file, framework="pt") as written:
        changed = [name for name, digest in digests.items() if _digest(written.get_slice(name)) != digest]
    if changed:
        raise ModelError(f"{file}: tensor {changed[0]} was not written as it is in memory; is the disk sound?")


def _header(layout: Mapping[str, ShapeAndType]) -> bytes:
    """As safetensors writes it, padded with spaces to a multiple of 8 bytes."""
    entries: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    end = 0
    for name, (shape, dtype) in layout.items():
        start, end = end, end + math.prod(shape) * FLOATS[dtype].itemsize
        entries[name] = {"dtype": dtype, "shape": shape, "data_offsets": (start, end)}
    text = json.dumps(entries, separators=(",", ":"), ensure_ascii=False).encode()
    padded = text.ljust(-(-len(text) // 8) * 8)
    return len(padded).to_bytes(8, "little") + padded


def _digest(part: Any) -> bytes:
    digest = hashlib.sha256()
    for block in row_blocks(part):
        digest.update(_bytes(block))
    return digest.digest()


def _bytes(block: Tensor) -> memoryview:
    return block.contiguous().flatten().view(torch.uint8).numpy().data
