"""From messages to the exact tokens that are trained, evaluated and served: one renderer for all of them."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from jinja2 import TemplateError
from transformers import PreTrainedTokenizerBase

from tuneline.data.records import Message
from tuneline.errors import ModelError


@dataclass(frozen=True, slots=True)
class Encoded:
    """A rendered conversation: `loss_mask[t]` is 1 where the model is trained to produce `input_ids[t]`."""

    input_ids: list[int]
    loss_mask: list[int]


def encode_conversation(tokenizer: PreTrainedTokenizerBase, messages: Sequence[Message]) -> Encoded:
    """Tokens of the whole conversation; loss on what the assistant says and on the token that ends its turn.

    A template with `{% generation %}` marks these spans itself. For any other, they are what a turn adds to
    its own generation prompt; raises `ModelError` when the template rewrites earlier turns later on.
    """
    if _marks_generation(tokenizer):
        encoded = _encode_by_marks(tokenizer, messages)
    else:
        encoded = _encode_by_prefixes(tokenizer, messages)
    _refuse_double_bos(tokenizer, encoded.input_ids)
    return Encoded(encoded.input_ids, _without_trailing_space(tokenizer, encoded))


def encode_prompt(tokenizer: PreTrainedTokenizerBase, messages: Sequence[Message]) -> list[int]:
    """Tokens the model sees before it answers: `messages` without the answer, and the assistant's opening."""
    ids = _render(tokenizer, messages, add_generation_prompt=True)
    _refuse_double_bos(tokenizer, ids)
    return ids


def render_text(tokenizer: PreTrainedTokenizerBase, messages: Sequence[Message], template: str | None = None) -> str:
    """The prompt as text: what `encode_prompt` encodes. `template`: another one than the tokenizer's own."""
    return _render_text(tokenizer, messages, template, add_generation_prompt=True)


def encode_text(tokenizer: PreTrainedTokenizerBase, text: str) -> list[int]:
    """Tokens of a raw document as pre-training sees it: BOS when the tokenizer writes one, text, EOS."""
    ids: list[int] = list(tokenizer(text, add_special_tokens=True, verbose=False).input_ids)
    _refuse_double_bos(tokenizer, ids)
    return ids if ids and ids[-1] == tokenizer.eos_token_id else [*ids, tokenizer.eos_token_id]


def special_tokens_in(tokenizer: PreTrainedTokenizerBase, texts: Sequence[str]) -> list[str]:
    """Special tokens spelled out inside `texts`: they would be read as the ends and openings of turns."""
    names = [token.content for token in tokenizer.added_tokens_decoder.values() if token.special]
    return sorted(name for name in names if any(name in text for text in texts))


def _marks_generation(tokenizer: PreTrainedTokenizerBase) -> bool:
    template = str(tokenizer.chat_template)
    return "{% generation" in template or "{%- generation" in template


def _render(
    tokenizer: PreTrainedTokenizerBase, messages: Sequence[Message], *, add_generation_prompt: bool
) -> list[int]:
    text = _render_text(tokenizer, messages, None, add_generation_prompt=add_generation_prompt)
    # add_special_tokens=False: a template writes BOS itself where the model wants one
    return list(tokenizer(text, add_special_tokens=False, verbose=False).input_ids)


def _render_text(
    tokenizer: PreTrainedTokenizerBase,
    messages: Sequence[Message],
    template: str | None,
    *,
    add_generation_prompt: bool,
) -> str:
    with _template_errors(tokenizer):
        return str(
            tokenizer.apply_chat_template(
                _as_dicts(messages),
                chat_template=template,
                tokenize=False,
                add_generation_prompt=add_generation_prompt,
            )
        )


@contextmanager
def _template_errors(tokenizer: PreTrainedTokenizerBase) -> Iterator[None]:
    """A template may be broken, or refuse a conversation: a `tool` role, say, or two questions in a row."""
    try:
        yield
    except TemplateError as error:
        raise ModelError(
            f"{tokenizer.name_or_path}: its chat template cannot render this conversation: "
            f"{' '.join(str(error).split())}"
        ) from error


def _encode_by_marks(tokenizer: PreTrainedTokenizerBase, messages: Sequence[Message]) -> Encoded:
    with _template_errors(tokenizer):
        rendered: Any = tokenizer.apply_chat_template(
            _as_dicts(messages),
            tokenize=True,
            return_dict=True,
            return_assistant_tokens_mask=True,
            tokenizer_kwargs={"verbose": False},
        )
    return Encoded(list(rendered["input_ids"]), list(rendered["assistant_masks"]))


def _encode_by_prefixes(tokenizer: PreTrainedTokenizerBase, messages: Sequence[Message]) -> Encoded:
    ids = _render(tokenizer, messages, add_generation_prompt=False)
    mask = [0] * len(ids)
    for index in (i for i, message in enumerate(messages) if message.role == "assistant"):
        prompt = _render(tokenizer, messages[:index], add_generation_prompt=True)
        turn = _render(tokenizer, messages[: index + 1], add_generation_prompt=False)
        if ids[: len(prompt)] != prompt or ids[: len(turn)] != turn:
            raise ModelError(
                f"{tokenizer.name_or_path}: its chat template renders message {index + 1} of {len(messages)} "
                "in another way once more follow, so the answer's tokens cannot be told apart; mark them with "
                "{% generation %} in the template, or keep one answer per conversation"
            )
        mask[len(prompt) : len(turn)] = [1] * (len(turn) - len(prompt))
    return Encoded(ids, mask)


def _without_trailing_space(tokenizer: PreTrainedTokenizerBase, encoded: Encoded) -> list[int]:
    """The mask without the white space that templates write after the end of a turn: nothing generates it."""
    mask = list(encoded.loss_mask)
    for end in range(len(mask), 0, -1):
        is_run_end = mask[end - 1] and (end == len(mask) or not mask[end])
        if is_run_end and _is_space(tokenizer, encoded.input_ids[end - 1]):
            mask[end - 1] = 0
    return mask


def _is_space(tokenizer: PreTrainedTokenizerBase, token_id: int) -> bool:
    return token_id not in tokenizer.all_special_ids and not str(tokenizer.decode([token_id])).strip()


def _refuse_double_bos(tokenizer: PreTrainedTokenizerBase, ids: Sequence[int]) -> None:
    bos = tokenizer.bos_token_id
    if bos is not None and list(ids[:2]) == [bos, bos]:
        raise ModelError(
            f"{tokenizer.name_or_path}: a rendered row starts with {tokenizer.bos_token!r} twice; take one out of "
            "the chat template, the tokenizer's settings or the data"
        )


def _as_dicts(messages: Sequence[Message]) -> list[dict[str, str]]:
    return [{"role": message.role, "content": message.content} for message in messages]
