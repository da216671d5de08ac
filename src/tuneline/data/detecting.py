"""Which format rows have, by their keys."""

from collections import Counter
from collections.abc import Iterable, Sequence

from tuneline.config.schema import Format
from tuneline.data.conversation import RowProblem
from tuneline.data.fields import Fields, listed, opened_list
from tuneline.data.formats import USED_KEYS
from tuneline.data.pii import excerpt
from tuneline.data.records import Json
from tuneline.errors import DataError

_WITH_ANSWERS = ("alpaca", "sharegpt", "openai", "prompt_completion")
_WAITING = ("user", "human", "tool", "observation")  # whoever speaks last wants an answer


def detect(rows: Sequence[Fields], place: str) -> tuple[Format, int]:
    """The format that most rows have, the earlier one when two tie; and how many rows that is.

    Raises `DataError` when no row fits any.
    """
    votes = Counter(found for row in rows if (found := format_of(row)) is not None)
    if not votes:
        known = "; ".join(f"{name} ({', '.join(sorted(keys))})" for name, keys in USED_KEYS.items())
        what = f"the keys {listed(rows[0])} fit" if rows else "its first rows fit"
        raise DataError(f"{place}: {what} no known format; map them with columns, or rename them, to one of: {known}")
    return votes.most_common(1)[0]


def count_of_format(rows: Iterable[Fields], chosen: Format) -> int:
    """Rows that look like the format."""
    return sum(format_of(row) == chosen for row in rows)


def format_of(row: Fields) -> Format | None:
    """The format that the row's keys are of; labels and pairs first, so that nothing bad is learned from as good."""
    keys = row.keys()
    if {"chosen", "rejected"} <= keys:
        return "preference"
    if _has_label(row) and (not keys.isdisjoint({"messages", "conversations", "completion"}) or _is_alpaca(row)):
        return "kto"
    if "messages" in keys:
        return "prompt" if _waits(row["messages"]) else "openai"
    if "conversations" in keys:
        return "prompt" if _waits(row["conversations"]) else "sharegpt"
    if _is_alpaca(row):
        return "alpaca"
    return _format_of_texts(row)


def check_no_label(row: Fields, found: Format) -> None:
    """Raises `RowProblem` for a label where the format was found and has none: it may say that the answer is bad."""
    value = row.get("label")
    if value is None or value == "" or found not in _WITH_ANSWERS:
        return
    raise RowProblem(
        "format",
        f"label is {excerpt(repr(value), 40)}, and format {found}, which was found, learns a bad answer like a good"
        f" one; write true or false for format kto, name the key that says so in columns, or set format: {found} to"
        " leave label out",
    )


def _format_of_texts(row: Fields) -> Format | None:
    if {"prompt", "completion"} <= row.keys():
        return "prompt_completion"
    if "text" in row:
        return "text"
    if "html" in row:
        return "html"
    return "prompt" if "prompt" in row else None


def _is_alpaca(row: Fields) -> bool:
    return {"instruction", "output"} <= row.keys()


def _has_label(row: Fields) -> bool:
    """True for what may mean good or bad; 0 and 1 too, which the adapter then refuses instead of ignoring them.

    In CSV all of them are texts.
    """
    if "kto_tag" in row:
        return True
    match row.get("label"):
        case bool() | 0 | 1:
            return True
        case str(word):
            return word.strip().lower() in ("true", "false", "0", "1")
    return False


def _waits(turns: Json) -> bool:
    try:
        turns = opened_list(turns, "messages")
    except RowProblem:
        return False
    match turns:
        case [*_, {"role": str(speaker)} | {"from": str(speaker)}]:
            return speaker in _WAITING
    return False
