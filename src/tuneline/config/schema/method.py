"""Which weights are trained, and how the frozen ones are held."""

from typing import Annotated, Literal

from pydantic import PlainValidator

from tuneline.config.schema.section import BelowOne, Count, Dtype, Positive, Strict

MethodName = Literal["full", "lora", "qlora", "dora", "rslora"]
Family = Literal["full", "adapter"]


def _text(value: object) -> str:
    if isinstance(value, str) and value:
        return value
    raise ValueError("a list of module names such as [q_proj, v_proj]")


def _target_modules(value: object) -> str | tuple[str, ...]:
    match value:
        case str() if value:
            return value
        case [_, *_]:
            return tuple(_text(name) for name in value)
    raise ValueError("all-linear, a regular expression, or a list of module names such as [q_proj, v_proj]")


TargetModules = Annotated[str | tuple[str, ...], PlainValidator(_target_modules)]


class MethodConfig(Strict):
    """Which weights are trained."""

    name: MethodName
    family: Family  # full: the phase gives a whole model; adapter: a PEFT folder


class LoraConfig(Strict):
    """Low-rank adapter, in PEFT's words."""

    r: Count  # rank
    lora_alpha: Positive  # the update is scaled by lora_alpha / r (rslora: / sqrt(r))
    lora_dropout: BelowOne  # fraction of adapter inputs zeroed in training
    target_modules: TargetModules  # all-linear, a regular expression, or module names
    bias: Literal["none", "all", "lora_only"]  # which biases are trained
    use_dora: bool  # weight-decomposed adapter
    use_rslora: bool  # rank-stabilised scaling


class QuantizationConfig(Strict):
    """The frozen base in 4 bits (bitsandbytes), in Transformers' words."""

    load_in_4bit: Literal[True]
    bnb_4bit_quant_type: Literal["nf4", "fp4"]
    bnb_4bit_use_double_quant: bool  # quantise the block scales as well
    bnb_4bit_compute_dtype: Dtype  # type that matrix products run in
