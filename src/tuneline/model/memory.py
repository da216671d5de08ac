"""Does a training fit the device? Estimated from the architecture alone, before any weight is loaded."""

from dataclasses import asdict, dataclass
from typing import Any

import torch

from tuneline.config.schema import HardwareConfig, LoraConfig, MethodConfig, ModelConfig, QuantizationConfig
from tuneline.errors import BudgetError
from tuneline.model.loading import load_shape, training_dtype
from tuneline.model.methods import with_adapter

BYTES_PER_GIB = 2**30
# CUDA context, cuBLAS workspaces and the allocator's unused blocks: what nvidia-smi shows beyond the tensors
OVERHEAD_GIB = 1.0
# TRL's fused head projects tiles of so many tokens and words (trl 1.16: trl/kernels/chunked_logprob.py,
# TOKEN_CHUNK_SIZE; trl/trainer/utils.py, _CHUNKED_LOGPROB_CHUNK_SIZE)
LOGITS_TILE_TOKENS, LOGITS_TILE_WORDS = 4096, 32768


@dataclass(frozen=True, slots=True)
class ModelShape:
    """Sizes that decide the memory, in numbers of weights or features."""

    n_parameters: int  # of the base
    n_quantizable: int  # of them in the layers' linear maps: what bitsandbytes packs
    n_trainable: int
    n_layers: int
    hidden: int
    intermediate: int
    query: int  # heads * head_dim
    key_value: int  # key-value heads * head_dim
    n_heads: int
    vocab: int


@dataclass(frozen=True, slots=True)
class MemoryEstimate:
    """Bytes at the peak of a training step, by what they hold."""

    weights: float
    gradients: float
    optimizer: float
    activations: float
    logits: float

    @property
    def total_gib(self) -> float:
        """Everything, with the device's own overhead, in GiB."""
        tensors = self.weights + self.gradients + self.optimizer + self.activations + self.logits
        return tensors / BYTES_PER_GIB + OVERHEAD_GIB


def check_memory(
    model: ModelConfig,
    method: MethodConfig,
    lora: LoraConfig | None,
    quantization: QuantizationConfig | None,
    hardware: HardwareConfig,
    max_length_tokens: int,
) -> None:
    """Raise `BudgetError` when training cannot fit `hardware.memory_gib` (null: not checked)."""
    if hardware.memory_gib is None:
        return
    shape = model_shape(model, method, lora)
    estimate = estimate_memory(shape, method, quantization, hardware, max_length_tokens)
    if estimate.total_gib > hardware.memory_gib:
        raise BudgetError(_refusal(estimate, method, hardware, hardware.memory_gib, max_length_tokens))


def estimate_memory(
    shape: ModelShape,
    method: MethodConfig,
    quantization: QuantizationConfig | None,
    hardware: HardwareConfig,
    max_length_tokens: int,
) -> MemoryEstimate:
    """Peak memory of one step: weights + gradients + optimizer + activations + one tile of logits.

    Trained weights and their gradients are fp32 (4 bytes each); AdamW keeps two moments of 4 bytes, its 8-bit variant
    of 1 byte (Dettmers et al. 2022, arXiv:2110.02861). Logits exist for one tile at a time, in fp32.
    """
    n_tokens = hardware.micro_batch_size * max_length_tokens
    moments_bytes = 2 if hardware.optim == "paged_adamw_8bit" else 8
    return MemoryEstimate(
        weights=_weights_bytes(shape, method, quantization, hardware),
        gradients=4.0 * shape.n_trainable,
        optimizer=float(moments_bytes * shape.n_trainable),
        activations=_activation_bytes(shape, hardware, max_length_tokens) * n_tokens,
        logits=4.0 * min(n_tokens, LOGITS_TILE_TOKENS) * min(shape.vocab, LOGITS_TILE_WORDS),
    )


def model_shape(model: ModelConfig, method: MethodConfig, lora: LoraConfig | None) -> ModelShape:
    """Sizes of the model with its adapter, built on the meta device: shapes without memory.

    Raises `ModelError` for an architecture that is not known, or one that the adapter does not fit.
    """
    base = load_shape(model)
    n_parameters, n_quantizable = _count(base), _count_linear(base)
    with torch.device("meta"):
        adapted: Any = base if method.family == "full" else with_adapter(base, lora, None)
    text = base.config.get_text_config()
    # a config may leave head_dim out or null, and then means hidden / heads
    head_dim = text.to_dict().get("head_dim") or text.hidden_size // text.num_attention_heads
    return ModelShape(
        n_parameters=n_parameters,
        n_quantizable=n_quantizable,
        n_trainable=sum(p.numel() for p in adapted.parameters() if p.requires_grad),
        n_layers=text.num_hidden_layers,
        hidden=text.hidden_size,
        intermediate=text.intermediate_size,
        query=text.num_attention_heads * head_dim,
        key_value=text.num_key_value_heads * head_dim,
        n_heads=text.num_attention_heads,
        vocab=text.vocab_size,
    )


