"""Answers that decline: learned, they teach the model to decline."""

import re

from tuneline.data.finding import Finding, Rule, each
from tuneline.data.judging import learned, place
from tuneline.data.pii import excerpt
from tuneline.data.records import Example

_SHOWN_CHARS = 60
_LOOKED_AT_CHARS = 300  # an answer that declines says so at once
_CANNOT = r"(?:can(?:no|')?t|can not|won't|will not|am unable|'m unable|am not able|'m not able|must decline)"
# "Cannot help but smile" and "won't give up" decline nothing.
_HELP = r"help(?! (?:but|everyone|it|myself|feeling|laughing|noticing|smiling|thinking|wondering)\b)"
_VERBS = (
    rf"{_HELP}|assist|answer|provide|comply|fulfil?l|do (?:that|this)|engage|support|respond|"
    r"generate|create|write|produce|share|offer|discuss|process|perform|access|with"
)
_TO = r"(?:\w+ly )?(?:be able )?(?:to )?"
_DO = rf"{_TO}(?:{_VERBS}|continue|complete|give(?! up\b))"  # behind an apology
_REQUEST = r"(?: to\b| (?:this|that|the|your) (?:question|request|task)\b|[.,!])"  # an invitation is declined, too
_CANNOT_DO = rf"\b(?:i|we) ?(?:{_CANNOT} {_DO}\b|must decline{_REQUEST})"
_REFUSAL = re.compile(
    rf"\s*(?:(?:i'm|i am|we're|we are) (?:very |so |really |truly )?(?:sorry|afraid)\b[^.!?\n]{{0,60}}?{_CANNOT_DO}"
    rf"|(?:sorry|(?:my )?apologies|unfortunately|regrettably|i apologi[sz]e)\b[^.!?\n]{{0,40}}?{_CANNOT_DO}"
    # Without an apology "we" is mostly everybody, and to continue, complete or give is a subject of its own.
    rf"|i ?{_CANNOT} {_TO}(?:{_VERBS})\b"
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
            return f"{place(example, index)} declines: {excerpt(message.content.strip(), _SHOWN_CHARS)!r}"
    return None
