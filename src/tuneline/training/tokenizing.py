"""From examples to the very tokens and targets that training sees: made once, checked."""

import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from itertools import islice

from transformers import PreTrainedTokenizerBase

from tuneline.config.schema import Objective
from tuneline.data.records import Example, Json, Rejected, contents, rejection
from tuneline.errors import DataError, ModelError
from tuneline.model.template import encode_conversation, encode_text, special_tokens_in, tools_problem
from tuneline.training.answer_checks import check_answer
from tuneline.training.tokenized import SPECIAL_TOKEN, TOO_LONG, TOOLS, Tokenized, used_kind
from tuneline.training.tokens import IGNORED, TokenRow

_EXAMPLES_AT_ONCE = 256


def tokenize(
    tokenizer: PreTrainedTokenizerBase,
    examples: Iterable[Example],
    objective: Objective,
    max_length_tokens: int,
    stop_token_ids: Sequence[int],
) -> Tokenized:
    """Tokens and targets of the examples that the objective uses: conversations (sft) or texts (pretrain).

    Other kinds of rows are counted. A conversation longer than `max_length_tokens` is left out, never trained half,
    and so is one whose tools the chat template does not show; a text is cut into rows that overlap by one token, so
    that each of its tokens but the first is a target once. Raises `ModelError` or `DataError`, with the row's
    source:line, for a row that would train no token, teach no end, or start with two BOS.
    """
    tokenized = Tokenized()
    used = used_kind(objective)
    for example in examples:
        if example.kind != used:
            tokenized.unused[example.kind] += 1
            continue
        match objective:
            case "sft":
                _add_conversation(tokenized, tokenizer, example, max_length_tokens, stop_token_ids)
            case "pretrain":
                _add_text(tokenized, tokenizer, example, max_length_tokens)
    return tokenized


def in_pieces(examples: Iterable[Example], tokenized: Callable[[list[Example]], Tokenized]) -> Iterator[Tokenized]:
    """The examples tokenized some hundred at a time, in their order."""
    rest = iter(examples)
    while piece := list(islice(rest, _EXAMPLES_AT_ONCE)):
        yield tokenized(piece)


def _add_conversation(
    tokenized: Tokenized,
    tokenizer: PreTrainedTokenizerBase,
    example: Example,
    max_length_tokens: int,
    stop_token_ids: Sequence[int],
) -> None:
    if problem := _conversation_problem(tokenizer, example):
        tokenized.left_out.append(problem)
        return
    with _located(example.place):
        encoded = encode_conversation(tokenizer, example.messages, example.tools)
        row = _row(example.id, encoded.input_ids, encoded.loss_mask)
        check_answer(tokenizer, example, row, stop_token_ids)
    if len(row.input_ids) > max_length_tokens:
        reason = f"{len(row.input_ids)} tokens, max_length is {max_length_tokens}"
        tokenized.left_out.append(rejection(example, "inspect", TOO_LONG, reason))
    else:
        tokenized.rows.append(row)


def _conversation_problem(tokenizer: PreTrainedTokenizerBase, example: Example) -> Rejected | None:
    if names := special_tokens_in(tokenizer, [*contents(example), *_tool_texts(example)]):
        reason = f"contains {', '.join(names)}, which the model reads as the start or end of a turn"
        return rejection(example, "inspect", SPECIAL_TOKEN, reason)
    if problem := tools_problem(tokenizer, example.messages, example.tools):
        return rejection(example, "inspect", TOOLS, problem)
    return None


def _tool_texts(example: Example) -> Iterator[str]:
    """What a template writes besides the contents: the tools, and the names and arguments of the calls."""
    yield from (_as_text(tool) for tool in example.tools)
    for message in example.messages:
        yield from (call.name + _as_text(dict(call.arguments)) for call in message.tool_calls)


def _as_text(value: Json) -> str:
    return json.dumps(value, ensure_ascii=False)


def _add_text(
    tokenized: Tokenized, tokenizer: PreTrainedTokenizerBase, example: Example, max_length_tokens: int
) -> None:
    if names := special_tokens_in(tokenizer, contents(example)):
        reason = f"contains {', '.join(names)}, which the model reads as the end of a text"
        tokenized.left_out.append(rejection(example, "inspect", SPECIAL_TOKEN, reason))
        return
    with _located(example.place):
        ids = encode_text(tokenizer, str(example.text))
    for number, chunk in enumerate(_overlapping_chunks(ids, max_length_tokens)):
        tokenized.rows.append(_row(f"{example.id}#{number}", chunk, [1] * len(chunk)))


def _overlapping_chunks(ids: list[int], max_length_tokens: int) -> Iterator[list[int]]:
    """Pieces that share one token: it is context in the second, whose first label carries no loss."""
    stride = max_length_tokens - 1
    for start in range(0, max(1, len(ids) - 1), stride):
        yield ids[start : start + max_length_tokens]


def _row(id_: str, input_ids: list[int], loss_mask: Sequence[int]) -> TokenRow:
    mask = [0, *loss_mask[1:]]
    labels = [token if trained else IGNORED for token, trained in zip(input_ids, mask, strict=True)]
    return TokenRow(id_, input_ids, labels)


@contextmanager
def _located(where: str) -> Iterator[None]:
    """Put source:line before what went wrong with a row."""
    try:
        yield
    except DataError as error:
        raise DataError(f"{where}: {error}") from error
    except ModelError as error:
        raise ModelError(f"{where}: {error}") from error
