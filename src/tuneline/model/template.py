"""From messages to the exact tokens that are trained, evaluated and served: one renderer for all of them."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from jinja2 import TemplateError
from msgspec.structs import replace
from transformers import PreTrainedTokenizerBase

from tuneline.data.records import Json, Message, ToolCall
from tuneline.errors import ModelError


@dataclass(frozen=True, slots=True)
class Encoded:
    """A rendered conversation: `loss_mask[t]` is 1 where the model is trained to produce `input_ids[t]`."""

    input_ids: list[int]
    loss_mask: list[int]


def encode_conversation(
    tokenizer: PreTrainedTokenizerBase, messages: Sequence[Message], tools: Sequence[Json] = ()
) -> Encoded:
    """Tokens of the whole conversation; loss on what the assistant says (its calls of tools too) and on the token
    that ends its turn.

    A template with `{% generation %}` marks these spans itself. For any other, they are what a turn adds to
    its own generation prompt; raises `ModelError` when the template rewrites earlier turns later on, or leaves out
    tools (see `tools_problem`).
    """
    _refuse_lost_tools(tokenizer, messages, tools)
    if _marks_generation(tokenizer):
        encoded = _encode_by_marks(tokenizer, messages, tools)
    else:
        encoded = _encode_by_prefixes(tokenizer, messages, tools)
    _refuse_double_bos(tokenizer, encoded.input_ids)
    return Encoded(encoded.input_ids, _without_trailing_space(tokenizer, encoded))


def encode_prompt(
    tokenizer: PreTrainedTokenizerBase, messages: Sequence[Message], tools: Sequence[Json] = ()
) -> list[int]:
    """Tokens the model sees before it answers: `messages` without the answer, and the assistant's opening."""
    _refuse_lost_tools(tokenizer, messages, tools)
    ids = _render(tokenizer, messages, tools, add_generation_prompt=True)
    _refuse_double_bos(tokenizer, ids)
    return ids


def render_text(
    tokenizer: PreTrainedTokenizerBase,
    messages: Sequence[Message],
    template: str | None = None,
    tools: Sequence[Json] = (),
) -> str:
    """The prompt as text: what `encode_prompt` encodes. `template`: another one than the tokenizer's own."""
    return _render_text(tokenizer, messages, tools, template, add_generation_prompt=True)


def render_conversation(
    tokenizer: PreTrainedTokenizerBase, messages: Sequence[Message], tools: Sequence[Json] = ()
) -> str:
    """The whole conversation as text, without the opening of another answer."""
    return _render_text(tokenizer, messages, tools, None, add_generation_prompt=False)


def tools_problem(tokenizer: PreTrainedTokenizerBase, messages: Sequence[Message], tools: Sequence[Json]) -> str | None:
    """What of tools, their calls and results the chat template cannot show; None when it shows all there is.

    A part is lost when the text is the same without it.
    """
    if not tools and all(message.role != "tool" and not message.tool_calls for message in messages):
        return None
    try:
        whole = _render_text(tokenizer, messages, tools, None, add_generation_prompt=False)
    except ModelError as error:
        return str(error)
    for what, fewer_messages, fewer_tools in _without_one_part(messages, tools):
        try:
            text = _render_text(tokenizer, fewer_messages, fewer_tools, None, add_generation_prompt=False)
        except ModelError:
            continue  # the template misses the part, so it looks at it
        if text == whole:
            return (
                f"{tokenizer.name_or_path}: its chat template does not show {what}; take a model whose template does, "
                "or data without tools"
            )
    return None


def _without_one_part(
    messages: Sequence[Message], tools: Sequence[Json]
) -> Iterator[tuple[str, Sequence[Message], Sequence[Json]]]:
    """What is missing, and the conversation without it: the tools, each call, each result."""
    if tools:
        yield "the tools", messages, ()
    for number, message in enumerate(messages, 1):
        for changed in _without_one_call(message):
            yield f"the tool calls of message {number}", [*messages[: number - 1], changed, *messages[number:]], tools
        if message.role == "tool" and message.content.strip():
            changed = replace(message, content="")
            yield f"the tool result in message {number}", [*messages[: number - 1], changed, *messages[number:]], tools


