"""A method and the sections that it needs: the adapter, and the quantised base."""

import re
from collections.abc import Iterator

from tuneline.config.rules.wording import refused
from tuneline.config.schema import Dtype, LoraConfig, Params, Precision

# Where architectures have their embeddings, and how PEFT names modules.
_EMBEDDINGS = ("lm_head", "model.embed_tokens")
_DTYPES: dict[Precision, Dtype] = {"fp32": "float32", "bf16": "bfloat16", "fp16": "float16"}


def method_rules(params: Params) -> Iterator[str]:
    name, lora = params.method.name, params.lora
    expected = "full" if name == "full" else "adapter"
    if params.method.family != expected:
        yield refused("method.family", params.method.family, f"with method {name} is {expected}")
    if name == "full" and lora is not None:
        yield "lora: set, allowed with method full is null; choose method=lora to train an adapter"
    if name != "full" and lora is None:
        yield f"lora: null, method {name} needs it; choose method=full to train without an adapter"
    if lora is not None:
        yield from _variants(name, lora)
        yield from _adapted_modules(lora.target_modules)


def _variants(name: str, lora: LoraConfig) -> Iterator[str]:
    """The method's name has to say what is trained; qlora may be combined with both variants."""
    for key, value, method in (
        ("use_dora", lora.use_dora, "dora"),
        ("use_rslora", lora.use_rslora, "rslora"),
    ):
        if name == method and not value:
            yield refused(f"lora.{key}", value, f"with method {name} is true; choose method=lora")
        if name == "lora" and value:
            yield refused(f"lora.{key}", value, f"with method lora is false; choose method={method}")


def _adapted_modules(targets: str | tuple[str, ...]) -> Iterator[str]:
    """A changed embedding does not survive the way to a GGUF: tied ones are one matrix there."""
    try:
        taken = [name for name in _EMBEDDINGS if _is_target(name, targets)]
    except re.error as error:
        yield refused("lora.target_modules", targets, f"is all-linear, a list or a regular expression: {error}")
        return
    if taken:
        allowed = f"leaves {' and '.join(taken)} out, which the merged model cannot hold; choose all-linear"
        yield refused("lora.target_modules", targets, allowed)


def _is_target(module: str, targets: str | tuple[str, ...]) -> bool:
    """As PEFT decides it: a regular expression for the whole name, or names of which one is its end."""
    if isinstance(targets, str):
        return re.fullmatch(targets, module) is not None
    return any(module == target or module.endswith(f".{target}") for target in targets)


def quantization_rules(params: Params) -> Iterator[str]:
    name, quantization, precision = params.method.name, params.quantization, params.hardware.precision
    if quantization is None:
        if name == "qlora":
            yield "quantization: null, method qlora needs it; choose method=lora for a base in 16 or 32 bits"
        return
    if name != "qlora":
        yield f"quantization: set, allowed with method {name} is null; choose method=qlora"
    if params.hardware.device == "mps":
        yield "hardware.device: 'mps', allowed with method qlora is cuda or cpu; choose method=lora"
    if quantization.bnb_4bit_compute_dtype != _DTYPES[precision]:
        allowed = f"with hardware.precision {precision} is {_DTYPES[precision]}"
        yield refused("quantization.bnb_4bit_compute_dtype", quantization.bnb_4bit_compute_dtype, allowed)
