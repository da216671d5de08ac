"""Messages in the spellings that formats have for them: from and value, role and content, calls of tools."""

import re
from collections.abc import Sequence
from itertools import pairwise
from typing import Literal

from msgspec.structs import replace

from tuneline.data.conversation import RowProblem, known_role
from tuneline.data.fields import Fields, an_object, objects, opened, present, text
from tuneline.data.pii import excerpt
from tuneline.data.records import ROLES, Json, Message, Role, ToolCall
from tuneline.data.rows import kind_of
from tuneline.data.strict_json import decoded

_CALL = "function_call"
_SHAREGPT_ROLES: dict[str, Role] = {
    "human": "user",
    "user": "user",
    "gpt": "assistant",
    "assistant": "assistant",
    _CALL: "assistant",  # its value is the call
    "system": "system",
    "observation": "tool",
    "tool": "tool",
}
_OPENAI_ROLES: dict[str, Role] = {**ROLES, "developer": "system", "function": "tool"}
_N_PLAIN_KEYS = 2
_READ_OF_SHAREGPT = frozenset({"from", "value", "weight"})
_READ_OF_OPENAI = frozenset({"role", "content", "tool_calls", "function_call", "weight"})
_SPEAKER = re.compile(r"(?:\A\n*|\n\n)(Human|Assistant): ?")  # hh-rlhf writes a dialogue as one text
_ASKED = re.compile(r"\A(?:\n\n|(?=.*\n\nAssistant:))\n*Human:", re.DOTALL)


def turns(value: Json, key: str, speaker: Role) -> tuple[Message, ...]:
    """`messages`, or the one message of `speaker` when the value is a text that `messages_in` does not open.

    An answer that is JSON of other people's messages is what the assistant is to write.
    """
    match value:
        case str():
            found = messages_in(value, key)
            return found if found and speaker in ("user", found[0].role) else (Message(speaker, value),)
        case list() | dict():
            return messages(value, key)
    raise RowProblem("format", f"{key} is {kind_of(value)}; text, or a list of messages, is expected")


def messages(value: Json, key: str) -> tuple[Message, ...]:
    """A list of messages, spelled either way; one message alone is a list of one. `key` is for reasons."""
    found = objects([value] if isinstance(value, dict) else value, key, "message")
    said = tuple(_plain(turn) or _message(turn, f"message {number}") for number, turn in enumerate(found, 1))
    return _merged(found, said) if _CALL in [turn.get("from") for turn in found] else said


def asked_turns(value: Json, key: str) -> tuple[Message, ...]:
    """`turns` of what is asked; a text that begins with "Human:" is a dialogue, its open "Assistant:" is no message."""
    if not (isinstance(value, str) and is_spoken(value)):
        return turns(value, key, "user")
    said = spoken(value)
    is_open = said[-1].role == "assistant" and not said[-1].content.strip()
    return said[:-1] if is_open else said


def behind(prompt: Json, answer: str) -> str:
    """The answer to the prompt, without the one space that separates it from a prompt's open "Assistant:"."""
    is_open = isinstance(prompt, str) and is_spoken(prompt) and prompt.endswith("\n\nAssistant:")
    return answer.removeprefix(" ") if is_open else answer


def is_spoken(text: str) -> bool:
    """True for a dialogue as one text: "Human: ... Assistant: ..."."""
    return _ASKED.match(text) is not None


def spoken(text: str) -> tuple[Message, ...]:
    """The messages of a dialogue written as one text; () where no speaker is named at its start."""
    if not _SPEAKER.match(text):
        return ()
    speakers = list(_SPEAKER.finditer(text))
    ends = [following.start() for _, following in pairwise(speakers)] + [len(text)]
    return tuple(
        Message("user" if speaker[1] == "Human" else "assistant", text[speaker.end() : end])
        for speaker, end in zip(speakers, ends, strict=True)
    )


def unread_keys(value: Json) -> set[str]:
    """Keys of a list of messages (or of its JSON text) that nothing reads, and that say something in one of them."""
    found = _opened_messages(value) if isinstance(value, str) else value
    unread: set[str] = set()
    for turn in found if isinstance(found, list) else [found]:
        if isinstance(turn, dict) and not _READ_OF_OPENAI.issuperset(turn):  # what nearly every message ends with
            read = _READ_OF_OPENAI if _spelling(turn) == "role" else _READ_OF_SHAREGPT
            unread.update(key for key, item in turn.items() if key not in read and item is not None)
    return unread


def messages_in(text: str, key: str) -> tuple[Message, ...]:
    """The messages that a text is as JSON, for CSV has no lists; () for any other text, other JSON too."""
    found = _opened_messages(text)
    return () if found is None else messages(found, key)


