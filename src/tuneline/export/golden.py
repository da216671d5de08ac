"""Conversations of every shape, rendered by everything that will ever render one: all must give the same tokens.

The renderers: the tokenizer's own template (what training saw), the template inside the GGUF as llama.cpp's server
renders it, and the Modelfile's, which Ollama runs instead.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from transformers import PreTrainedTokenizerBase

from tuneline.data.records import Example, Json, Message, ToolCall
from tuneline.errors import ModelError
from tuneline.evaluation.heldout import prompt_messages
from tuneline.evaluation.metrics import Metrics
from tuneline.export.modelfile import Match, matching_family
from tuneline.model.template import encode_prompt, render_text

Ids = Sequence[int]
PromptIds = Callable[[Sequence[Message], Sequence[Json]], Ids]  # of messages and tools, as a server makes them

_SHOWN_TOKENS = 8  # of a difference, in an error


@dataclass(frozen=True, slots=True)
class Golden:
    """Messages to be answered, with the functions that the answer may call."""

    messages: tuple[Message, ...]
    tools: tuple[Json, ...] = ()


_TIME: Json = {
    "type": "function",
    "function": {
        "name": "time_in",
        "description": "The time in a city.",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
    },
}
_ASKED = Message("user", "What time is it in Łódź?")
_CALLED = Message("assistant", "", (ToolCall("time_in", {"city": "Łódź"}),))
_SYSTEM = Message("system", "Answer briefly.")
# Inside a text only: templates that trim a message (Llama 3) cannot be said in Ollama's language, which has no trim.
_UNUSUAL = "tab\tand\n\n\nlines,  two   spaces; naïve Größe 東京 👩‍👩‍👧 'it''s' 1234567 {{ braces }} {% raw %} \\n <b>"

GOLDENS: Mapping[str, Golden] = {
    "no system prompt": Golden((Message("user", "Hello"),)),
    "system prompt": Golden((_SYSTEM, Message("user", "Hello"))),
    "several turns": Golden((Message("user", "One?"), Message("assistant", "Yes."), Message("user", "Two?"))),
    "system prompt and several turns": Golden(
        (_SYSTEM, Message("user", "One?"), Message("assistant", "Yes.\nSurely."), Message("user", "Two?"))
    ),
    "unusual text": Golden((Message("user", _UNUSUAL), Message("assistant", _UNUSUAL), Message("user", "And?"))),
    "empty question": Golden((Message("user", ""),)),
    "tools": Golden((_ASKED,), (_TIME,)),
    "tool call and result": Golden((_ASKED, _CALLED, Message("tool", '{"time": "12:30"}')), (_TIME,)),
}


@dataclass(frozen=True, slots=True)
class Compared:
    """`refused` holds the conversations that the model's own template cannot show, with its reasons."""

    metrics: Metrics
    refused: Mapping[str, str]


def compare_templates(link: str, tokenizer: PreTrainedTokenizerBase, served: PromptIds) -> Compared:
    """Render every golden conversation in every way, and compare token ids; `served` is what llama.cpp makes of one.

    Raises `ModelError` naming `link`, renderer, conversation and first differing token.
    """
    match, refused, n_modelfile = modelfile_family(tokenizer), {}, 0
    for name, golden in GOLDENS.items():
        try:
            want = encode_prompt(tokenizer, golden.messages, golden.tools)
        except ModelError as error:
            refused[name] = str(error)  # so no row of the kind was trained on, and no answer to one is promised
            continue
        _check_served(link, tokenizer, name, want, served, golden)
        if match is not None and _speaks(match, golden):
            n_modelfile += 1
            got = _modelfile_ids(tokenizer, match, golden.messages)
            _check(link, tokenizer, f"the Modelfile's template renders {name!r}", want, got)
    n_compared = len(GOLDENS) - len(refused)
    counts: Metrics = {"n_templates_compared": n_compared, "n_templates_refused": len(refused)}
    return Compared(counts | {"n_modelfile_compared": n_modelfile}, refused)


def check_prompts(
    link: str, tokenizer: PreTrainedTokenizerBase, served: PromptIds, examples: Iterable[Example]
) -> None:
    """What llama.cpp is asked for each example must be the tokens that the model was trained on, or `ModelError`."""
    for example in examples:
        golden = Golden(tuple(prompt_messages(example)), example.tools)
        want = encode_prompt(tokenizer, golden.messages, golden.tools)
        _check_served(link, tokenizer, example.place, want, served, golden)


def _check_served(
    link: str, tokenizer: PreTrainedTokenizerBase, name: str, want: Ids, served: PromptIds, golden: Golden
) -> None:
    try:
        got = served(golden.messages, golden.tools)
    except ModelError as error:
        raise ModelError(f"{link}: the conversation {name!r}, which the model's own template shows: {error}") from error
    _check(link, tokenizer, f"llama.cpp renders {name!r}", want, got)


def modelfile_family(tokenizer: PreTrainedTokenizerBase) -> Match | None:
    """The family that package writes into the Modelfile; None where it leaves the template to Ollama."""

    by_itself = _written_by_itself(tokenizer)

    def render(messages: Sequence[Message]) -> str:
        try:
            return render_text(tokenizer, messages).removeprefix(by_itself)
        except ModelError:  # the template refuses such a conversation, a system message for example
            return ""

    return matching_family(render)


def _speaks(match: Match, golden: Golden) -> bool:
    """The Modelfile's templates know no tools, and Gemma's no system prompt."""
    return not golden.tools and all(message.role in match.family.turns for message in golden.messages)


def _written_by_itself(tokenizer: PreTrainedTokenizerBase) -> str:
    """BOS where the tokenizer writes it before every text; the GGUF's does the same, as convert checked."""
    writes_bos = tokenizer.bos_token_id is not None and tokenizer.encode("")[:1] == [tokenizer.bos_token_id]
    return str(tokenizer.bos_token) if writes_bos else ""


def _modelfile_ids(tokenizer: PreTrainedTokenizerBase, match: Match, messages: Sequence[Message]) -> Ids:
    """Ollama shows the default system prompt where a conversation has none, and reads text as the tokenizer does."""
    spoken = list(messages)
    if match.default_system is not None and messages[0].role != "system":
        spoken.insert(0, Message("system", match.default_system))
    ids: list[int] = tokenizer.encode(match.family.render(spoken))
    return ids


def _check(link: str, tokenizer: PreTrainedTokenizerBase, what: str, want: Ids, got: Ids) -> None:
    if list(want) == list(got):
        return
    place = next((i for i, (a, b) in enumerate(zip(want, got, strict=False)) if a != b), min(len(want), len(got)))
    found, expected = (_shown(tokenizer, ids[place : place + _SHOWN_TOKENS]) for ids in (got, want))
    raise ModelError(
        f"{link}: {what} otherwise than the model's own template, from token {place}: {found} in place of {expected}; "
        "the usual causes are a template changed after training (take the model's own, or train again) and one that "
        "reads a variable which only servers set (fix it with model.chat_template_kwargs)"
    )


def _shown(tokenizer: PreTrainedTokenizerBase, ids: Ids) -> str:
    return f"{list(ids)} {tokenizer.decode(list(ids))!r}"
