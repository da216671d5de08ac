"""Quantise a GGUF with llama.cpp, in this process."""

import ctypes
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

import llama_cpp

from tuneline.config.explain import did_you_mean
from tuneline.config.schema import GgufType, QuantType
from tuneline.errors import ConfigError, ModelError
from tuneline.export.header import Header, Tensor, read_layout
from tuneline.export.importance import Importance
from tuneline.export.room import check_room, quantised_bytes
from tuneline.export.runtime import quiet
from tuneline.output import atomic_file

FILE_TYPES: Mapping[GgufType, int] = {
    "f32": llama_cpp.LLAMA_FTYPE_ALL_F32,
    "f16": llama_cpp.LLAMA_FTYPE_MOSTLY_F16,
    "bf16": llama_cpp.LLAMA_FTYPE_MOSTLY_BF16,
    "q2_k": llama_cpp.LLAMA_FTYPE_MOSTLY_Q2_K,
    "q3_k_s": llama_cpp.LLAMA_FTYPE_MOSTLY_Q3_K_S,
    "q3_k_m": llama_cpp.LLAMA_FTYPE_MOSTLY_Q3_K_M,
    "q3_k_l": llama_cpp.LLAMA_FTYPE_MOSTLY_Q3_K_L,
    "q4_0": llama_cpp.LLAMA_FTYPE_MOSTLY_Q4_0,
    "q4_1": llama_cpp.LLAMA_FTYPE_MOSTLY_Q4_1,
    "q4_k_s": llama_cpp.LLAMA_FTYPE_MOSTLY_Q4_K_S,
    "q4_k_m": llama_cpp.LLAMA_FTYPE_MOSTLY_Q4_K_M,
    "q5_0": llama_cpp.LLAMA_FTYPE_MOSTLY_Q5_0,
    "q5_1": llama_cpp.LLAMA_FTYPE_MOSTLY_Q5_1,
    "q5_k_s": llama_cpp.LLAMA_FTYPE_MOSTLY_Q5_K_S,
    "q5_k_m": llama_cpp.LLAMA_FTYPE_MOSTLY_Q5_K_M,
    "q6_k": llama_cpp.LLAMA_FTYPE_MOSTLY_Q6_K,
    "q8_0": llama_cpp.LLAMA_FTYPE_MOSTLY_Q8_0,
    "iq3_s": llama_cpp.LLAMA_FTYPE_MOSTLY_IQ3_S,
    "iq3_m": llama_cpp.LLAMA_FTYPE_MOSTLY_IQ3_M,
    "iq4_nl": llama_cpp.LLAMA_FTYPE_MOSTLY_IQ4_NL,
    "iq4_xs": llama_cpp.LLAMA_FTYPE_MOSTLY_IQ4_XS,
}


def quantize(source: Path, out: Path, quant: QuantType, importance: Importance | None = None) -> None:
    """Write `source`, a GGUF of 16 or 32 bit, as `out` in llama.cpp's file type `quant`.

    With `importance` (the mean square of each input channel, by weight matrix) a rounding error counts by it.
    Raises `ModelError` when llama.cpp fails, or when no weight can have the type: each row of weights must be a
    multiple of 256 for the k- and i-quants (32 for the others), and llama.cpp silently takes another type if not.
    """
    _check_source(source, quant)
    check_room(out, quantised_bytes(source, quant))
    params = llama_cpp.llama_model_quantize_default_params()
    params.ftype = FILE_TYPES[quant]
    entries = _native_importance(importance) if importance is not None else None
    params.imatrix = entries  # `entries` owns the memory until llama.cpp is done
    with atomic_file(out) as temporary, quiet() as errors:
        code = llama_cpp.llama_model_quantize(_native(source), _native(temporary), ctypes.byref(params))
        if code != 0:
            raise ModelError(
                f"{source}: llama.cpp cannot quantise it to {quant}: {'; '.join(errors) or f'code {code}'}"
            )


def _native_importance(importance: Importance) -> ctypes.Array[llama_cpp.llama_model_imatrix_data]:
    """An array that ends with an empty entry, as llama_model_quantize reads it; it keeps the values alive."""
    entries = (llama_cpp.llama_model_imatrix_data * (len(importance) + 1))()
    for entry, (name, values) in zip(entries, sorted(importance.items()), strict=False):
        entry.name, entry.size = name.encode("utf-8"), len(values)
        entry.data = (ctypes.c_float * len(values))(*values.tolist())
    return entries


def gguf_type(name: str) -> GgufType:
    """`name` as a type that a file of this pipeline can have; `ConfigError` if it is none."""
    for file_type in FILE_TYPES:
        if file_type == name:
            return file_type
    raise ConfigError(
        f"export: '{name}' is not a llama.cpp type; one of {', '.join(FILE_TYPES)}{did_you_mean(name, FILE_TYPES)}"
    )


def quant_type(name: str) -> QuantType:
    """`name` as a type that `quantize` makes; `ConfigError` if it is none."""
    match gguf_type(name):
        case "f32" | "f16" | "bf16":
            raise ConfigError(f"export.quants: '{name}' is what the converter writes; set export.outtype={name}")
        case quant:
            return quant


def check_file_type(gguf: Path, wanted: GgufType) -> None:
    """Raise `ModelError` when the file says that it is of another type than its name."""
    found = read_layout(gguf).metadata.get("general.file_type", "unknown")
    if found != FILE_TYPES[wanted]:
        names = [name for name, number in FILE_TYPES.items() if number == found]
        raise ModelError(f"{gguf}: it is of type {', '.join(names) or found}, not {wanted}; quantise it again")


def describe(gguf: Path, quant: QuantType) -> str:
    """One line: what types the tensors really have, and how many matrices could not have `quant`."""
    header = read_layout(gguf)
    types = ", ".join(f"{n} {name}" for name, n in sorted(Counter(t.type for t in header.tensors).items()))
    misfits = len(fallback_tensors(header, quant))
    note = f"; {misfits} fell back to another type: their rows are no multiple of {_block(quant)}" if misfits else ""
    return f"{gguf}: {types}{note}"


def n_fallback_tensors(gguf: Path, gguf_type: GgufType) -> int:
    """Weight matrices whose rows do not fit the blocks of the type, so that llama.cpp gave them another."""
    match gguf_type:
        case "f32" | "f16" | "bf16":
            return 0
        case quant:
            return len(fallback_tensors(read_layout(gguf), quant))


def fallback_tensors(header: Header, quant: QuantType) -> list[Tensor]:
    """The weight matrices whose rows do not fit the blocks of `quant`, so that llama.cpp gave them another type."""
    return [tensor for tensor in _matrices(header) if tensor.shape[0] % _block(quant) != 0]


def _check_source(source: Path, quant: QuantType) -> None:
    header = read_layout(source)
    matrices, misfits = _matrices(header), fallback_tensors(header, quant)
    if len(misfits) == len(matrices):
        rows = sorted({tensor.shape[0] for tensor in misfits})
        raise ModelError(
            f"export.quants: '{quant}' needs weight rows that are multiples of {_block(quant)}; those of {source} have "
            f"{', '.join(map(str, rows))}, so none of it would be {quant}; choose q8_0 or q4_0"
        )


def _matrices(header: Header) -> Sequence[Tensor]:
    return [tensor for tensor in header.tensors if len(tensor.shape) > 1]


def _block(quant: QuantType) -> int:
    """Weights that are stored together; a row holds a whole number of blocks."""
    return 32 if quant in ("q4_0", "q4_1", "q5_0", "q5_1", "q8_0", "iq4_nl") else 256


def _native(path: Path) -> bytes:
    return str(path).encode("utf-8")
