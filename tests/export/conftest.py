"""A tiny Llama with a tokenizer of its own, taken through the whole chain once per session. Imports nothing heavy."""

import struct
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tuneline.config.params import read_params
from tuneline.config.schema import LearningRates, LoraConfig, MethodConfig, ModelConfig, SourceConfig
from tuneline.config.schema.whole import Settings
from tuneline.data.records import Example, Message, make_example
from tuneline.export.card import Reports
from tuneline.export.commit import Commit
from tuneline.export.experiment import Experiment

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

TEMPLATE = (
    "{%- for message in messages %}{%- if message.role == 'assistant' %}{{- '<|im_start|>assistant\\n' }}"
    "{%- generation %}{{- message.content + '<|im_end|>' }}{%- endgeneration %}{{- '\\n' }}{%- else %}"
    "{{- '<|im_start|>' + message.role + '\\n' + message.content + '<|im_end|>\\n' }}{%- endif %}{%- endfor %}"
    "{%- if add_generation_prompt %}{{- '<|im_start|>assistant\\n' }}{%- endif %}"
)
EMBEDDED = {
    "name": "sqlama",
    "name_or_path": "models/base/sqlama",
    "tracked_path": "models/base/sqlama",
    "revision": None,
    "licence": "apache-2.0",
}
POOL = SourceConfig(
    name="pool",
    path="data/raw/text_to_sql/pool.jsonl",
    hub=None,
    format="auto",
    role="pool",
    columns={},
    system_prompt=None,
    task_prefix=None,
    weight=None,
    count=None,
)
TEXTS = (
    "SELECT name, age FROM people WHERE age > 30 ORDER BY name LIMIT 10;",
    "Which people are older than 30? How many are there, and what's their average age?",
    "Größe, naïve, Привет мир, 我想在東京, العربية 1234567890 \n\n\t  x = y_1 + 3.14",
)
# PEFT 0.21 asks for the old name of a property of Transformers 5.23
PEFT_WARNING = "ignore:.is_gradient_checkpointing. is deprecated:FutureWarning"


def save_tokenizer(folder: Path) -> None:
    """Byte-level BPE with GPT-2's split, ChatML tokens, no BOS: as the embedded base model has it."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    raw = Tokenizer(models.BPE())
    raw.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    raw.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=512,
        special_tokens=["<|pad|>", "<|im_start|>", "<|im_end|>"],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    raw.train_from_iterator(TEXTS * 2, trainer)
    tokenizer = PreTrainedTokenizerFast(  # type: ignore[no-untyped-call]  # Transformers leaves it untyped
        tokenizer_object=raw, eos_token="<|im_end|>", pad_token="<|pad|>"
    )
    tokenizer.chat_template = TEMPLATE
    tokenizer.save_pretrained(folder)


def save_model(folder: Path, seed: int, *, tied: bool, hidden_size: int = 256) -> None:
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=512,
        hidden_size=hidden_size,
        intermediate_size=2 * hidden_size,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=512,
        tie_word_embeddings=tied,
        bos_token_id=None,
        eos_token_id=2,
        pad_token_id=0,
        initializer_range=0.05,
    )
    LlamaForCausalLM(config).save_pretrained(folder)


def model_config(folder: Path) -> ModelConfig:
    """The folder as a base model; unchecked, because the schema wants paths inside the repository."""
    return ModelConfig.model_construct(
        name="tiny",
        name_or_path=str(folder),
        revision=None,
        sha256=None,
        tracked_path=str(folder),
        trust_remote_code=False,
        licence="apache-2.0",
        max_position_embeddings=512,
        max_served_context=None,
        chat_template_kwargs={},
        learning_rate=LearningRates(full=1.0e-3, adapter=3.0e-3),
    )


def header_bytes(metadata: dict[str, str], tensors: dict[str, tuple[int, ...]]) -> bytes:
    """The header of a GGUF, by the format's description: text values only, tensors in F16, no data."""

    def text(value: str) -> bytes:
        return struct.pack("<Q", len(value.encode())) + value.encode()

    pairs = [text(key) + struct.pack("<I", 8) + text(value) for key, value in metadata.items()]
    infos = [
        text(name) + struct.pack(f"<I{len(shape)}QIQ", len(shape), *shape, 1, 0) for name, shape in tensors.items()
    ]
    return b"GGUF" + struct.pack("<IQQ", 3, len(infos), len(pairs)) + b"".join(pairs) + b"".join(infos)


def experiment(**model: object) -> Experiment:
    """The embedded experiment, with another base model where `model` says so."""
    params = read_params(Path("params.yaml"))
    lora = LoraConfig(
        r=16,
        lora_alpha=32,
        lora_dropout=0.0,
        target_modules="all-linear",
        bias="none",
        use_dora=False,
        use_rslora=False,
    )
    sections = {name: getattr(params, name) for name in Settings.model_fields}
    # whatever params.yaml is at the moment, these are what the tests speak of
    fixed = {
        "seed": 42,
        "model": params.model.model_copy(update=EMBEDDED | model),
        "method": MethodConfig(name="lora", family="adapter"),
        "lora": lora,
        "data": params.data.model_copy(update={"name": "text_to_sql", "sources": (POOL,), "system_prompt": None}),
        "eval": params.eval.model_copy(update={"confidence": 0.95}),
        "export": params.export.model_copy(update={"n_ctx": 512, "verified": ("f16", "q8_0", "q4_k_m")}),
        "shipped": "q8_0",
        "commit": Commit("c0ffee" + 34 * "0", dirty=False),
    }
    return Experiment(**(sections | fixed))


def exporting(it: Experiment, **export: object) -> Experiment:
    """The experiment with other values in its section export."""
    return it.model_copy(update={"export": it.export.model_copy(update=export)})


