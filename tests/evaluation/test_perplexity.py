"""Likelihoods agree with a plain computation, whatever the batch."""

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import pytest

from tuneline.data.records import Example, Message
from tuneline.evaluation.likelihood import Likelihood, answer_bytes, bits_per_byte, perplexity

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from tuneline.model.template import Encoded


def test_perplexity_sums_before_it_divides() -> None:
    rows = [Likelihood(2.0, 1, 4), Likelihood(4.0, 9, 12)]
    assert perplexity(rows) == pytest.approx(math.exp(6 / 10))


def test_bits_per_byte_is_nats_over_ln2_over_bytes() -> None:
    assert bits_per_byte([Likelihood(8 * math.log(2), 3, 4), Likelihood(0.0, 1, 12)]) == pytest.approx(0.5)


def test_bytes_count_answers_only_and_in_utf8() -> None:
    messages = [Message("user", "Wo?"), Message("assistant", "Köln"), Message("assistant", "ja")]
    assert answer_bytes(messages) == 5 + 2


@pytest.fixture
def conversations(tokenizer: "PreTrainedTokenizerBase", examples: Sequence[Example]) -> "list[Encoded]":
    from tuneline.model.template import encode_conversation

    return [encode_conversation(tokenizer, example.messages) for example in examples]


def likelihoods(model: "PreTrainedModel", conversations: "Sequence[Encoded]", batch_size: int) -> list[Likelihood]:
    from tuneline.evaluation.perplexity import answer_likelihoods

    return answer_likelihoods(model, conversations, [1] * len(conversations), 0, batch_size, "test")


@pytest.mark.slow
@pytest.mark.parametrize("batch_size", [1, 2, 8])
def test_likelihoods_equal_a_plain_log_softmax_over_the_answers(
    model: "PreTrainedModel", conversations: "list[Encoded]", batch_size: int
) -> None:
    import torch

    measured = likelihoods(model, conversations, batch_size)
    for row, conversation in zip(measured, conversations, strict=True):
        ids = torch.tensor(conversation.input_ids)
        with torch.inference_mode():
            logprobs = model(input_ids=ids[None]).logits[0].log_softmax(dim=-1)
        targets = [place for place, on in enumerate(conversation.loss_mask) if on]
        expected = -sum(float(logprobs[place - 1, ids[place]]) for place in targets)
        assert row.nll_nats == pytest.approx(expected, rel=1e-5)
        assert row.n_target_tokens == len(targets)


@pytest.mark.slow
def test_prompt_tokens_do_not_count(model: "PreTrainedModel", conversations: "list[Encoded]") -> None:
    from tuneline.model.template import Encoded

    whole = conversations[0]
    silent = Encoded(whole.input_ids, [0] * len(whole.input_ids))
    assert likelihoods(model, [silent, whole], 2)[0] == Likelihood(0.0, 0, 1)


@pytest.mark.slow
def test_a_model_that_knows_nothing_has_the_vocabulary_as_perplexity(
    model: "PreTrainedModel", conversations: "list[Encoded]"
) -> None:
    import torch

    with torch.no_grad():
        model.get_parameter("lm_head.weight").zero_()
    vocab_size = model.config.vocab_size
    assert perplexity(likelihoods(model, conversations, 4)) == pytest.approx(vocab_size, rel=1e-5)
