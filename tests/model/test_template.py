"""The chat template: which tokens a conversation has, and which of them are trained."""

from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from tuneline.data.records import Message
from tuneline.errors import ModelError

pytestmark = pytest.mark.slow

TURNS = (
    Message("system", "Be brief."),
    Message("user", "How many?"),
    Message("assistant", "Three."),
    Message("user", "Sure?"),
    Message("assistant", "Yes, three."),
)


def loaded(tiny: ModuleType, folder: Path, **settings: Any) -> Any:
    from tuneline.model.loading import load_tokenizer_from

    tiny.save_tokenizer(folder, **settings)
    return load_tokenizer_from(folder)


def trained_text(tokenizer: Any, messages: tuple[Message, ...]) -> list[str]:
    """The trained runs, as text."""
    from itertools import groupby

    from tuneline.model.template import encode_conversation

    encoded = encode_conversation(tokenizer, messages)
    pairs = zip(encoded.input_ids, encoded.loss_mask, strict=True)
    runs = [(mask, [token for token, _ in run]) for mask, run in groupby(pairs, key=lambda pair: pair[1])]
    return [tokenizer.decode(ids) for mask, ids in runs if mask]


@pytest.mark.parametrize("template", ["CHATML_MARKED", "CHATML"])
def test_loss_is_on_the_answers_and_their_end_token_and_nothing_else(
    tiny: ModuleType, tmp_path: Path, template: str
) -> None:
    tokenizer = loaded(tiny, tmp_path, template=getattr(tiny, template))
    assert trained_text(tokenizer, TURNS) == ["Three.<|im_end|>", "Yes, three.<|im_end|>"]


def test_marks_and_prefixes_agree_on_every_token(tiny: ModuleType, tmp_path: Path) -> None:
    from tuneline.model.template import encode_conversation

    marked = loaded(tiny, tmp_path / "marked", template=tiny.CHATML_MARKED)
    plain = loaded(tiny, tmp_path / "plain", template=tiny.CHATML)
    assert encode_conversation(marked, TURNS) == encode_conversation(plain, TURNS)


def test_prompt_tokens_are_the_beginning_of_the_conversations(tiny: ModuleType, tmp_path: Path) -> None:
    from tuneline.model.template import encode_conversation, encode_prompt

    tokenizer = loaded(tiny, tmp_path)
    prompt, encoded = encode_prompt(tokenizer, TURNS[:-1]), encode_conversation(tokenizer, TURNS)
    assert encoded.input_ids[: len(prompt)] == prompt
    assert tokenizer.decode(prompt).endswith("Sure?<|im_end|>\n<|im_start|>assistant\n")
    assert tokenizer.decode(encoded.input_ids[len(prompt) :]) == "Yes, three.<|im_end|>\n"


def test_a_template_that_rewrites_earlier_answers_is_refused(tiny: ModuleType, tmp_path: Path) -> None:
    from tuneline.model.template import encode_conversation

    # as Qwen3 does with thoughts: only the last answer keeps them
    rewriting = tiny.CHATML.replace(
        "{{ message['content']",
        "{% if loop.last and message['role'] == 'assistant' %}{{ '(final) ' }}{% endif %}{{ message['content']",
    )
    tokenizer = loaded(tiny, tmp_path, template=rewriting)
    with pytest.raises(ModelError, match="message 3 of 5 in another way once more follow"):
        encode_conversation(tokenizer, TURNS)


def test_a_bos_written_by_the_template_is_there_once(tiny: ModuleType, tmp_path: Path) -> None:
    from tuneline.model.template import encode_conversation, encode_prompt

    tokenizer = loaded(tiny, tmp_path, add_bos=True, template="{{ bos_token }}" + tiny.CHATML_MARKED)
    ids = encode_conversation(tokenizer, TURNS).input_ids
    assert ids[0] == tokenizer.bos_token_id
    assert ids.count(tokenizer.bos_token_id) == 1
    assert encode_prompt(tokenizer, TURNS[:2]).count(tokenizer.bos_token_id) == 1


def test_a_double_bos_is_refused(tiny: ModuleType, tmp_path: Path) -> None:
    from tuneline.model.template import encode_conversation

    tokenizer = loaded(tiny, tmp_path, add_bos=True, template="{{ bos_token + bos_token }}" + tiny.CHATML_MARKED)
    with pytest.raises(ModelError, match="starts with '<s>' twice"):
        encode_conversation(tokenizer, TURNS)


@pytest.mark.parametrize("add_bos", [False, True])
def test_a_text_has_the_tokenizers_bos_and_one_eos(tiny: ModuleType, tmp_path: Path, add_bos: bool) -> None:
    from tuneline.model.template import encode_text

    tokenizer = loaded(tiny, tmp_path, add_bos=add_bos)
    ids = encode_text(tokenizer, "SELECT 1;")
    assert tokenizer.decode(ids) == ("<s>" if add_bos else "") + "SELECT 1;<|im_end|>"


def test_special_tokens_spelled_out_in_a_text_are_found(tiny: ModuleType, tmp_path: Path) -> None:
    from tuneline.model.template import special_tokens_in

    tokenizer = loaded(tiny, tmp_path)
    assert special_tokens_in(tokenizer, ["a", "b <|im_end|><|im_start|>system"]) == ["<|im_end|>", "<|im_start|>"]
    assert special_tokens_in(tokenizer, ["1 < 2 |> im_end"]) == []
