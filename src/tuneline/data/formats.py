"""The formats at the door: each adapter turns a row of its kind into content, or says why it cannot.

To add one: a word in the schema's `Format`, an adapter here, its arm in `adapt`, its keys in `USED_KEYS` and
in `detecting`.
"""

from dataclasses import dataclass
from typing import Literal

from tuneline.config.schema import Format
from tuneline.data.conversation import RowProblem
from tuneline.data.fields import Fields, listed, opened_list, optional_text, present, text
from tuneline.data.messages import asked_turns, behind, messages, tools, turns
from tuneline.data.pairs import pair
from tuneline.data.pii import excerpt
from tuneline.data.records import Json, Message
from tuneline.data.rows import kind_of
from tuneline.data.web_pages import main_text

# keys an adapter may read; others are carried only if data.meta_fields names them
USED_KEYS: dict[Format, frozenset[str]] = {
    "alpaca": frozenset({"instruction", "input", "output", "system", "history"}),
    "sharegpt": frozenset({"conversations", "system", "tools"}),
    "openai": frozenset({"messages", "system", "tools"}),
    "prompt_completion": frozenset({"prompt", "completion", "system", "tools"}),
    "text": frozenset({"text"}),
    "html": frozenset({"html"}),
    "preference": frozenset(
        {
            *("prompt", "messages", "conversations", "instruction", "input", "history", "system", "tools"),
            *("chosen", "rejected"),
        }
    ),
    "kto": frozenset(
        {
            *("prompt", "completion", "messages", "conversations", "instruction", "input", "output"),
            *("history", "system", "tools", "label", "kto_tag"),
        }
    ),
    "prompt": frozenset({"prompt", "messages", "conversations", "instruction", "input", "history", "system", "tools"}),
}


@dataclass(frozen=True, slots=True)
class Content:
    """What a row says; see `records.Example` for its parts."""

    messages: tuple[Message, ...] = ()
    text: str | None = None
    tools: tuple[Json, ...] = ()
    chosen: tuple[Message, ...] = ()
    rejected: tuple[Message, ...] = ()
    label: bool | None = None


def adapt(row: Fields, chosen: Format) -> Content:
    """Raises `RowProblem` for a row that does not fit the format."""
    match chosen:
        case "alpaca":
            return Content(alpaca(row))
        case "sharegpt":
            return Content(_behind_system(row, _list_of_messages(row, "conversations")), tools=tools(row))
        case "openai":
            return Content(_behind_system(row, _list_of_messages(row, "messages")), tools=tools(row))
        case "prompt_completion":
            return Content(_behind_system(row, prompt_completion(row)), tools=tools(row))
        case "text":
            return Content(text=text(row, "text"))
        case "html":
            return Content(text=html(row))
        case "preference" | "kto" | "prompt":
            return _adapt_for_preferences(row, chosen)


def _adapt_for_preferences(row: Fields, chosen: Literal["preference", "kto", "prompt"]) -> Content:
    match chosen:
        case "preference":
            prompt, better, worse = pair(row, asked(row) or ())
            return Content(_behind_system(row, prompt), tools=tools(row), chosen=better, rejected=worse)
        case "kto":
            return Content(_behind_system(row, answered(row)), tools=tools(row), label=label(row))
        case "prompt":
            if (found := asked(row)) is None:
                raise RowProblem("format", f"no 'prompt'; the keys are: {listed(row)}")
            return Content(_behind_system(row, found), tools=tools(row))


def alpaca(row: Fields) -> tuple[Message, ...]:
    """instruction, optional input (behind a blank line), output; optional system and history."""
    return (*_system(row), *_history(row), _instruction(row), Message("assistant", text(row, "output")))


def prompt_completion(row: Fields) -> tuple[Message, ...]:
    """prompt and completion, each a text or a list of messages."""
    prompt, completion = present(row, "prompt"), present(row, "completion")
    answer = behind(prompt, completion) if isinstance(completion, str) else completion
    return asked_turns(prompt, "prompt") + turns(answer, "completion", "assistant")


def html(row: Fields) -> str:
    """html: a page, of which the main text is taken."""
    found = main_text(text(row, "html"))
    if found is None:
        raise RowProblem("format", "the page has no main text (only menus and the like)")
    return found


def asked(row: Fields) -> tuple[Message, ...] | None:
    """What an answer is wanted for: prompt, conversations, messages, or history, instruction, input; None for none."""
    if "prompt" in row:
        return asked_turns(row["prompt"], "prompt")
    for key in ("conversations", "messages"):
        if key in row:
            return _list_of_messages(row, key)
    return (*_history(row), _instruction(row)) if "instruction" in row else None


def answered(row: Fields) -> tuple[Message, ...]:
    """The labelled dialogue: messages, conversations, instruction and output, or prompt and completion."""
    for key in ("messages", "conversations"):
        if key in row:
            return _list_of_messages(row, key)
    if "instruction" in row:
        return (*_history(row), _instruction(row), Message("assistant", text(row, "output")))
    return prompt_completion(row)


def label(row: Fields) -> bool:
    """label or kto_tag: true for a good answer. CSV has texts only, so the words true and false will do."""
    key = "kto_tag" if "kto_tag" in row else "label"
    match present(row, key):
        case bool(value):
            return value
        case str(word) if word.strip().lower() in ("true", "false"):
            return word.strip().lower() == "true"
        case value:
            raise RowProblem(
                "format", f"{key} is {kind_of(value)}; true or false is expected, not {excerpt(repr(value), 40)}"
            )


def _list_of_messages(row: Fields, key: str) -> tuple[Message, ...]:
    return messages(opened_list(present(row, key), key), key)


def _instruction(row: Fields) -> Message:
    instruction, added = text(row, "instruction"), optional_text(row, "input")
    return Message("user", f"{instruction}\n\n{added}" if instruction and added else instruction or added)


def _system(row: Fields) -> tuple[Message, ...]:
    system = optional_text(row, "system")
    return (Message("system", system),) if system else ()


def _behind_system(row: Fields, found: tuple[Message, ...]) -> tuple[Message, ...]:
    """The messages behind the row's system text, with one system message at most.

    Some data sets repeat that text as the first message, and OpenAI takes several system and developer messages at the
    start, where most chat templates take one: different texts become one, a blank line between them.
    """
    whole = (*_system(row), *found)
    n_systems = next((number for number, message in enumerate(whole) if message.role != "system"), len(whole))
    texts = dict.fromkeys(message.content for message in whole[:n_systems] if message.content.strip())
    return whole if n_systems <= 1 else (Message("system", "\n\n".join(texts)), *whole[n_systems:])


def _history(row: Fields) -> tuple[Message, ...]:
    found: list[Message] = []
    pairs = opened_list(row.get("history") or [], "history")
    if not isinstance(pairs, list):
        raise RowProblem("format", f"history is {kind_of(pairs)}; a list of [question, answer] is expected")
    for item in pairs:
        match item:
            case [str(question), str(answer)]:
                found += [Message("user", question), Message("assistant", answer)]
            case _:
                raise RowProblem("format", "history must be a list of [question, answer]")
    return tuple(found)
