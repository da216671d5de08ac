"""A GGUF of 16 bits with random weights and the shapes of a Llama, for measuring what does not depend on values.

Format: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md (version 3).
"""

import math
import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

_U32, _F32, _TEXT, _ARRAY, _I32 = 4, 6, 8, 9, 5  # types of metadata
_TYPE_F32, _TYPE_F16 = 0, 1  # types of tensors
_ALIGNMENT = 32
_NORMAL_TOKEN = 1

Value = int | float | str | Sequence[int] | Sequence[str]


@dataclass(frozen=True, slots=True)
class Shape:
    """`hidden` is divided among `n_heads`; output and input embeddings are one matrix."""

    n_layers: int
    hidden: int
    intermediate: int
    n_heads: int
    n_kv_heads: int
    n_vocab: int
    n_merges: int


# config.json and tokenizer.json of meta-llama/Llama-3.2-1B: 1.24 billion weights, a header of 14 MB
LLAMA_3_2_1B = Shape(16, 2048, 8192, 32, 8, 128_256, 280_147)


def write_random_gguf(path: Path, shape: Shape, seed: int) -> None:
    """Matrices of N(0, 0.02) in F16, norms of one in F32; the same bytes for the same seed."""
    draw = np.random.default_rng(seed)
    with path.open("wb") as file:
        file.write(_header(shape))
        for _, dims in _tensors(shape):
            file.write(bytes(-file.tell() % _ALIGNMENT))
            if len(dims) == 1:
                np.ones(dims, "<f4").tofile(file)
            else:
                (draw.standard_normal(dims, np.float32) * np.float32(0.02)).astype("<f2").tofile(file)


def _header(shape: Shape) -> bytes:
    metadata, tensors = list(_metadata(shape)), list(_tensors(shape))
    head = b"GGUF" + struct.pack("<IQQ", 3, len(tensors), len(metadata))
    head += b"".join(_text(key) + _typed(value) for key, value in metadata)
    offset = 0
    for name, dims in tensors:
        kind, width = (_TYPE_F32, 4) if len(dims) == 1 else (_TYPE_F16, 2)
        head += _text(name) + struct.pack(f"<I{len(dims)}QIQ", len(dims), *dims, kind, offset)
        offset += width * math.prod(dims)
        offset += -offset % _ALIGNMENT
    return head + bytes(-len(head) % _ALIGNMENT)


def _metadata(shape: Shape) -> Iterator[tuple[str, Value]]:
    yield "general.architecture", "llama"
    yield "general.file_type", 1
    yield "llama.block_count", shape.n_layers
    yield "llama.context_length", 2048
    yield "llama.embedding_length", shape.hidden
    yield "llama.feed_forward_length", shape.intermediate
    yield "llama.attention.head_count", shape.n_heads
    yield "llama.attention.head_count_kv", shape.n_kv_heads
    yield "llama.attention.layer_norm_rms_epsilon", 1e-5
    yield "tokenizer.ggml.model", "gpt2"
    yield "tokenizer.ggml.tokens", [f"token {i}" for i in range(shape.n_vocab)]
    yield "tokenizer.ggml.token_type", [_NORMAL_TOKEN] * shape.n_vocab
    yield "tokenizer.ggml.merges", [f"left{i} right{i}" for i in range(shape.n_merges)]


def _tensors(shape: Shape) -> Iterator[tuple[str, tuple[int, ...]]]:
    """Name and dimensions, the length of a row first."""
    hidden, kv = shape.hidden, shape.hidden // shape.n_heads * shape.n_kv_heads
    yield "token_embd.weight", (hidden, shape.n_vocab)
    for i in range(shape.n_layers):
        yield f"blk.{i}.attn_norm.weight", (hidden,)
        yield f"blk.{i}.attn_q.weight", (hidden, hidden)
        yield f"blk.{i}.attn_k.weight", (hidden, kv)
        yield f"blk.{i}.attn_v.weight", (hidden, kv)
        yield f"blk.{i}.attn_output.weight", (hidden, hidden)
        yield f"blk.{i}.ffn_norm.weight", (hidden,)
        yield f"blk.{i}.ffn_gate.weight", (hidden, shape.intermediate)
        yield f"blk.{i}.ffn_up.weight", (hidden, shape.intermediate)
        yield f"blk.{i}.ffn_down.weight", (shape.intermediate, hidden)
    yield "output_norm.weight", (hidden,)


def _typed(value: Value) -> bytes:
    match value:
        case str():
            return struct.pack("<I", _TEXT) + _text(value)
        case int():
            return struct.pack("<II", _U32, value)
        case float():
            return struct.pack("<If", _F32, value)
        case [str(), *_]:
            return struct.pack("<IIQ", _ARRAY, _TEXT, len(value)) + b"".join(_text(str(item)) for item in value)
        case _:
            return struct.pack("<IIQ", _ARRAY, _I32, len(value)) + np.array(value, "<i4").tobytes()


def _text(value: str) -> bytes:
    raw = value.encode("utf-8")
    return struct.pack("<Q", len(raw)) + raw
