"""What the messages of a row must look like, whatever format it came in."""

import re
from collections.abc import Sequence

from msgspec.structs import replace

from tuneline.data.pii import excerpt
from tuneline.data.records import ROLES, Example, Message, Role

# who may speak after whom; "" is the start
_MAY_FOLLOW: dict[str, tuple[Role, ...]] = {
    "": ("system", "user"),
    "system": ("user",),
    "user": ("assistant",),
    "assistant": ("user", "tool"),
    "tool": ("assistant", "tool"),
}


class RowProblem(ValueError):  # noqa: N818  (a row's, not the program's)
    """Why a row is no example: `rule` names the check for the counts, the message says what is wrong."""

    def __init__(self, rule: str, reason: str) -> None:
        super().__init__(reason)
        self.rule = rule


def known_role(name: str, names: dict[str, Role], place: str) -> Role:
    """The canonical role for a format's own name of it. Raises `RowProblem` for one it does not have."""
    if name not in names:
        raise RowProblem(
            "conversation", f"{place}: role {excerpt(repr(name), 80)} is unknown; allowed: {', '.join(names)}"
        )
    return names[name]


def with_system_prompt(messages: tuple[Message, ...], system_prompt: str | None) -> tuple[Message, ...]:
    """The messages behind `system_prompt`, unless they begin with a system message that is not empty.

    "" puts none there, as None does.
    """
    if messages and messages[0].role == "system":
        if messages[0].content.strip():
            return messages
        messages = messages[1:]
    return (Message("system", system_prompt), *messages) if system_prompt else messages


def with_task_prefix(messages: tuple[Message, ...], task_prefix: str | None) -> tuple[Message, ...]:
    """The messages with `task_prefix` put before the first user message, as it is: it brings its own white space."""
    for index, message in enumerate(messages):
        if task_prefix is not None and message.role == "user":
            asked = replace(message, content=task_prefix + message.content)
            return (*messages[:index], asked, *messages[index + 1 :])
    return messages


def without_task_prefix(messages: tuple[Message, ...], task_prefix: str | None) -> tuple[tuple[Message, ...], str]:
    """The messages as they were before `with_task_prefix`, and the prefix as it stands there; "" where it does not.

    Cleaning may have changed the prefix's white space.
    """
    words = (task_prefix or "").split()
    spelled = re.compile(re.escape(task_prefix or "") + "|" + r"\s*" + r"\s+".join(map(re.escape, words)) + r"\s*")
    for index, message in enumerate(messages):
        if words and message.role == "user":
            found = spelled.match(message.content)
            n_chars = found.end() if found else 0
            bare = replace(message, content=message.content[n_chars:])
            return (*messages[:index], bare, *messages[index + 1 :]), message.content[:n_chars]
    return messages, ""


def check_pair(example: Example) -> None:
    """Raises `RowProblem` unless chosen and rejected are both what may follow the messages."""
    check_prompt(example.messages)
    check_continuation(example.messages, example.chosen, "chosen")
    check_continuation(example.messages, example.rejected, "rejected")


def check_conversation(messages: Sequence[Message]) -> None:
    """Raises `RowProblem` unless user and assistant (and its tools) take turns, the assistant last.

    What the messages say does not matter here: an empty answer is the business of a cleaning rule.
    """
    last = _last_in_turn(messages)
    if last != "assistant":
        what = f"the last message is {last}'s" if last else "there is no message"
        raise RowProblem("conversation", f"{what}; a conversation ends with assistant, whose answer is learned")


def check_prompt(messages: Sequence[Message]) -> None:
    """Raises `RowProblem` unless the messages take turns and wait for an answer."""
    last = _last_in_turn(messages)
    if last not in ("user", "tool"):
        what = f"the last message is {last}'s" if last else "there is no message"
        raise RowProblem("conversation", f"{what}; a prompt ends with user or tool, whom the model answers")


def check_continuation(prompt: Sequence[Message], continuation: Sequence[Message], name: str) -> None:
    """Raises `RowProblem` unless the continuation is what the assistant (and its tools) may say after the prompt."""
    for number, message in enumerate(continuation, 1):
        if message.role not in ("assistant", "tool"):
            raise RowProblem("conversation", f"{name}, message {number}: {message.role} speaks; only answers differ")
    try:
        check_conversation((*prompt, *continuation))
    except RowProblem as problem:
        raise RowProblem(problem.rule, f"{name}: {problem}") from None


def _last_in_turn(messages: Sequence[Message]) -> str:
    """The last message's role, "" for no message. Raises `RowProblem` when someone speaks out of turn."""
    before = ""
    for number, message in enumerate(messages, 1):
        if message.role not in _MAY_FOLLOW[before]:
            raise RowProblem("conversation", _out_of_turn(number, message.role, before))
        before = message.role
    return before


def _out_of_turn(number: int, role: Role, before: str) -> str:
    allowed = " or ".join(_MAY_FOLLOW[before])
    return f"message {number}: {role} " + (f"follows {before}" if before else "is first") + f"; expected: {allowed}"


assert set(ROLES) == set(_MAY_FOLLOW) - {""}
