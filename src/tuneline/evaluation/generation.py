"""Greedy answers in batches: the same text for a prompt, whatever else is in its batch.

Shapes: B prompts in a batch, T tokens of the longest one; shorter ones are padded on the left, so that all
answers start at T.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from transformers import GenerationConfig, PreTrainedModel, PreTrainedTokenizerBase

from tuneline.evaluation.progress import in_batches


def decode_answer(tokenizer: PreTrainedTokenizerBase, answer_ids: Sequence[int]) -> str:
    """The text of generated tokens, without special tokens; white space as the model wrote it."""
    return str(tokenizer.decode(list(answer_ids), skip_special_tokens=True, clean_up_tokenization_spaces=False))


def generate_greedy_ids(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    prompts_ids: Sequence[Sequence[int]],
    max_new_tokens: int,
    batch_size: int,
    what: str,
) -> list[list[int]]:
    """Generated tokens per prompt, always the most likely one, up to and without the token that ends the answer.

    `what` labels the progress bar. Rounding depends on the batch: in 16-bit arithmetic two tokens of nearly equal
    probability may change places when `batch_size` does.
    """
    stops = stop_ids(model, tokenizer)
    # longest first: prompts of like length share a batch, and a batch too large for the memory is the first
    order = sorted(range(len(prompts_ids)), key=lambda index: -len(prompts_ids[index]))
    answers_ids: list[list[int]] = [[] for _ in prompts_ids]
    with _plain_greedy(model, tokenizer, stops, max_new_tokens), torch.inference_mode():
        for batch in in_batches(order, batch_size, what):
            prompts = [prompts_ids[index] for index in batch]
            for index, new_ids in zip(batch, _generate_batch(model, tokenizer, prompts), strict=True):
                answers_ids[index] = _before_stop(new_ids, stops)
    return answers_ids


def stop_ids(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> frozenset[int]:
    """Tokens that end an answer: the tokenizer's EOS, and those the model's generation_config adds (Gemma's
    <end_of_turn>, Llama's <|eom_id|>)."""
    configured = model.generation_config.eos_token_id
    more = configured if isinstance(configured, list) else [configured]
    return frozenset(token for token in (tokenizer.eos_token_id, *more) if token is not None)


@contextmanager
def _plain_greedy(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, stops: frozenset[int], max_new_tokens: int
) -> Iterator[None]:
    """Replace the model's generation settings for a while.

    Passing settings to `generate` would not do: what they leave open (temperature, repetition_penalty ...) is
    filled from the model's own generation_config.
    """
    own = model.generation_config
    model.generation_config = GenerationConfig(  # type: ignore[no-untyped-call]  # Transformers leaves it untyped
        do_sample=False,
        num_beams=1,
        max_new_tokens=max_new_tokens,
        eos_token_id=sorted(stops),
        pad_token_id=tokenizer.pad_token_id,
        use_cache=True,
    )
    try:
        yield
    finally:
        model.generation_config = own


def _generate_batch(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, prompts: Sequence[Sequence[int]]
) -> list[list[int]]:
    ids_BT, attention_mask_BT = left_padded(prompts, tokenizer.pad_token_id, model.device)
    generated_BT = model.generate(  # type: ignore[operator]  # torch types a module's attribute as a Tensor
        input_ids=ids_BT, attention_mask=attention_mask_BT
    )
    new_ids: list[list[int]] = generated_BT[:, ids_BT.shape[1] :].tolist()
    return new_ids


def left_padded(
    rows: Sequence[Sequence[int]], pad_token_id: int, device: torch.device
) -> tuple[torch.Tensor, torch.Tensor]:
    """Token ids and attention mask (1: token, 0: padding), both B x T."""
    width = max(len(row) for row in rows)
    ids_BT = [[pad_token_id] * (width - len(row)) + list(row) for row in rows]
    mask_BT = [[0] * (width - len(row)) + [1] * len(row) for row in rows]
    return torch.tensor(ids_BT, device=device), torch.tensor(mask_BT, device=device)


def _before_stop(new_ids: Sequence[int], stops: frozenset[int]) -> list[int]:
    end = next((place for place, token in enumerate(new_ids) if token in stops), len(new_ids))
    return list(new_ids[:end])
