"""What a conversation trains must be its answer and an end, behind the prompt that serving will render."""

from collections.abc import Sequence

from transformers import PreTrainedTokenizerBase

from tuneline.data.records import Example, ToolCall
from tuneline.errors import DataError, ModelError
from tuneline.model.template import encode_prompt
from tuneline.training.tokens import IGNORED, TokenRow


def check_answer(
    tokenizer: PreTrainedTokenizerBase, example: Example, row: TokenRow, stop_token_ids: Sequence[int]
) -> None:
    """Raise `DataError` for a row without a target, `ModelError` where the chat template would train something else."""
    _check_targets(row, stop_token_ids)
    _check_says_the_answer(tokenizer, example, row, stop_token_ids)
    _check_served_alike(tokenizer, example, row)


def _check_targets(row: TokenRow, stop_token_ids: Sequence[int]) -> None:
    targets = [label for label in row.labels if label != IGNORED]
    if not targets:
        raise DataError(
            f"row {row.id}: no token would be trained; it has no assistant message, or the chat template's "
            "{% generation %} block leaves the answer out"
        )
    if targets[-1] not in stop_token_ids:
        raise ModelError(
            f"row {row.id}: the last trained token is {targets[-1]}, none of the model's end tokens "
            f"{list(stop_token_ids)}, so it would never learn to stop; put the end token inside the chat template's "
            "{% generation %} block, or set eos_token_id in generation_config.json"
        )


def _check_says_the_answer(
    tokenizer: PreTrainedTokenizerBase, example: Example, row: TokenRow, stop_token_ids: Sequence[int]
) -> None:
    """The last answer's targets must be its content and what ends a turn: nothing of the template's own.

    Calls of tools follow the content in the model's own way of writing them; each must be named there.
    """
    ids = row.input_ids[_start_of_last_answer(row) : _end_of_last_answer(row)]
    trained = _without_end(tokenizer, ids, stop_token_ids)
    answer = example.messages[-1]
    # through the tokenizer, which may normalise: é as one character or as two
    expected = _decoded(tokenizer, tokenizer(answer.content.strip(), add_special_tokens=False, verbose=False).input_ids)
    says_it = trained == expected
    if answer.tool_calls:
        says_it = trained.startswith(expected) and _names_calls(trained.removeprefix(expected), answer.tool_calls)
    if not says_it:
        raise ModelError(
            f"row {row.id}: the chat template changes the answer: {_beginning(trained)} would be trained where the "
            f"row says {_beginning(expected)}; set what switches that off in model.chat_template_kwargs (Qwen3: "
            "enable_thinking: false), or mark the answer alone with {% generation %} in the template"
        )


def _names_calls(text: str, calls: Sequence[ToolCall]) -> bool:
    """True when every call's name stands in the text, in their order."""
    for call in calls:
        _, found, text = text.partition(call.name)
        if not found:
            return False
    return True


def _without_end(tokenizer: PreTrainedTokenizerBase, ids: Sequence[int], stop_token_ids: Sequence[int]) -> str:
    """Text of an answer's tokens up to those that end it, without white space around."""
    ends = {*stop_token_ids, *tokenizer.all_special_ids}
    kept = list(ids)
    while kept and (kept[-1] in ends or not _decoded(tokenizer, kept[-1:])):
        kept.pop()
    return _decoded(tokenizer, kept)


def _decoded(tokenizer: PreTrainedTokenizerBase, ids: Sequence[int]) -> str:
    return str(tokenizer.decode(list(ids), clean_up_tokenization_spaces=False)).strip()


def _beginning(text: str) -> str:
    return repr(text if len(text) <= 40 else f"{text[:40]}...")


def _check_served_alike(tokenizer: PreTrainedTokenizerBase, example: Example, row: TokenRow) -> None:
    """The prompt that generation renders must be what stands before the answer in training."""
    prompt = encode_prompt(tokenizer, example.messages[:-1], example.tools)
    if row.input_ids[: _start_of_last_answer(row)] != prompt:
        raise ModelError(
            f"row {row.id}: the chat template renders the prompt for generation in another way than in training; "
            "make add_generation_prompt and the assistant branch of the template agree"
        )


def _start_of_last_answer(row: TokenRow) -> int:
    """Position of the first token of the last trained run; one always exists, and never at 0."""
    before = row.labels[: _end_of_last_answer(row) - 1]
    return 1 + max(t for t, label in enumerate(before) if label == IGNORED)


def _end_of_last_answer(row: TokenRow) -> int:
    """Position behind the last trained token."""
    return 1 + max(t for t, label in enumerate(row.labels) if label != IGNORED)
