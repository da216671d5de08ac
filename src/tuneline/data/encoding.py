"""Texts that were decoded wrongly, or hold what no text should."""

import re
from collections.abc import Callable

from tuneline.config.schema import EncodingRuleConfig
from tuneline.data.finding import Changed, Finding, Rule, each
from tuneline.data.records import Example, contents, with_contents

# Tab, line feed, form feed (page breaks, also in source code) and carriage return are text; every other C0 and C1
# control character is debris.
_BROKEN = re.compile(r"[\x00-\x08\x0b\x0e-\x1f\x7f-\x9f\ud800-\udfff\ufffd]")
# UTF-8 read as Windows-1252. "Ã" before a letter, quote or space is Portuguese: only signs count after it.
_MOJIBAKE = re.compile(
    r"[\u00c2\u00c3][\u00a1-\u00aa\u00ac-\u00ba\u00bc-\u00bf]"  # Ã© Â£
    r"|\u00e2\u20ac[\u0153\u017e\u2122\u02dc\u201c\u201d\u00a6\u00a2]"  # â€™ â€œ â€“
    r"|\u00f0\u0178|\u00ef\u00bb\u00bf"  # ðŸ ï»¿
)
# What a repair would change although somebody wrote it: a sign of mojibake named in quotes or in code.
_QUOTED = re.compile(rf"[\"'`][^\s\"'`]{{0,8}}(?:{_MOJIBAKE.pattern})[^\s\"'`]{{0,8}}[\"'`]")
_IN_CODE = re.compile(rf"`[^`\n]*(?:{_MOJIBAKE.pattern})")
_FENCE = re.compile(r"^[ \t]*(?:```|~~~)", re.MULTILINE)
_BESIDE_ASCII = re.compile(r"[^\x00-\x7f]+")
_LETTER = re.compile(r"[\u00c0-\u00d6\u00d8-\u00f6\u00f8-\u024f\u0370-\u052f]")  # Latin, Greek, Cyrillic
_CONTROLS = bytes(byte for byte in range(0x20) if byte not in b"\t\n\f\r") + b"\x7f"
# Every sign of mojibake begins with one of these, which good text rarely holds.
_MOJIBAKE_LEADS = ("\u00c2", "\u00c3", "\u00e2\u20ac", "\u00f0\u0178", "\u00ef\u00bb\u00bf")
_LEAD_OF_C1 = b"\xc2"  # U+0080 to U+00BF in UTF-8 begin with this byte


def encoding_rule(settings: EncodingRuleConfig) -> Rule:
    """Rows with a replacement or control character, a lone surrogate or signs of mojibake go, or are repaired."""
    match settings.action:
        case "reject":
            return each(_rejected)
        case "repair":
            fix = _fixer()
            return each(lambda example: _repaired(example, fix))


def encoding_problem(text: str) -> str | None:
    """What is broken in the text, and where; None for a text in order."""
    if not _suspect(text):
        return None
    if found := _BROKEN.search(text):
        return f"U+{ord(found[0]):04X} at character {found.start() + 1} is no text"
    if not text.isascii() and (found := _MOJIBAKE.search(text)):
        return f"{found[0]!r} at character {found.start() + 1}: UTF-8 that was read as Windows-1252"
    return None


def _suspect(text: str) -> bool:
    """False only for a text in order; much faster than the expressions, which look at every character."""
    try:
        data = text.encode()
    except UnicodeEncodeError:  # a lone surrogate
        return True
    if len(data.translate(None, _CONTROLS)) != len(data):
        return True
    if text.isascii():
        return False
    return _LEAD_OF_C1 in data or "\ufffd" in text or any(lead in text for lead in _MOJIBAKE_LEADS)


def _first_problem(texts: list[str]) -> str | None:
    for text in texts:
        if problem := encoding_problem(text):
            return problem
    return None


def _rejected(example: Example) -> Finding:
    return _first_problem(contents(example))


def _repaired(example: Example, fix: Callable[[str], str]) -> Finding:
    """Mends the broken texts only; what ftfy cannot mend is rejected for what is left in it.

    A text that may mean its mojibake is rejected as well: `s.replace("Ã©", "é")` would become `s.replace("é", "é")`.
    """
    texts = contents(example)
    if _first_problem(texts) is None:
        return None
    if problem := next(filter(None, map(_meant, texts)), None):
        return problem
    mended = [fix(text) if encoding_problem(text) else text for text in texts]
    if problem := _first_problem(mended):
        return problem
    return Changed(with_contents(example, mended), {"encoding_repaired": 1})


def _meant(text: str) -> str | None:
    """Why the text may hold its mojibake on purpose; None where a repair is safe."""
    if text.isascii() or not (found := _MOJIBAKE.search(text)):
        return None
    sign = f"{found[0]!r} at character {found.start() + 1}: UTF-8 that was read as Windows-1252"
    if _FENCE.search(text) or _QUOTED.search(text) or _IN_CODE.search(text):
        return f"{sign}, in a text that quotes it or holds code"
    if any(map(_is_sound, _BESIDE_ASCII.findall(text))):
        return f"{sign}, beside letters that were read rightly"
    return None


def _is_sound(signs: str) -> bool:
    """Whether these signs beside ASCII hold a letter, and are no UTF-8 that was read as Windows-1252."""
    if not _LETTER.search(signs):
        return False
    try:
        signs.encode("sloppy-windows-1252").decode("utf-8")
    except UnicodeError:
        return True
    return False


def _fixer() -> Callable[[str], str]:
    """ftfy's repair of the encoding; entities, quotes, ligatures, widths and line ends are the author's business.

    Importing it also makes the codec sloppy-windows-1252 known.
    """
    import ftfy

    only_encoding = ftfy.TextFixerConfig(
        unescape_html=False,
        fix_latin_ligatures=False,
        fix_character_width=False,
        uncurl_quotes=False,
        fix_line_breaks=False,
        normalization=None,
        explain=False,
    )
    return lambda text: ftfy.fix_text(text, only_encoding)
