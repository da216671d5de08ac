"""What a conversation must look like, whatever format it came in."""

from collections.abc import Sequence

from tuneline.data.records import ROLES, Message, Role

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


def known_role(name: str, names: dict[str, Role], number: int) -> Role:
    """The canonical role for a format's own name of it. Raises `RowProblem` for one it does not have."""
    if name not in names:
        raise RowProblem("conversation", f"message {number}: role {name!r} is unknown; allowed: {', '.join(names)}")
    return names[name]


def with_system_prompt(messages: tuple[Message, ...], system_prompt: str | None) -> tuple[Message, ...]:
    """The messages behind `system_prompt`, unless they begin with a system message that is not empty."""
    if messages and messages[0].role == "system":
        if messages[0].content.strip():
            return messages
        messages = messages[1:]
    return messages if system_prompt is None else (Message("system", system_prompt), *messages)


def check_conversation(messages: Sequence[Message]) -> None:
    """Raises `RowProblem` unless user and assistant (and its tools) take turns, the assistant last."""
    before = ""
    for number, message in enumerate(messages, 1):
        if message.role not in _MAY_FOLLOW[before]:
            raise RowProblem("conversation", _out_of_turn(number, message.role, before))
        before = message.role
    if before != "assistant":
        last = f"the last message is {before}'s" if before else "there is no message"
        raise RowProblem("conversation", f"{last}; a conversation ends with assistant, whose answer is learned")


def _out_of_turn(number: int, role: Role, before: str) -> str:
    allowed = " or ".join(_MAY_FOLLOW[before])
    return f"message {number}: {role} " + (f"follows {before}" if before else "is first") + f"; expected: {allowed}"


assert set(ROLES) == set(_MAY_FOLLOW) - {""}