def reports() -> Reports:
    def scores(prefix: str, executed: float, low: float, high: float, exact: float) -> dict[str, float]:
        return {
            f"{prefix}execution_accuracy": executed,
            f"{prefix}execution_accuracy_ci95_low": low,
            f"{prefix}execution_accuracy_ci95_high": high,
            f"{prefix}exact_match": exact,
            f"{prefix}exact_match_ci95_low": exact - 0.03,
            f"{prefix}exact_match_ci95_high": exact + 0.03,
        }

    def verified(size: float, bits: float, kl: float, p99: float, top1: float, drop: float) -> dict[str, float]:
        figures = {"size_mib": size, "bits_per_weight": bits, "kl_mean_nats": kl, "kl_p99_nats": p99}
        counts = {"top1_agreement": top1, "execution_accuracy_drop": drop, "n_examples": 600, "n_tokens": 2000}
        compared = {"perplexity": 1.31, "perplexity_ratio": 1.0123, "perplexity_ratio_se": 0.0021}
        ended = {"ended_fraction": 0.975, "ended_drop": 0.0, "n_compared_examples": 64, "n_fallback_tensors": 0}
        kinds = {"n_templates_compared": 6, "n_templates_refused": 2, "n_modelfile_compared": 6}
        p_value = {"execution_accuracy_drop_p_value": 0.25}
        return figures | counts | scores("", 0.86 - drop, 0.82, 0.876, 0.59) | compared | ended | kinds | p_value

    evaluated = scores("base_", 0.03, 0.015, 0.05, 0.02) | scores("tuned_", 0.86, 0.83, 0.885, 0.6)
    return Reports(
        ingest={"n_read": 5100, "n_rejected_by_format": 7, "n_rejected_by_reader": 0},
        clean={"n_kept": 4820, "n_rejected_by_near_duplicates": 90},
        split={"n_train": 4000, "n_val": 200, "n_test": 600, "n_rejected_by_contamination": 20},
        train={"train_loss_nats": 0.15, "n_steps": 250},
        evaluated=evaluated | {"base_perplexity": 9.5, "tuned_perplexity": 1.2, "n_examples": 600},
        merge={
            **{"relative_logit_diff": 2.1e-6, "n_tokens": 900, "size_mib": 15.0},
            **{"kl_mean_nats": 3e-12, "kl_p99_nats": 6e-11, "top1_agreement": 1.0},
        },
        merged=scores("", 0.86, 0.83, 0.885, 0.6)
        | {"execution_accuracy_drop": 0.0, "execution_accuracy_drop_p_value": 1.0, "ended_fraction": 0.98},
        verified={
            "f16": verified(16.4, 16.01, 1.6e-7, 1.1e-6, 1.0, 0.0),
            "q8_0": verified(8.7, 8.5, 7e-5, 1.2e-3, 0.995, 0.01),
            "q4_k_m": verified(4.9, 4.9, 9e-4, 2e-2, 0.97, 0.03),
        },
    )


def conversation(question: str, answer: str) -> Example:
    return make_example("test", 1, (Message("user", question), Message("assistant", answer)), None, {})


@pytest.fixture(scope="session")
def examples() -> list[Example]:
    return [conversation(f"{TEXTS[i % 3]} number {i}", f"SELECT {i} FROM t{i % 5}") for i in range(12)]


@pytest.fixture(scope="session")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("base")
    save_model(folder, 0, tied=True)
    save_tokenizer(folder)
    return folder


@pytest.fixture(scope="session")
def tokenizer(base: Path) -> "PreTrainedTokenizerBase":
    from tuneline.model.tokenizers import load_tokenizer_from

    return load_tokenizer_from(base)


@pytest.fixture(scope="session")
def adapter(base: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A LoRA of rank 4 on every linear layer, both of its matrices random."""
    folder = tmp_path_factory.mktemp("adapter")
    save_adapter(base, folder, r=4, lora_alpha=8, target_modules="all-linear")
    return folder


def save_adapter(base: Path, folder: Path, **settings: Any) -> None:
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    model = get_peft_model(AutoModelForCausalLM.from_pretrained(base), LoraConfig(task_type="CAUSAL_LM", **settings))
    torch.manual_seed(1)
    for name, weight in model.named_parameters():
        if "lora_magnitude" in name:  # DoRA's: near the norms that it starts from
            weight.data *= 1 + 0.1 * torch.rand_like(weight)
        elif "lora_" in name or "trainable_tokens" in name:
            torch.nn.init.normal_(weight, std=0.05)
    model.save_pretrained(str(folder))
    save_tokenizer(folder)


@pytest.fixture(scope="session")
def merged(base: Path, adapter: Path, rows: list[list[int]], tmp_path_factory: pytest.TempPathFactory) -> Path:
    from tuneline.export.merge import merge

    folder = tmp_path_factory.mktemp("merged")
    merge(adapter, model_config(base), "float32", folder, rows)
    return folder


@pytest.fixture(scope="session")
def rows(tokenizer: "PreTrainedTokenizerBase", examples: list[Example]) -> list[list[int]]:
    from tuneline.model.template import encode_conversation

    return [encode_conversation(tokenizer, example.messages).input_ids for example in examples[:3]]


@pytest.fixture(scope="session")
def f16(merged: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return convert_folder(merged, tmp_path_factory.mktemp("gguf") / "f16.gguf")


def convert_folder(folder: Path, out: Path) -> Path:
    from tuneline.export.gguf import convert
    from tuneline.export.llama_cpp import llama_cpp_folder
    from tuneline.model.tokenizers import load_tokenizer_from

    convert(folder, load_tokenizer_from(folder), out, outtype="f16", name="tiny", converter=llama_cpp_folder())
    return out
