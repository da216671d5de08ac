"""Personal data and secrets in running text: what they are is in the modules of their kinds, what is done is here.

Damaged data is worse than a number too many: dates, prices, ids, hashes, version numbers and code stay as they are.
"""

import json
from bisect import bisect_left
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Literal, get_args

from msgspec.structs import replace

from tuneline.config.schema import PiiRuleConfig
from tuneline.data.addresses import Span, find_emails, find_ipv4, find_ipv6
from tuneline.data.credentials import find_passwords, find_tokens
from tuneline.data.finding import Changed, Finding, Rule, each
from tuneline.data.identifiers import find_cards, find_ibans
from tuneline.data.national_ids import find_national_ids
from tuneline.data.phones import find_phones
from tuneline.data.records import Example, Json, Message, ToolCall, contents, with_contents, with_id
from tuneline.data.signs import NO_SIGN, Signs, number_regions, signs

PiiKind = Literal["email", "phone", "ip", "card", "iban", "national_id", "secret"]
PII_KINDS: tuple[PiiKind, ...] = get_args(PiiKind)
PiiSpan = tuple[PiiKind, int, int]  # offsets of the first character and behind the last one

_CHARS_BEHIND = 16_000  # an excerpt, masked with it: what its end cuts is whole there, the longest web token too

# Where two kinds claim the same characters, the one with the stricter form has them.
_PRECEDENCE: tuple[PiiKind, ...] = ("secret", "email", "iban", "card", "national_id", "ip", "phone")


def pii_rule(settings: PiiRuleConfig) -> Rule:
    """Puts placeholders such as <EMAIL> in the place of redacted kinds; a row with a kind to drop goes.

    In tool calls and tools the numbers and the keys are looked at as well. meta stays as it is: the task needs it.
    """
    actions = _actions(settings)
    dropped = frozenset(kind for kind in PII_KINDS if actions[kind] == "drop")
    wanted = tuple(kind for kind in PII_KINDS if actions[kind] != "keep")
    return each(lambda example: _finding(example, wanted, dropped))


def find(text: str, kinds: Sequence[PiiKind] = PII_KINDS) -> list[PiiSpan]:
    """What the text holds of these kinds, in its order; no two overlap."""
    shown = signs(text)
    return [] if shown == NO_SIGN else _found(text, shown, kinds)


def mask(text: str) -> str:
    """The text with a placeholder for everything of any kind."""
    return _settled(text, PII_KINDS, Counter())


def excerpt(text: str, n_chars: int) -> str:
    """The beginning of the text, masked before it is cut: of half an address nothing tells what it is."""
    return mask(text[: n_chars + _CHARS_BEHIND])[:n_chars]


def placeholder(kind: PiiKind) -> str:
    return f"<{kind.upper()}>"


def _actions(settings: PiiRuleConfig) -> dict[PiiKind, str]:
    return {
        "email": settings.email,
        "phone": settings.phone,
        "ip": settings.ip,
        "card": settings.card,
        "iban": settings.iban,
        "national_id": settings.national_id,
        "secret": settings.secret,
    }


def _finding(example: Example, kinds: Sequence[PiiKind], dropped: frozenset[PiiKind]) -> Finding:
    texts = contents(example)
    structure = _structure(example)
    if signs("\n".join(texts + structure)) == NO_SIGN:  # once per row: most rows end here
        return None
    counts: Counter[str] = Counter()
    settled = [_settled(text, kinds, counts) for text in texts]
    changed = with_contents(example, settled) if counts else example
    if structure:
        changed = _with_settled_structure(changed, kinds, counts)
    if reasons := [f"{counts[kind]} {kind}" for kind in PII_KINDS if kind in dropped and counts[kind]]:
        return "holds " + ", ".join(reasons)
    return Changed(changed, counts) if counts else None


def _structure(example: Example) -> list[str]:
    """Tool calls and tools as JSON, to look for signs in their numbers and keys; most rows have none."""
    calls: list[ToolCall] = []
    for turn in example.messages + example.chosen + example.rejected:
        if turn.tool_calls:
            calls += turn.tool_calls
    if not calls and not example.tools:
        return []
    parts = [*(dict(call.arguments) for call in calls), *example.tools]
    return [json.dumps(part, ensure_ascii=False) for part in parts]


