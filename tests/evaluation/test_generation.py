"""Greedy answers do not depend on the batch, on sampling settings, or on what follows the end."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import pytest

from tuneline.data.records import Example

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

pytestmark = pytest.mark.slow


@pytest.fixture
def prompts_ids(tokenizer: "PreTrainedTokenizerBase", examples: Sequence[Example]) -> list[list[int]]:
    from tuneline.model.template import encode_prompt

    return [encode_prompt(tokenizer, example.messages[:-1]) for example in examples]


def answers(
    model: "PreTrainedModel",
    tokenizer: "PreTrainedTokenizerBase",
    prompts_ids: list[list[int]],
    batch_size: int = 8,
) -> list[list[int]]:
    from tuneline.evaluation.generation import generate_greedy_ids

    return generate_greedy_ids(model, tokenizer, prompts_ids, 24, batch_size, "test")


def by_hand(model: "PreTrainedModel", prompt_ids: list[int], stops: Sequence[int], limit: int) -> list[int]:
    """One token at a time, without cache, padding or `generate`."""
    import torch

    ids, answer = list(prompt_ids), list[int]()
    with torch.inference_mode():
        while len(answer) < limit:
            token = int(model(input_ids=torch.tensor([ids])).logits[0, -1].argmax())
            if token in stops:
                break
            answer.append(token)
            ids.append(token)
    return answer


def test_answers_are_the_most_likely_tokens(
    model: "PreTrainedModel", tokenizer: "PreTrainedTokenizerBase", prompts_ids: list[list[int]]
) -> None:
    expected = [by_hand(model, ids, [tokenizer.eos_token_id], 24) for ids in prompts_ids]
    assert len({tuple(answer) for answer in expected}) > 1
    assert answers(model, tokenizer, prompts_ids) == expected


@pytest.mark.parametrize("batch_size", [1, 2, 3])
def test_batch_size_does_not_change_answers(
    model: "PreTrainedModel",
    tokenizer: "PreTrainedTokenizerBase",
    prompts_ids: list[list[int]],
    batch_size: int,
) -> None:
    assert answers(model, tokenizer, prompts_ids, batch_size) == answers(model, tokenizer, prompts_ids, 8)


def test_sampling_settings_of_the_model_do_not_leak_in(
    model: "PreTrainedModel", tokenizer: "PreTrainedTokenizerBase", prompts_ids: list[list[int]]
) -> None:
    plain = answers(model, tokenizer, prompts_ids)
    own = model.generation_config
    assert own is not None
    own.do_sample, own.temperature, own.top_p, own.top_k = True, 2.0, 0.5, 3
    own.repetition_penalty, own.no_repeat_ngram_size, own.suppress_tokens = 5.0, 2, [plain[0][0]]
    assert answers(model, tokenizer, prompts_ids) == plain
    assert model.generation_config is own


def test_an_answer_ends_before_any_stop_token_of_the_generation_config(
    model: "PreTrainedModel", tokenizer: "PreTrainedTokenizerBase", prompts_ids: list[list[int]]
) -> None:
    plain = answers(model, tokenizer, prompts_ids)
    stop = plain[0][5]
    assert model.generation_config is not None
    model.generation_config.eos_token_id = [tokenizer.eos_token_id, stop]
    stopped = answers(model, tokenizer, prompts_ids)
    assert stopped == [answer[: answer.index(stop)] if stop in answer else answer for answer in plain]
    assert len(stopped[0]) <= 5


def test_decoded_answers_hold_no_special_tokens(
    model: "PreTrainedModel", tokenizer: "PreTrainedTokenizerBase", prompts_ids: list[list[int]]
) -> None:
    from tuneline.evaluation.generation import decode_answer

    answer_ids = answers(model, tokenizer, prompts_ids)[0]
    with_pad = [tokenizer.pad_token_id, *answer_ids, tokenizer.eos_token_id]
    text = decode_answer(tokenizer, with_pad)
    assert "<|" not in text
    assert text == decode_answer(tokenizer, answer_ids)


# PEFT 0.21.2 asks for a property of Transformers that is to be removed in its version 6
@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")
def test_an_adapter_counts(
    model: "PreTrainedModel", tokenizer: "PreTrainedTokenizerBase", prompts_ids: list[list[int]]
) -> None:
    import torch
    from peft import LoraConfig, get_peft_model

    from tuneline.model.adapters import bare_model

    plain = answers(model, tokenizer, prompts_ids)
    torch.manual_seed(1)  # before the adapter is drawn
    adapted = get_peft_model(model, LoraConfig(r=2, target_modules=["q_proj"], init_lora_weights=False))
    assert answers(bare_model(adapted.eval()), tokenizer, prompts_ids) != plain


def test_progress_goes_to_stderr_as_plain_lines_in_a_pipe(
    model: "PreTrainedModel",
    tokenizer: "PreTrainedTokenizerBase",
    prompts_ids: list[list[int]],
    capsys: pytest.CaptureFixture[str],
) -> None:
    answers(model, tokenizer, prompts_ids, batch_size=2)
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("test: 5 of 5, ")
    assert err.endswith(" examples/s\n")
