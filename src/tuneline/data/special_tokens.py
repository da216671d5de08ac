"""Control tokens of chat templates, spelled out inside a text."""

import json
import re
from collections.abc import Iterator

from tuneline.config.schema import SpecialTokensRuleConfig
from tuneline.data.finding import Finding, Rule, each
from tuneline.data.judging import place
from tuneline.data.records import Example, Json, Message, message_texts


def special_tokens_rule(settings: SpecialTokensRuleConfig) -> Rule:
    """Rows that spell a control token go: a tokenizer takes it for the token, which ends a turn or forges one.

    Contents, tool calls and descriptions of tools are looked at. A tokenizer does not ask what was meant, so <s> as
    HTML's strike-through counts like any other: take tokens that your model does not have off the list.
    """
    if not settings.tokens:
        return each(lambda _: None)
    # Longest first: of two tokens that begin alike, the reason names the one that is there.
    ordered = sorted(settings.tokens, key=lambda token: (-len(token), token))
    tokens = re.compile("|".join(re.escape(token) for token in ordered))
    firsts = sorted({token[0] for token in ordered})  # a test for these few signs spares most texts the expression
    return each(lambda example: _spelled(example, tokens, firsts))


def _spelled(example: Example, tokens: re.Pattern[str], firsts: list[str]) -> Finding:
    if example.text is not None:
        found = _find(example.text, tokens, firsts)
        return f"the text spells the control token {found}" if found else None
    for index, message in enumerate(example.turns):
        if found := _find(_written(message), tokens, firsts):
            return f"{place(example, index)} spells the control token {found}"
    if example.tools and (found := _find(json.dumps(example.tools, ensure_ascii=False), tokens, firsts)):
        return f"the tools' description spells the control token {found}"
    return None


def _written(message: Message) -> str:
    if not message.tool_calls:
        return message.content
    calls = message.tool_calls
    names = [name for call in calls for name in (call.name, *_keys(dict(call.arguments)))]
    return "\n".join([*message_texts(message), *names])


def _keys(value: Json) -> Iterator[str]:
    """All keys inside a JSON value: a template writes them out like the texts."""
    if isinstance(value, dict):
        yield from value
    items = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    for item in items:
        yield from _keys(item)


def _find(text: str, tokens: re.Pattern[str], firsts: list[str]) -> str | None:
    for first in firsts:
        if first in text:
            found = tokens.search(text)
            return found[0] if found else None
    return None
