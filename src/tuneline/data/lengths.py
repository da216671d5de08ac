"""Rows that say nothing, or too much."""

import re

from tuneline.data.records import Example, contents

_VISIBLE = re.compile(r"[^\s\u00ad\u200b-\u200f\u2028-\u202f\u2060-\u2064\ufeff]")


def empty_problem(example: Example) -> str | None:
    """Reason when a message or text has no visible character (zero-width ones are not visible)."""
    for number, text in enumerate(contents(example), 1):
        if not _VISIBLE.search(text):
            return f"message {number} ({example.messages[number - 1].role}) is empty" if example.messages else "empty"
    return None


def length_problem(example: Example, min_chars: int, max_chars: int) -> str | None:
    """Reason when a message or text has fewer or more characters than allowed."""
    for text in contents(example):
        if not min_chars <= len(text) <= max_chars:
            return f"{len(text)} characters; allowed are {min_chars} to {max_chars}"
    return None
