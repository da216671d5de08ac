"""Conversations of every shape, rendered by everything that will ever render one: all must give the same tokens.

The renderers: the tokenizer's own template (what training saw), the template inside the GGUF read by llama.cpp's
tokenizer, and the Modelfile's, which Ollama runs instead.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from transformers import PreTrainedTokenizerBase

from tuneline.data.records import Json, Message, ToolCall
from tuneline.errors import ModelError
from tuneline.evaluation.metrics import Metrics
from tuneline.export.modelfile import Match, matching_family
from tuneline.export.runtime import Vocabulary
from tuneline.model.template import encode_prompt, render_text

Ids = Sequence[int]


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


def compare_templates(link: str, tokenizer: PreTrainedTokenizerBase, template: str, vocabulary: Vocabulary) -> Metrics:
    """Render every golden conversation in every way, and compare token ids.

    A kind that the model's own template refuses, or cannot show whole, is counted as refused. Raises `ModelError`
    naming `link`, renderer, conversation and first differing token.
    """
    match, n_compared, n_modelfile = modelfile_family(tokenizer), 0, 0
    for name, golden in GOLDENS.items():
        try:
            want = encode_prompt(tokenizer, golden.messages, golden.tools)
        except ModelError:
            continue  # so no row of the kind was trained on, and no answer to one is promised
        n_compared += 1
        text = render_text(tokenizer, golden.messages, template, golden.tools)
        _check(link, "the GGUF's", name, want, vocabulary.encode(text, add_special=False))
        if match is not None and _speaks(match, golden):
            n_modelfile += 1
            _check(link, "the Modelfile's", name, want, _modelfile_ids(tokenizer, match, golden.messages, want))
    return {
        "n_templates_compared": n_compared,
        "n_templates_refused": len(GOLDENS) - n_compared,
        "n_modelfile_compared": n_modelfile,
    }


def modelfile_family(tokenizer: PreTrainedTokenizerBase) -> Match | None:
    """The family that package writes into the Modelfile; None where it leaves the template to Ollama."""

    def render(messages: Sequence[Message]) -> str:
        try:
            return render_text(tokenizer, messages).removeprefix(str(tokenizer.bos_token or ""))
        except ModelError:  # the template refuses such a conversation, a system message for example
            return ""

    return matching_family(render)


def _speaks(match: Match, golden: Golden) -> bool:
    """The Modelfile's templates know no tools, and Gemma's no system prompt."""
    return not golden.tools and all(message.role in match.family.turns for message in golden.messages)


def _modelfile_ids(tokenizer: PreTrainedTokenizerBase, match: Match, messages: Sequence[Message], want: Ids) -> Ids:
    """Ollama shows the default system prompt where a conversation has none, and writes BOS where training saw it."""
    spoken = list(messages)
    if match.default_system is not None and messages[0].role != "system":
        spoken.insert(0, Message("system", match.default_system))
    bos = [tokenizer.bos_token_id] if list(want[:1]) == [tokenizer.bos_token_id] else []
    return [*bos, *tokenizer.encode(match.family.render(spoken), add_special_tokens=False)]


def _check(link: str, whose: str, conversation: str, want: Ids, got: Ids) -> None:
    if list(want) == list(got):
        return
    place = next((i for i, (a, b) in enumerate(zip(want, got, strict=False)) if a != b), min(len(want), len(got)))
    raise ModelError(
        f"{link}: {whose} chat template renders the conversation {conversation!r} otherwise than the model's own, from "
        f"token {place}: {list(got[place : place + 4])} in place of {list(want[place : place + 4])}; the usual cause "
        "is a template changed after training: take the model's own, or train again"
    )
