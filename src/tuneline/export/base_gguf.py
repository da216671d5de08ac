"""The base model as a GGUF of its own, which adapters are put onto while it serves.

Nothing of an adapter goes into it: every adapter of one base finds the same bytes.
"""

import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from tuneline.config.schema import Dtype, GgufType, ModelConfig, OutType
from tuneline.export.gguf import convert
from tuneline.export.merge import round_weights, torch_dtype, write_model
from tuneline.export.quantize import quantize
from tuneline.export.reference import REFERENCE
from tuneline.export.room import check_room
from tuneline.model.loading import load_base, load_shape
from tuneline.model.tokenizers import load_tokenizer
from tuneline.output import scratch_folder

_BITS: Mapping[OutType, float] = {"f32": 32.0, "f16": 16.0, "bf16": 16.0}
_MOST_QUANT_BITS = 8.5  # q8_0


def convert_base(base: ModelConfig, out: Path, gguf_type: GgufType, *, outtype: OutType, converter: Path) -> int:
    """Write `base` with the tokenizer that training takes as `out`; a quant is made of a file of type `outtype`.

    Returns the number of strings on which the tokenizers agree. Raises as `convert` does.
    """
    tokenizer = load_tokenizer(base)
    with _as_folder(base, tokenizer, out, _file_bits(gguf_type, outtype)) as folder:
        match gguf_type:
            case "f32" | "f16" | "bf16":
                return convert(folder, tokenizer, out, outtype=gguf_type, name=base.name, converter=converter)
            case quant:
                whole = folder / f"{outtype}.gguf"
                n_texts = convert(folder, tokenizer, whole, outtype=outtype, name=base.name, converter=converter)
                quantize(whole, out, quant)
                return n_texts


def _file_bits(gguf_type: GgufType, outtype: OutType) -> float:
    """Per weight, of all files that lie there at once: beside a quant the one that it is made of."""
    match gguf_type:
        case "f32" | "f16" | "bf16":
            return _BITS[gguf_type]
        case _:
            return _BITS[outtype] + _MOST_QUANT_BITS


@contextmanager
def _as_folder(base: ModelConfig, tokenizer: PreTrainedTokenizerBase, out: Path, file_bits: float) -> Iterator[Path]:
    """A model folder beside `out`, as Transformers writes it now; removed at the end.

    Raises `EnvironmentProblem` when the disk has no room for it and files of `file_bits` per weight.
    """
    # Before the minutes that loading a large base takes. In the type of config.json, as it is written in no wider one.
    check_room(out, _needed_bytes(load_shape(base), file_bits))
    model = load_base(base, REFERENCE, None)
    round_weights(model, _smallest_exact(model))
    check_room(out, _needed_bytes(model, file_bits))  # again: its files may be of more bits than config.json says
    with scratch_folder(out) as scratch:
        folder = scratch / "base"  # the converter writes its name into the file
        write_model(model, tokenizer, base, folder)
        del model  # before the converter starts
        yield folder


def _needed_bytes(model: PreTrainedModel, file_bits: float) -> int:
    """The folder of the model as it is, and those files."""
    return math.ceil(model.num_parameters() * (model.dtype.itemsize + file_bits / 8))


def _smallest_exact(model: PreTrainedModel) -> Dtype:
    """The type that holds every weight as it is: for a base published in 16 bits, those."""
    choices: tuple[Dtype, ...] = ("bfloat16", "float16")
    return next((dtype for dtype in choices if _holds(model, torch_dtype(dtype))), "float32")


def _holds(model: PreTrainedModel, dtype: torch.dtype) -> bool:
    return all(torch.equal(weight.to(dtype).to(weight.dtype), weight) for weight in model.parameters())
