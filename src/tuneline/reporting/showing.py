"""Rows as texts that may be shown: without personal data, control characters or length."""

import re
from collections.abc import Iterator

from tuneline.data.pii import mask
from tuneline.data.records import Json

SHOWN_CHARS = 300
_MASKED_CHARS = 20_000  # of a row; far more than is shown, so that nothing shown is the cut-off half of an address
_CONTROL = re.compile("[\x00-\x1f\x7f-\x9f\u061c\u200b-\u200f\u2028-\u202e\u2060-\u2069\ufeff\ud800-\udfff]")
_JSON_ESCAPE = re.compile(r'\\(?:u([0-9a-fA-F]{4})|([nrt"/\\]))')
_ESCAPED_SIGNS = {"n": "\n", "r": "\r", "t": "\t"}
_CANONICAL = {"id", "source", "line", "messages", "text", "meta"}


def shown(row: Json) -> str:
    """A row, or a reason, on one line of at most 300 characters; personal data and secrets are placeholders.

    A row that is no acceptable JSON is looked at behind its escapes: `\\u0040` hides an address from no reader.
    """
    return shortened(escaped(mask(_readable(row)[:_MASKED_CHARS])))


def escaped(text: str) -> str:
    """The text with control, direction and invisible characters and lone surrogates spelled out: `\\n`, `\\u202e`."""
    return _CONTROL.sub(lambda found: found[0].encode("unicode_escape").decode("ascii"), text)


def shortened(text: str, n_chars: int = SHOWN_CHARS) -> str:
    """The first `n_chars` characters, the last one a `…` where more were there."""
    return text if len(text) <= n_chars else f"{text[: n_chars - 1]}…"


def _readable(row: Json) -> str:
    """Lines of `key: value`: a number is masked by the word in front of it ("ssn: ..."), which JSON's quotes hide."""
    match row:
        case str():
            return _JSON_ESCAPE.sub(_sign, row)
        case dict() if row.keys() >= _CANONICAL:
            return "\n".join(_of_example(row))
        case list() | dict():
            return "\n".join(_lines("", row))
    return str(row)


def _of_example(row: dict[str, Json]) -> Iterator[str]:
    if row["text"] is not None:
        yield str(row["text"])
    for part in ("messages", "chosen", "rejected"):
        turns = row.get(part)
        for turn in turns if isinstance(turns, list) else []:
            yield from _of_message(turn, "" if part == "messages" else f"{part} ")


def _of_message(turn: Json, part: str) -> Iterator[str]:
    if isinstance(turn, dict):
        yield f"{part}{turn.get('role')}: {turn.get('content')}"
        yield from _lines("", turn.get("tool_calls", []))


def _lines(key: str, value: Json) -> Iterator[str]:
    match value:
        case dict():
            for name, item in value.items():
                yield from _lines(name, item)
        case list():
            for item in value:
                yield from _lines(key, item)
        case _:
            yield f"{key}: {value}" if key else str(value)


def _sign(found: re.Match[str]) -> str:
    code, letter = found.groups()
    return chr(int(code, 16)) if code else _ESCAPED_SIGNS.get(letter, letter)
