"""Texts that were decoded wrongly, or hold what no text should."""

import re

from tuneline.data.records import Example, contents

# Tab, line feed and carriage return are text; every other C0 and C1 control character is debris.
_BROKEN = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\ud800-\udfff\ufffd]")
# UTF-8 read as Windows-1252. "Ã" before a letter, quote or space is Portuguese: only signs count after it.
_MOJIBAKE = re.compile(
    r"[\u00c2\u00c3][\u00a1-\u00aa\u00ac-\u00ba\u00bc-\u00bf]"  # Ã© Â£
    r"|\u00e2\u20ac[\u0153\u017e\u2122\u02dc\u201c\u201d\u00a6\u00a2]"  # â€™ â€œ â€“
    r"|\u00f0\u0178|\u00ef\u00bb\u00bf"  # ðŸ ï»¿
)


def encoding_problem(example: Example) -> str | None:
    """Reason when a text has a replacement or control character, a lone surrogate, or signs of mojibake."""
    for text in contents(example):
        if text.isascii() and text.isprintable():
            continue
        if found := _BROKEN.search(text):
            return f"U+{ord(found[0]):04X} at character {found.start() + 1} is no text"
        if not text.isascii() and (found := _MOJIBAKE.search(text)):
            return f"{found[0]!r} at character {found.start() + 1}: UTF-8 that was read as Windows-1252"
    return None
