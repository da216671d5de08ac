"""A tiny random Llama with a ChatML tokenizer, and examples for it; torch is imported when a test asks."""

from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tuneline.data.records import Example, Message, make_example

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

CHAT_TEMPLATE = (
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\\n' }}"
    "{% if message['role'] == 'assistant' %}"
    "{% generation %}{{ message['content'] + '<|im_end|>' }}{% endgeneration %}"
    "{% else %}{{ message['content'] + '<|im_end|>' }}{% endif %}{{ '\\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
)  # fmt: skip
SCRIPT = "CREATE TABLE singer (name TEXT, age INTEGER); INSERT INTO singer VALUES ('Ann', 30), ('Bo', 41);"


def example(question: str, answer: str, line: int = 1) -> Example:
    messages = (Message("user", question), Message("assistant", answer))
    return make_example("test", line, messages, None, {"database": "concerts"})


@pytest.fixture(scope="session")
def examples() -> list[Example]:
    return [
        example("How many singers are there?", "SELECT count(*) FROM singer", 1),
        example("Names?", "SELECT name FROM singer", 2),
        example("Who is older than 40? " * 4, "SELECT name FROM singer WHERE age > 40", 3),
        example("Ages, oldest first", "SELECT age FROM singer ORDER BY age DESC", 4),
        example("x", "SELECT 1", 5),
    ]


@pytest.fixture(scope="session")
def model_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny model as a folder on disk, as training and merging leave one."""
    folder = tmp_path_factory.mktemp("tiny_llama")
    tokenizer = _tokenizer()
    tokenizer.save_pretrained(folder)
    _model(len(tokenizer), tokenizer.eos_token_id, tokenizer.pad_token_id).save_pretrained(folder)
    return folder


@pytest.fixture
def tokenizer(model_folder: Path) -> "PreTrainedTokenizerBase":
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(model_folder)


@pytest.fixture
def model(model_folder: Path) -> "PreTrainedModel":
    from transformers import AutoModelForCausalLM

    return AutoModelForCausalLM.from_pretrained(model_folder)  # from_pretrained leaves it in eval mode


def _tokenizer() -> "PreTrainedTokenizerBase":
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bpe.decoder = decoders.ByteLevel()
    special = ["<|pad|>", "<|im_start|>", "<|im_end|>"]
    trainer = trainers.BpeTrainer(
        vocab_size=300,
        special_tokens=special,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    bpe.train_from_iterator(["SELECT name FROM singer WHERE age > 30"] * 5, trainer)
    tokenizer = PreTrainedTokenizerFast(  # type: ignore[no-untyped-call]  # Transformers leaves it untyped
        tokenizer_object=bpe, pad_token="<|pad|>", eos_token="<|im_end|>"
    )
    tokenizer.chat_template = CHAT_TEMPLATE
    return tokenizer


def _model(vocab_size: int, eos_token_id: int, pad_token_id: int) -> "PreTrainedModel":
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=vocab_size,
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=256,
        initializer_range=0.5,  # large: answers then depend on the prompt
        eos_token_id=eos_token_id,
        pad_token_id=pad_token_id,
        bos_token_id=None,
    )
    return LlamaForCausalLM(config)
