"""A random model and a byte-level tokenizer, built in a second: small enough to train for real in a test."""

from pathlib import Path
from typing import Any

from tuneline.config.schema import (
    HardwareConfig,
    LearningRates,
    LoraConfig,
    MethodConfig,
    ModelConfig,
    PhaseConfig,
    TrainConfig,
)

SPECIAL = ("<|pad|>", "<|im_start|>", "<|im_end|>", "<s>")
CHATML = (
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\\n' }}"
    "{{ message['content'] + '<|im_end|>\\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
)
CHATML_MARKED = (
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\\n' }}"
    "{% if message['role'] == 'assistant' %}"
    "{% generation %}{{ message['content'] + '<|im_end|>' }}{% endgeneration %}{{ '\\n' }}"
    "{% else %}{{ message['content'] + '<|im_end|>\\n' }}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
)
CHATML_WITH_TOOLS = (
    "{% if tools %}{{ '<|im_start|>system\\n' + tools | tojson + '<|im_end|>\\n' }}{% endif %}"
    + CHATML_MARKED.replace(
        "{% generation %}{{ message['content'] + '<|im_end|>' }}",
        "{% generation %}{{ message['content'] }}{% for call in message.tool_calls or [] %}"
        "{{ '<call>' + call.function.name + ' ' + call.function.arguments | tojson + '</call>' }}{% endfor %}"
        "{{ '<|im_end|>' }}",
    )
)
CORPUS = [
    "SELECT name FROM people WHERE age > 30 ORDER BY name;",
    "How many people are there? What is their average age?",
    "CREATE TABLE people (name TEXT, age INTEGER);",
]


def raw_tokenizer(add_bos: bool) -> Any:
    """Byte-level BPE over all bytes; with `add_bos` it writes <s> itself, as Llama's and Gemma's do."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    trainer = trainers.BpeTrainer(
        vocab_size=320, special_tokens=list(SPECIAL), initial_alphabet=alphabet, show_progress=False
    )
    tokenizer.train_from_iterator(CORPUS * 3, trainer)
    if add_bos:
        bos = [("<s>", tokenizer.token_to_id("<s>"))]
        tokenizer.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=bos)
    return tokenizer


def save_tokenizer(
    folder: Path,
    *,
    template: str | None = CHATML_MARKED,
    pad: str | None = "<|pad|>",
    eos: str | None = "<|im_end|>",
    add_bos: bool = False,
) -> None:
    from transformers import PreTrainedTokenizerFast

    fast: Any = PreTrainedTokenizerFast  # untyped in Transformers
    tokenizer = fast(
        tokenizer_object=raw_tokenizer(add_bos),
        pad_token=pad,
        eos_token=eos,
        bos_token="<s>" if add_bos else None,
        additional_special_tokens=["<|im_start|>"],
        clean_up_tokenization_spaces=False,
    )
    tokenizer.chat_template = template
    tokenizer.save_pretrained(folder)


def save_model(folder: Path, architecture: str = "llama", seed: int = 0) -> None:
    """Random weights: hidden 64, 2 layers. `sliding` is a Llama-like model that looks back 8 tokens only."""
    import torch
    from transformers import AutoModelForCausalLM, GenerationConfig, LlamaConfig, MistralConfig, Qwen2Config

    torch.manual_seed(seed)
    shape: dict[str, Any] = {
        "vocab_size": 320,
        "hidden_size": 64,
        "intermediate_size": 128,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": 512,
        "tie_word_embeddings": True,
        "bos_token_id": None,
        "eos_token_id": 2,
        "pad_token_id": 0,
        "initializer_range": 0.1,
    }
    configs: dict[str, Any] = {
        "llama": lambda: LlamaConfig(**shape),
        "qwen2": lambda: Qwen2Config(**shape),
        "sliding": lambda: MistralConfig(**shape, sliding_window=8),
    }
    auto: Any = AutoModelForCausalLM
    model = auto.from_config(configs[architecture]())
    generation: Any = GenerationConfig
    model.generation_config = generation(eos_token_id=2, pad_token_id=0)
    model.save_pretrained(folder)


def save_base(folder: Path, **tokenizer: Any) -> Path:
    save_model(folder)
    save_tokenizer(folder, **tokenizer)
    return folder


def model_config(folder: Path, revision: str | None = None, kwargs: dict[str, Any] | None = None) -> ModelConfig:
    """The folder as a base model; unchecked, because the schema wants paths inside the repository."""
    return ModelConfig.model_construct(
        name="tiny",
        name_or_path=str(folder),
        revision=revision,
        sha256=None,
        tracked_path=str(folder),
        trust_remote_code=False,
        licence="apache-2.0",
        max_position_embeddings=512,
        max_served_context=None,
        chat_template_kwargs=kwargs or {},
        learning_rate=LearningRates(full=1.0e-3, adapter=3.0e-3),
    )


def hardware(**changed: Any) -> HardwareConfig:
    values: dict[str, Any] = {
        "name": "cpu",
        "device": "cpu",
        "memory_gib": None,
        "num_devices": 1,
        "precision": "fp32",
        "attn_implementation": "sdpa",
        "micro_batch_size": 4,
        "eval_batch_size": 4,
        "gradient_checkpointing": False,
        "optim": "adamw_torch",
    }
    return HardwareConfig(**{**values, **changed})


def lora(**changed: Any) -> LoraConfig:
    values: dict[str, Any] = {
        "r": 4,
        "lora_alpha": 8.0,
        "lora_dropout": 0.0,
        "target_modules": "all-linear",
        "bias": "none",
        "use_dora": False,
        "use_rslora": False,
    }
    return LoraConfig(**{**values, **changed})


LORA = MethodConfig(name="lora", family="adapter")
FULL = MethodConfig(name="full", family="full")


def phase(**changed: Any) -> PhaseConfig:
    values: dict[str, Any] = {
        "objective": "sft",
        "init": "models/base/tiny",
        "num_train_epochs": 1.0,
        "max_steps": -1,
        "learning_rate": 3.0e-3,
        "max_length": 64,
        "packing": False,
    }
    return PhaseConfig(**{**values, **changed})


def settings(**changed: Any) -> TrainConfig:
    values: dict[str, Any] = {
        "global_batch_size": 4,
        "lr_scheduler_type": "constant",
        "warmup_ratio": 0.0,
        "weight_decay": 0.0,
        "adam_beta1": 0.9,
        "adam_beta2": 0.999,
        "max_grad_norm": 1.0,
        "logging_steps": 1,
        "eval_steps": 2,
        "save_steps": 100,
        "save_total_limit": 2,
        "unfinished_kept": 2,
        "unfinished_max_gib": 1.0,
        "early_stopping_patience": None,
        "max_truncated_fraction": 0.0,
    }
    return TrainConfig(**{**values, **changed})
