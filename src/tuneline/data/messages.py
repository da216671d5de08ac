"""Messages in the spellings that formats have for them: from and value, role and content, calls of tools."""

from tuneline.data.conversation import RowProblem, known_role
from tuneline.data.fields import Fields, an_object, objects, opened, present, text
from tuneline.data.records import ROLES, Json, Message, Role, ToolCall
from tuneline.data.rows import kind_of

_SHAREGPT_ROLES: dict[str, Role] = {
    "human": "user",
    "user": "user",
    "gpt": "assistant",
    "assistant": "assistant",
    "function_call": "assistant",  # its value is the call
    "system": "system",
    "observation": "tool",
    "tool": "tool",
}
_OPENAI_ROLES: dict[str, Role] = {**ROLES, "developer": "system", "function": "tool"}
_N_PLAIN_KEYS = 2


def turns(value: Json, key: str, speaker: Role) -> tuple[Message, ...]:
    """`messages`, or the one message of `speaker` when the value is a text."""
    match value:
        case str():
            return (Message(speaker, value),)
        case list() | dict():
            return messages(value, key)
    raise RowProblem("format", f"{key} is {kind_of(value)}; text, or a list of messages, is expected")


def messages(value: Json, key: str) -> tuple[Message, ...]:
    """A list of messages, spelled either way; one message alone is a list of one. `key` is for reasons."""
    found = objects([value] if isinstance(value, dict) else value, key, "message")
    return tuple(_plain(turn) or _message(turn, f"message {number}") for number, turn in enumerate(found, 1))


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
    if turn.get("weight") == 0:
        raise RowProblem("format", f"{place}: weight 0 is not supported; every answer is learned")
    if turn.keys().isdisjoint({"from", "value"}):
        return _openai_message(turn, place)
    name = text(turn, "from", f"{place}: ")
    role = known_role(name, _SHAREGPT_ROLES, place)
    value = text(turn, "value", f"{place}: ")
    if name == "function_call":
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
            raise RowProblem(
                "format", f"{place}: part {number} has type {part.get('type')!r:.80}; only text is learned"
            )
    return "".join(text(part, "text", f"{place}: ") for part in parts)


def _calls(value: Json, place: str) -> tuple[ToolCall, ...]:
    calls = objects([value] if isinstance(value, dict) else value, f"{place}: tool_calls", "tool call")
    return tuple(_call(call, f"{place}: tool call {number}") for number, call in enumerate(calls, 1))


def _call(call: Fields, place: str) -> ToolCall:
    called = an_object(present(call, "function"), f"{place}: function") if "function" in call else call
    given = present(called, "arguments", f"{place}: ")
    arguments = {} if given == "" else opened(given, f"{place}: arguments")
    return ToolCall(text(called, "name", f"{place}: "), an_object(arguments, f"{place}: arguments"))