def _opened_messages(text: str) -> Json:
    if text.lstrip()[:1] not in ("[", "{") or not ('"role"' in text or '"from"' in text):
        return None
    try:
        value = decoded(text)
    except ValueError:
        return None
    found = value if isinstance(value, list) else [value]
    return value if found and all(map(_is_message, found)) else None


def _is_message(turn: Json) -> bool:
    if not isinstance(turn, dict):
        return False
    spelling = _spelling(turn)
    role, known = turn.get(spelling), _OPENAI_ROLES if spelling == "role" else _SHAREGPT_ROLES
    return isinstance(role, str) and role in known and not turn.keys().isdisjoint({"value", "content"})


def _spelling(turn: Fields) -> Literal["from", "role"]:
    return "role" if turn.keys().isdisjoint({"from", "value"}) else "from"


def _merged(turns: Sequence[Fields], said: Sequence[Message]) -> tuple[Message, ...]:
    """A call behind a text or another call is of the same turn: ShareGPT has a message for each, OpenAI one for all."""
    whole: list[Message] = []
    for turn, message in zip(turns, said, strict=True):
        if turn.get("from") == _CALL and whole and whole[-1].role == "assistant":
            whole[-1] = replace(whole[-1], tool_calls=whole[-1].tool_calls + message.tool_calls)
        else:
            whole.append(message)
    return tuple(whole)


def tools(row: Fields) -> tuple[Json, ...]:
    """The functions that a conversation may call, each as {"type": "function", "function": {...}}, what templates take.

    `tools` is a list or its JSON text; a function may stand there by itself.
    """
    value = row.get("tools")
    if value is None or value == "":
        return ()
    return tuple(_tool(tool) for tool in objects(opened(value, "tools"), "tools", "tool"))


def _tool(tool: Fields) -> Json:
    return tool if isinstance(tool.get("function"), dict) else {"type": "function", "function": tool}


def _plain(turn: Fields) -> Message | None:
    """Nearly every message is a role and a text alone, and is made here in a third of the time."""
    role, content = turn.get("role"), turn.get("content")
    if len(turn) == _N_PLAIN_KEYS and isinstance(content, str) and isinstance(role, str) and role in ROLES:
        return Message(ROLES[role], content)
    return None


def _message(turn: Fields, place: str) -> Message:
    if turn.get("weight") not in (None, 1):
        weight = excerpt(str(turn["weight"]), 40)
        raise RowProblem("format", f"{place}: weight {weight} is not supported, only 1; every answer is learned alike")
    if _spelling(turn) == "role":
        return _openai_message(turn, place)
    name = text(turn, "from", f"{place}: ")
    role = known_role(name, _SHAREGPT_ROLES, place)
    value = text(turn, "value", f"{place}: ")
    if name == _CALL:
        return Message(role, "", _calls(opened(value, f"{place}: function_call"), place))
    return Message(role, value)


def _openai_message(turn: Fields, place: str) -> Message:
    name = text(turn, "role", f"{place}: ")
    role = known_role(name, _OPENAI_ROLES, place)
    called = turn.get("tool_calls") or turn.get("function_call")
    calls = _calls(called, place) if called else ()
    if calls and role != "assistant":
        raise RowProblem("format", f"{place}: {role} calls a tool; only the assistant may")
    content = "" if calls and turn.get("content") is None else _content(turn, place)
    return Message(role, content, calls)


def _content(turn: Fields, place: str) -> str:
    """The text, also one in parts: a list of {"type": "text", "text": ...}, joined as they are."""
    if not isinstance(turn.get("content"), list):
        return text(turn, "content", f"{place}: ")
    parts = objects(turn["content"], f"{place}: content", "part")
    for number, part in enumerate(parts, 1):
        if part.get("type") != "text":
            kind = excerpt(repr(part.get("type")), 80)
            raise RowProblem("format", f"{place}: part {number} has type {kind}; only text is learned")
    return "".join(text(part, "text", f"{place}: ") for part in parts)


def _calls(value: Json, place: str) -> tuple[ToolCall, ...]:
    calls = objects([value] if isinstance(value, dict) else value, f"{place}: tool_calls", "tool call")
    return tuple(_call(call, f"{place}: tool call {number}") for number, call in enumerate(calls, 1))


def _call(call: Fields, place: str) -> ToolCall:
    called = an_object(present(call, "function"), f"{place}: function") if "function" in call else call
    given = present(called, "arguments", f"{place}: ")
    arguments = {} if given == "" else opened(given, f"{place}: arguments")
    return ToolCall(text(called, "name", f"{place}: "), an_object(arguments, f"{place}: arguments"))
