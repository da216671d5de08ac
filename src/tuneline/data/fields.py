"""Values of a row by their keys, of the type that a format expects."""

from collections.abc import Iterable
from typing import TypeAlias

from tuneline.data.conversation import RowProblem
from tuneline.data.records import Json
from tuneline.data.rows import kind_of
from tuneline.data.strict_json import decoded

Fields: TypeAlias = dict[str, Json]
_SHOWN_CHARS = 60  # of a key


def present(fields: Fields, key: str, place: str = "") -> Json:
    """The value, null too. Raises `RowProblem` when the key is missing."""
    if key not in fields:
        raise RowProblem("format", f"{place}no {key!r}; the keys are: {listed(fields)}")
    return fields[key]


def text(fields: Fields, key: str, place: str = "") -> str:
    """Raises `RowProblem` for anything but a text."""
    value = present(fields, key, place)
    if not isinstance(value, str):
        raise RowProblem("format", f"{place}{key} is {kind_of(value)}; text is expected")
    return value


def optional_text(fields: Fields, key: str) -> str:
    """The text, "" for none or null."""
    return "" if fields.get(key) is None else text(fields, key)


def objects(value: Json, key: str, each: str) -> list[Fields]:
    """The value as a list of objects, one of which is called `each`. Raises `RowProblem` for anything else."""
    if not isinstance(value, list):
        raise RowProblem("format", f"{key} is {kind_of(value)}; a list of {each}s is expected")
    return [an_object(item, f"{each} {number}") for number, item in enumerate(value, 1)]


def an_object(value: Json, place: str) -> Fields:
    if not isinstance(value, dict):
        raise RowProblem("format", f"{place} is {kind_of(value)}; an object is expected")
    return value


def opened(value: Json, place: str) -> Json:
    """The value that a text is as JSON; any other value as it is. Raises `RowProblem` for text that is no JSON."""
    if not isinstance(value, str):
        return value
    try:
        return decoded(value)
    except ValueError as error:
        raise RowProblem("format", f"{place}: {error}") from None


def opened_list(value: Json, place: str) -> Json:
    """`opened` for a text that begins as a list or an object does: CSV has no other way to hold one."""
    return opened(value, place) if isinstance(value, str) and value.lstrip()[:1] in ("[", "{") else value


def listed(keys: Iterable[str]) -> str:
    """Keys, for messages: the first 12, long or unprintable ones as the beginning of an ASCII literal."""
    shown = (key if key.isprintable() and len(key) <= _SHOWN_CHARS else f"{key!a:.{_SHOWN_CHARS}}" for key in keys)
    return ", ".join(sorted(shown)[:12]) or "none"
