"""E-mail addresses and telephone numbers in running text.

A number counts as a telephone number only when it is written as one. Prices, dates, ids, IP addresses, ISBNs
and the numbers of an SQL statement are left alone: damaged data is worse than a number too many.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass

from tuneline.data.records import Example, contents, with_contents

KINDS = ("email", "phone")
EMAIL_PLACEHOLDER = "<EMAIL>"
PHONE_PLACEHOLDER = "<PHONE>"
MIN_PHONE_DIGITS, MAX_PHONE_DIGITS = 9, 15  # E.164 allows 15; below 9 are dates and ids

# No "%" in front: LIKE '%@mail.com' is a pattern. No "(" behind: a @ b.transpose() is code.
_EMAIL = re.compile(
    r"(?<![\w.%+-])[a-z0-9](?:[\w.+-]{0,63})@(?:[a-z0-9](?:[a-z0-9-]{0,62})\.){1,4}[a-z]{2,24}(?![\w(-])",
    re.IGNORECASE,
)
# Not inside a word, number or path, nor a term of a sum: "5 +1234567890", or digits over "+1234567890".
_BEFORE = r"(?<![\w+*/=#-])(?<!\d[ \n.,:])"
_AFTER = r"(?![\w%]|[.,:/-]\d)"
# Every group of digits is behind a separator that must be there, so the time to match stays linear.
_NUMBER = (
    r"(?P<number>"
    r"\+[1-9]\d{0,14}(?:[ .-]?\(\d{1,4}\))?(?:[ ./-]\d{2,12}){0,6}"  # +491701234567, +49 170 1234567
    r"|00[1-9]\d{0,2}(?:[ ./-]\d{2,12}){1,6}"  # 0049 170 1234567
    r"|(?:\+?1[ .-])?\(\d{3}\)[ .-]?\d{3}[ .-]?\d{4}"  # (555) 123-4567, +1 (555) 123-4567
    r"|(?:1[.-])?\d{3}(?P<dot>[.-])\d{3}(?P=dot)\d{4}"  # 555-123-4567
    r"|\(?0[1-9]\d{1,3}\)?[ /-]\d{3,8}(?:[ -]\d{2,4}){0,2}(?! \d)"  # 020 7946 0958
    r"|0[1-9](?P<pair>[ .-])\d\d(?:(?P=pair)\d\d){3}(?! \d)"  # 06 12 34 56 78
    r")"
)
_PHONE = re.compile(_BEFORE + _NUMBER + _AFTER)
# Right behind a telephone number the digits in front are no sum and no longer number: lists of numbers, or glued ones.
_NEXT_PHONE = re.compile(r"[ \n.,:]?" + _NUMBER + _AFTER)
# Cheap to look for, and in every number above: digits around a separator, or many of them behind a plus.
_SIGN_OF_PHONE = re.compile(r"\d[ ./-]\d\d|\d\)|\+\d{9}")
_DIGITS = re.compile(r"\d")


@dataclass(frozen=True, slots=True)
class Redacted:
    """An example with placeholders, and how many of each were put in."""

    example: Example
    counts: Mapping[str, int]  # by kind, zero included


def redact(text: str) -> tuple[str, int, int]:
    """The text with <EMAIL> and <PHONE>, the number of addresses, the number of telephone numbers."""
    n_emails = n_phones = 0
    if "@" in text:
        text, n_emails = _EMAIL.subn(EMAIL_PLACEHOLDER, text)
    if _SIGN_OF_PHONE.search(text):
        text, n_phones = _without_phones(text)
    return text, n_emails, n_phones


def _without_phones(text: str) -> tuple[str, int]:
    """The text with <PHONE>, and how many; one pass, so the time is linear."""
    parts, end, n_phones = [], 0, 0
    found = _PHONE.search(text)
    while found:
        is_phone = _is_phone(found["number"])
        n_phones += is_phone
        parts += [text[end : found.start("number")], PHONE_PLACEHOLDER if is_phone else found["number"]]
        end = found.end()
        found = (_NEXT_PHONE.match(text, end) if is_phone else None) or _PHONE.search(text, end)
    return "".join([*parts, text[end:]]), n_phones


def redact_example(example: Example) -> Redacted | None:
    """The example with its texts redacted, or None when nothing was found. meta stays: the task needs it."""
    found = [redact(text) for text in contents(example)]
    counts = {"email": sum(item[1] for item in found), "phone": sum(item[2] for item in found)}
    if not any(counts.values()):
        return None
    return Redacted(with_contents(example, [item[0] for item in found]), counts)


def _is_phone(written: str) -> bool:
    digits = _DIGITS.findall(written)
    # only zeros and ones: a binary number
    return MIN_PHONE_DIGITS <= len(digits) <= MAX_PHONE_DIGITS and not set(digits) <= {"0", "1"}
