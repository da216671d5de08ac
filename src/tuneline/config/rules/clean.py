"""Limits of the cleaning rules."""

from collections.abc import Iterator

from tuneline.config.rules.wording import refused
from tuneline.config.schema import CleanConfig


def clean_rules(clean: CleanConfig) -> Iterator[str]:
    length = clean.length
    if length.min_chars > length.max_chars:
        allowed = f"is at most clean.length.max_chars = {length.max_chars}"
        yield refused("clean.length.min_chars", length.min_chars, allowed)
