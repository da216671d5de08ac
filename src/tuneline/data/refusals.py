"""Answers that decline: learned, they teach the model to decline."""

import re

from tuneline.data.finding import Finding, Rule, each
from tuneline.data.records import Example
from tuneline.data.turns import learned, place

_LOOKED_AT_CHARS = 300  # an answer that declines says so at once
_CANNOT = r"(?:can(?:no|')?t|can not|won't|will not|am unable|'m unable|am not able|'m not able|must decline)"
_DO = (
    r"(?:to )?(?:help|assist|answer|provide|comply|fulfil?l|do (?:that|this)|engage|support|respond|continue|"
    r"generate|create|write|produce|share|offer|give|discuss|process|perform|complete|access|with)"
)
_REFUSAL = re.compile(
    rf"\s*(?:(?:i'm|i am|we're|we are) (?:very |so |really |truly )?(?:sorry|afraid)\b[^.!?\n]{{0,60}}?\b"
    rf"(?:i|we) ?{_CANNOT}"
    rf"|(?:sorry|(?:my )?apologies|unfortunately|regrettably|i apologi[sz]e)\b[^.!?\n]{{0,40}}?\b"
    rf"(?:i|we) ?{_CANNOT}"
    rf"|(?:i|we) ?{_CANNOT} {_DO}\b"
    rf"|as an? (?:ai|artificial intelligence|(?:large )?language model)\b[^.!?\n]{{0,60}}?\bi ?"
    rf"(?:{_CANNOT}|do not|don't|am not|'m not|lack)\b)",
    re.IGNORECASE,
)


def refusals_rule() -> Rule:
    """Rows in which an assistant message begins by declining ("I'm sorry, but I cannot ...") go.

    A message that calls a tool does something, whatever it says first.
    """
    return each(_declining)


def declines(answer: str) -> bool:
    """True for an answer that begins by declining, in English; an apology alone is none."""
    return _REFUSAL.match(answer[:_LOOKED_AT_CHARS].replace("\u2019", "'")) is not None


def _declining(example: Example) -> Finding:
    for index, message in enumerate(learned(example)):
        if message.role == "assistant" and not message.tool_calls and declines(message.content):
            return f"{place(example, index)} declines: {message.content.strip()[:60]!r}"
    return None