def _weights_bytes(
    shape: ModelShape, method: MethodConfig, quantization: QuantizationConfig | None, hardware: HardwareConfig
) -> float:
    """Base and adapter. In 4 bits a weight takes 0.5 byte and its block's scale 0.5 bit, or 0.127 bit with double
    quantisation (QLoRA, arXiv:2305.14314, section 3); embeddings, norms and head stay, in fp32. Full fine-tuning
    under autocast also holds a 16-bit copy of the linear maps."""
    adapter = 0 if method.family == "full" else 4 * shape.n_trainable
    if quantization is not None:
        scale_bits = 0.127 if quantization.bnb_4bit_use_double_quant else 0.5
        packed = shape.n_quantizable * (4 + scale_bits) / 8
        return packed + 4 * (shape.n_parameters - shape.n_quantizable) + adapter
    width = training_dtype(hardware, method.family).itemsize
    autocast = 2 * shape.n_quantizable if method.family == "full" and hardware.precision != "fp32" else 0
    return width * shape.n_parameters + autocast + adapter


def _activation_bytes(shape: ModelShape, hardware: HardwareConfig, max_length_tokens: int) -> float:
    """Bytes per token that the backward pass needs (the way of counting of Korthikanti et al. 2022,
    arXiv:2205.05198, section 4, for a layer with RMSNorm, grouped queries and a gated MLP):

    norms 2(4 + e)H, inputs of the projections 2eH, queries, keys, values and attention's output e(2Q + 2K), gate, up,
    their activation and product 4eI, with e bytes per number; eager attention adds its probabilities. Checkpointing
    keeps eH per layer and recomputes one layer at a time.
    """
    e = 4 if hardware.precision == "fp32" else 2
    norms = 2 * (4 + e) * shape.hidden
    attention = e * (2 * shape.query + 2 * shape.key_value)
    if hardware.attn_implementation == "eager":
        attention += (4 + 2 * e) * shape.n_heads * max_length_tokens
    layer = norms + 2 * e * shape.hidden + attention + 4 * e * shape.intermediate
    if hardware.gradient_checkpointing:
        return e * shape.hidden * shape.n_layers + layer
    return layer * shape.n_layers


def _count(model: torch.nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters())


def _count_linear(model: Any) -> int:
    """Weights of the linear maps except the output head, which bitsandbytes leaves alone."""
    head = model.get_output_embeddings()
    linear = (m for m in model.modules() if isinstance(m, torch.nn.Linear) and m is not head)
    return sum(module.weight.numel() for module in linear)


def _refusal(
    estimate: MemoryEstimate,
    method: MethodConfig,
    hardware: HardwareConfig,
    memory_gib: float,
    max_length_tokens: int,
) -> str:
    parts = ", ".join(f"{name} {n_bytes / BYTES_PER_GIB:.1f}" for name, n_bytes in asdict(estimate).items())
    return (
        f"hardware.memory_gib: {memory_gib:g}, but method {method.name} needs about {estimate.total_gib:.1f} GiB "
        f"({parts}, overhead {OVERHEAD_GIB:.1f}) at micro_batch_size {hardware.micro_batch_size} x max_length "
        f"{max_length_tokens}; {'; or '.join(_remedies(method, hardware))}"
    )


def _remedies(method: MethodConfig, hardware: HardwareConfig) -> list[str]:
    """What can still be changed, cheapest first."""
    possible = [
        (not hardware.gradient_checkpointing, "set hardware.gradient_checkpointing: true"),
        (hardware.micro_batch_size > 1, "lower hardware.micro_batch_size (the result stays the same)"),
        (hardware.optim != "paged_adamw_8bit", "set hardware.optim: paged_adamw_8bit"),
        (method.name == "full", "choose method=lora"),
        (method.name != "qlora", "choose method=qlora"),
    ]
    return [text for applies, text in possible if applies] or ["choose a smaller model, or larger hardware"]