def _with_settled_structure(example: Example, kinds: Sequence[PiiKind], counts: Counter[str]) -> Example:
    def settled(turns: tuple[Message, ...]) -> tuple[Message, ...]:
        return tuple(replace(turn, tool_calls=tuple(map(call_settled, turn.tool_calls))) for turn in turns)

    def call_settled(call: ToolCall) -> ToolCall:
        return replace(call, arguments=_settled_object(call.arguments, kinds, counts))

    tools = tuple(_settled_json(tool, kinds, counts) for tool in example.tools)
    parts = [settled(turns) for turns in (example.messages, example.chosen, example.rejected)]
    return with_id(replace(example, messages=parts[0], chosen=parts[1], rejected=parts[2], tools=tools))


def _settled_json(value: Json, kinds: Sequence[PiiKind], counts: Counter[str], key: str = "") -> Json:
    match value:
        case str():
            return _settled(value, kinds, counts)
        case bool() | None:
            return value
        case int() | float():
            return _settled_number(value, kinds, counts, key)
        case list():
            return [_settled_json(item, kinds, counts, key) for item in value]
        case dict():
            return _settled_object(value, kinds, counts)


def _settled_object(value: Mapping[str, Json], kinds: Sequence[PiiKind], counts: Counter[str]) -> dict[str, Json]:
    result: dict[str, Json] = {}
    for key, item in value.items():
        new_key = _settled(key, kinds, counts)
        while new_key in result:  # two addresses may have become one placeholder, and no value may be lost
            new_key += "_"
        result[new_key] = _settled_json(item, kinds, counts, key)
    return result


def _settled_number(number: float, kinds: Sequence[PiiKind], counts: Counter[str], key: str) -> Json:
    """The number, or the placeholder in its place; its key is its label."""
    text = f"{key}: {number}"
    for kind, begin, end in find(text, kinds):
        if begin == text.rindex(" ") + 1 and end == len(text):
            counts[kind] += 1
            return placeholder(kind)
    return number


def _settled(text: str, kinds: Sequence[PiiKind], counts: Counter[str]) -> str:
    """The text with placeholders, until nothing more is found: one may lay bare what stood beside the value.

    Adds what was found to `counts`. No placeholder is found itself, so every round leaves less of the text.
    """
    while found := find(text, kinds):
        counts.update(kind for kind, _, _ in found)
        text = _redacted(text, found)
    return text


def _found(text: str, shown: Signs, kinds: Sequence[PiiKind]) -> list[PiiSpan]:
    taken: list[PiiSpan] = []
    regions = number_regions(text) if shown.number else []
    for kind in _PRECEDENCE:
        if kind in kinds:
            begins = [begin for _, begin, _ in taken]
            spans = _without_overlaps(_spans(text, shown, regions, kind))
            free = [(kind, begin, end) for begin, end in spans if not _is_taken(taken, begins, begin, end)]
            taken = sorted(taken + free, key=lambda item: item[1])
    return taken


def _spans(text: str, shown: Signs, regions: Sequence[Span], kind: PiiKind) -> Iterator[Span]:
    match kind:
        case "secret":
            yield from find_tokens(text) if shown.token else ()
            yield from find_passwords(text) if shown.password else ()
        case "email":
            yield from find_emails(text) if shown.email else ()
        case "ip":
            yield from _in_regions(text, regions, find_ipv4)
            yield from find_ipv6(text) if shown.ipv6 else ()
        case "iban":
            yield from _in_regions(text, regions, find_ibans)
        case "card":
            yield from _in_regions(text, regions, find_cards)
        case "national_id":
            yield from _in_regions(text, regions, find_national_ids)
        case "phone":
            yield from _in_regions(text, regions, find_phones)


def _in_regions(
    text: str, regions: Sequence[Span], finder: Callable[[str, int, int], Iterator[Span]]
) -> Iterator[Span]:
    for begin, end in regions:
        yield from finder(text, begin, end)


def _without_overlaps(spans: Iterable[Span]) -> Iterator[Span]:
    """The first of those that overlap, and the longest of those that begin together."""
    last = 0
    for begin, end in sorted(spans, key=lambda span: (span[0], -span[1])):
        if begin >= last:
            yield begin, end
            last = end


def _is_taken(taken: Sequence[PiiSpan], begins: Sequence[int], begin: int, end: int) -> bool:
    """Whether one of `taken`, which are in order and apart, shares a character."""
    before = bisect_left(begins, end)  # only the last one that begins in front of `end` can
    return before > 0 and taken[before - 1][2] > begin


def _redacted(text: str, found: Sequence[PiiSpan]) -> str:
    parts, last = [], 0
    for kind, begin, end in found:
        parts += [text[last:begin], placeholder(kind)]
        last = end
    return "".join([*parts, text[last:]])
