"""The formats at the door: each adapter turns a row of its kind into messages or text, or says why it cannot.

To add one: a word in `settings.Format`, an adapter here, its arm in `adapt` and its keys in `_format_of`.
"""

from collections import Counter
from collections.abc import Sequence
from typing import TypeAlias

from tuneline.data.conversation import RowProblem, known_role
from tuneline.data.records import ROLES, Json, Message, Role
from tuneline.data.rows import Row, kind_of
from tuneline.data.settings import Format
from tuneline.errors import DataError

Fields: TypeAlias = dict[str, Json]

# keys an adapter reads; others are carried only if data.meta_fields names them
USED_KEYS: dict[Format, frozenset[str]] = {
    "alpaca": frozenset({"instruction", "input", "output", "system", "history"}),
    "sharegpt": frozenset({"conversations", "system"}),
    "openai": frozenset({"messages"}),
    "prompt_completion": frozenset({"prompt", "completion"}),
    "text": frozenset({"text"}),
}
_SHAREGPT_ROLES: dict[str, Role] = {
    "human": "user",
    "user": "user",
    "gpt": "assistant",
    "assistant": "assistant",
    "function_call": "assistant",  # the call's JSON is what the model has to write
    "system": "system",
    "observation": "tool",
    "tool": "tool",
}
_OPENAI_ROLES: dict[str, Role] = {**ROLES, "developer": "system"}


def adapt(row: Fields, chosen: Format) -> tuple[tuple[Message, ...], str | None]:
    """`(messages, None)` or `((), text)`. Raises `RowProblem` for a row that does not fit the format."""
    match chosen:
        case "alpaca":
            return alpaca(row), None
        case "sharegpt":
            return sharegpt(row), None
        case "openai":
            return openai(row), None
        case "prompt_completion":
            return prompt_completion(row), None
        case "text":
            return (), _text(row, "text")


def detect(rows: Sequence[Row], place: str) -> Format:
    """The format that most of these rows have by their keys, the earlier one when two tie.

    Raises `DataError` when no row fits any, or when rows carry labels that this would silently ignore.
    """
    for row in rows:
        _check_no_preference(row)
    votes = Counter(found for row in rows if (found := _format_of(row.value)) is not None)
    if not votes:
        raise _no_format(rows, place)
    return votes.most_common(1)[0][0]


def alpaca(row: Fields) -> tuple[Message, ...]:
    """instruction, optional input (behind a blank line), output; optional system and history."""
    instruction, added = _text(row, "instruction"), _optional_text(row, "input")
    prompt = f"{instruction}\n\n{added}" if instruction and added else instruction or added
    turns = (*_history(row), Message("user", prompt), Message("assistant", _text(row, "output")))
    return (*_system(row), *turns)


def sharegpt(row: Fields) -> tuple[Message, ...]:
    """conversations: a list of from and value; optional system beside it."""
    turns = enumerate(_objects(row, "conversations"), 1)
    return (*_system(row), *(_sharegpt_message(turn, number) for number, turn in turns))


def openai(row: Fields) -> tuple[Message, ...]:
    """messages: a list of role and content."""
    return tuple(_openai_message(turn, number) for number, turn in enumerate(_objects(row, "messages"), 1))


def prompt_completion(row: Fields) -> tuple[Message, ...]:
    """prompt and completion, both texts: one question, one answer."""
    return Message("user", _text(row, "prompt")), Message("assistant", _text(row, "completion"))


def _sharegpt_message(turn: Fields, number: int) -> Message:
    role = known_role(_text(turn, "from", f"message {number}: "), _SHAREGPT_ROLES, number)
    return Message(role, _text(turn, "value", f"message {number}: "))


def _openai_message(turn: Fields, number: int) -> Message:
    role = known_role(_text(turn, "role", f"message {number}: "), _OPENAI_ROLES, number)
    if turn.get("tool_calls") or turn.get("function_call"):
        raise RowProblem("format", f"message {number}: tool calls are not supported yet; write them as content")
    if turn.get("weight") == 0:
        raise RowProblem("format", f"message {number}: weight 0 is not supported; every answer is learned")
    return Message(role, _text(turn, "content", f"message {number}: "))


def _system(row: Fields) -> tuple[Message, ...]:
    system = _optional_text(row, "system")
    return (Message("system", system),) if system else ()


def _history(row: Fields) -> tuple[Message, ...]:
    turns: list[Message] = []
    pairs = row.get("history") or []
    if not isinstance(pairs, list):
        raise RowProblem("format", f"history is {kind_of(pairs)}; a list of [question, answer] is expected")
    for pair in pairs:
        match pair:
            case [str(question), str(answer)]:
                turns += [Message("user", question), Message("assistant", answer)]
            case _:
                raise RowProblem("format", "history must be a list of [question, answer]")
    return tuple(turns)


def _text(fields: Fields, key: str, place: str = "") -> str:
    value = _present(fields, key, place)
    if not isinstance(value, str):
        raise RowProblem("format", f"{place}{key} is {kind_of(value)}; text is expected")
    return value


def _optional_text(fields: Fields, key: str) -> str:
    return "" if fields.get(key) is None else _text(fields, key)


def _objects(fields: Fields, key: str) -> list[Fields]:
    value = _present(fields, key, "")
    if not isinstance(value, list):
        raise RowProblem("format", f"{key} is {kind_of(value)}; a list of messages is expected")
    return [_message_fields(turn, number) for number, turn in enumerate(value, 1)]


def _message_fields(turn: Json, number: int) -> Fields:
    if not isinstance(turn, dict):
        raise RowProblem("format", f"message {number} is {kind_of(turn)}; an object is expected")
    return turn


def _present(fields: Fields, key: str, place: str) -> Json:
    if key not in fields:
        raise RowProblem("format", f"{place}no {key!r}; the keys are: {_listed(fields)}")
    return fields[key]


def _format_of(row: Fields) -> Format | None:
    if "messages" in row:
        return "openai"
    if "conversations" in row:
        return "sharegpt"
    if {"instruction", "output"} <= row.keys():
        return "alpaca"
    if {"prompt", "completion"} <= row.keys():
        return "prompt_completion"
    return "text" if "text" in row else None


def _check_no_preference(row: Row) -> None:
    if {"chosen", "rejected"} <= row.value.keys():
        kind = "preference pairs (chosen, rejected)"
    elif "label" in row.value and row.value.keys() & {"messages", "completion", "conversations"}:
        kind = "labelled answers (KTO), good and bad ones"
    else:
        return
    raise DataError(
        f"{row.place}: {kind} are not supported yet, and learning from all of them alike would be wrong;"
        " if that is meant, set the source's format instead of auto"
    )


def _no_format(rows: Sequence[Row], place: str) -> DataError:
    known = "; ".join(f"{name} ({', '.join(sorted(keys))})" for name, keys in USED_KEYS.items())
    found = f"{rows[0].place}: the keys {_listed(rows[0].value)}" if rows else f"{place}: its first rows"
    return DataError(f"{found} fit no known format; rename them to one of: {known}")


def _listed(fields: Fields) -> str:
    return ", ".join(sorted(fields)[:12]) or "none"