def _without_one_call(message: Message) -> Iterator[Message]:
    for place in range(len(message.tool_calls)):
        yield replace(message, tool_calls=message.tool_calls[:place] + message.tool_calls[place + 1 :])


def _refuse_lost_tools(tokenizer: PreTrainedTokenizerBase, messages: Sequence[Message], tools: Sequence[Json]) -> None:
    if problem := tools_problem(tokenizer, messages, tools):
        raise ModelError(problem)


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
    tokenizer: PreTrainedTokenizerBase,
    messages: Sequence[Message],
    tools: Sequence[Json],
    *,
    add_generation_prompt: bool,
) -> list[int]:
    text = _render_text(tokenizer, messages, tools, None, add_generation_prompt=add_generation_prompt)
    # add_special_tokens=False: a template writes BOS itself where the model wants one
    return list(tokenizer(text, add_special_tokens=False, verbose=False).input_ids)


def _render_text(
    tokenizer: PreTrainedTokenizerBase,
    messages: Sequence[Message],
    tools: Sequence[Json],
    template: str | None,
    *,
    add_generation_prompt: bool,
) -> str:
    with _template_errors(tokenizer):
        return str(
            tokenizer.apply_chat_template(
                _as_dicts(messages),
                tools=_as_tools(tools),
                chat_template=template,
                tokenize=False,
                add_generation_prompt=add_generation_prompt,
            )
        )


@contextmanager
def _template_errors(tokenizer: PreTrainedTokenizerBase) -> Iterator[None]:
    """A template may be broken, or refuse a conversation: a `tool` role, say, or two questions in a row.

    Transformers raises TypeError for a template that joins texts with what is none, such as a call's arguments.
    """
    try:
        yield
    except (TemplateError, TypeError) as error:
        raise ModelError(
            f"{tokenizer.name_or_path}: its chat template cannot render this conversation: "
            f"{' '.join(str(error).split())}"
        ) from error


def _encode_by_marks(tokenizer: PreTrainedTokenizerBase, messages: Sequence[Message], tools: Sequence[Json]) -> Encoded:
    with _template_errors(tokenizer):
        rendered: Any = tokenizer.apply_chat_template(
            _as_dicts(messages),
            tools=_as_tools(tools),
            tokenize=True,
            return_dict=True,
            return_assistant_tokens_mask=True,
            tokenizer_kwargs={"verbose": False},
        )
    return Encoded(list(rendered["input_ids"]), list(rendered["assistant_masks"]))


def _encode_by_prefixes(
    tokenizer: PreTrainedTokenizerBase, messages: Sequence[Message], tools: Sequence[Json]
) -> Encoded:
    ids = _render(tokenizer, messages, tools, add_generation_prompt=False)
    mask = [0] * len(ids)
    for index in (i for i, message in enumerate(messages) if message.role == "assistant"):
        prompt = _render(tokenizer, messages[:index], tools, add_generation_prompt=True)
        turn = _render(tokenizer, messages[: index + 1], tools, add_generation_prompt=False)
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


def _as_dicts(messages: Sequence[Message]) -> list[dict[str, Any]]:
    """Messages as templates read them; `tool_calls` only where there are some, as templates ask whether it exists."""
    rows: list[dict[str, Any]] = []
    for message in messages:
        row: dict[str, Any] = {"role": message.role, "content": message.content}
        if message.tool_calls:
            row["tool_calls"] = [_as_function(call) for call in message.tool_calls]
        rows.append(row)
    return rows


def _as_function(call: ToolCall) -> dict[str, Any]:
    return {"type": "function", "function": {"name": call.name, "arguments": dict(call.arguments)}}


def _as_tools(tools: Sequence[Json]) -> list[Any] | None:
    return list(tools) or None  # templates ask whether there are any by `is none` or by truth
