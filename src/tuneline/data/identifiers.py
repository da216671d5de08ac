"""Payment cards and bank accounts, each by its checksum (python-stdnum)."""

import re
from collections.abc import Iterator, Set
from functools import cache

from tuneline.data.addresses import Span

_NO_DIGIT = re.compile(r"\D")
_DIGIT = re.compile(r"\d")

# 16 digits in a row, or any number of them in the groups that are printed on a card.
_CARD_FORM = (
    r"(?P<number>\d{15,16}|\d{4}(?P<four>[ -])\d{4}(?P=four)\d{4}(?P=four)\d{1,4}(?:(?P=four)\d{3})?"
    r"|\d{4}(?P<six>[ -])\d{6}(?P=six)\d{4,5})(?![\w/]|[.:-]\d)"
)
_CARD = re.compile(r"(?<![\w./+$€£-])(?<!\d[ ,])" + _CARD_FORM, re.ASCII)
# Digits right behind a card mean that this is a list of numbers, unless they are the next card.
_NEXT_CARD = re.compile(r"[ ,]" + _CARD_FORM, re.ASCII)
_MORE_DIGITS = re.compile(r"[ ,]\d", re.ASCII)
_LABELLED_CARD = re.compile(r"(?<![\w./+$-])(?<!\d,)\d{13,19}(?![\w/]|[.,:-]\d)", re.ASCII)
_CARD_LABEL = re.compile(
    r"(?:\bcard|credit|debit|\bcc\b|visa|master ?card|amex|american express|diners|unionpay|\bpan\b|卡)[^\d\n]{0,20}\Z",
    re.IGNORECASE,
)
# ISO/IEC 7812 issuer prefixes with the lengths of their numbers.
_ISSUERS: tuple[tuple[str, tuple[int, ...]], ...] = (
    (r"4", (13, 16, 19)),  # Visa
    (r"5[1-5]|222[1-9]|22[3-9]|2[3-6]|27[01]|2720", (16,)),  # Mastercard
    (r"3[47]", (15,)),  # American Express
    (r"6011|64[4-9]|65", (16, 17, 18, 19)),  # Discover
    (r"352[89]|35[3-8]", (16, 17, 18, 19)),  # JCB
    (r"30[0-5]|3095|36|3[89]", (14, 16, 19)),  # Diners Club
    (r"62|81", (16, 17, 18, 19)),  # UnionPay
    (r"220[0-4]", (16,)),  # Mir
    (r"50|5[6-8]|63|67", (13, 14, 15, 16, 17, 18, 19)),  # Maestro
    (r"60|82|508", (16,)),  # RuPay
)

_IBAN = re.compile(r"(?<![A-Z0-9])[A-Z]{2}\d\d(?:[ -]?[A-Z0-9]){11,30}", re.IGNORECASE | re.ASCII)
_SHORTEST_IBAN = 15  # Norway

_WINDOW = 40  # characters in front of a number in which its label is looked for


def find_cards(text: str, begin: int, end: int) -> Iterator[Span]:
    """Numbers with an issuer's prefix, its length and a Luhn digit (ISO/IEC 7812)."""
    written = list(_written_as_cards(text, begin, end))
    yield from written
    ends = {end for _, end in written}
    for found in _LABELLED_CARD.finditer(text, begin, end):
        if _has_card_label(text, found.start(), ends) and _is_card(found[0]):
            ends.add(found.end())
            yield found.span()


def find_ibans(text: str, begin: int, end: int) -> Iterator[Span]:
    """International bank account numbers: length and form of the country, and mod 97 (ISO 13616)."""
    for found in _IBAN.finditer(text, begin, end):
        for last in _ends_of_groups(text, found):
            if _is_iban(text[found.start() : last]):
                yield found.start(), last
                break


def _written_as_cards(text: str, begin: int, end: int) -> Iterator[Span]:
    """Rows of cards, in which all numbers are cards. One pass, so the time is linear."""
    found = _CARD.search(text, begin, end)
    while found:
        row, last = [], found.end()
        following: re.Match[str] | None = found
        while following and _is_card(following["number"]):
            row.append(following.span("number"))
            last = following.end()
            following = _NEXT_CARD.match(text, last, end)
        if not _MORE_DIGITS.match(text, last):
            yield from row
        found = _CARD.search(text, last, end)


def _has_card_label(text: str, start: int, ends: Set[int]) -> bool:
    """Whether a label is in front, or one of the cards that end at `ends`: its placeholder would be a label as well."""
    before = in_front(text, start)
    if _CARD_LABEL.search(before):
        return True
    gap = _DIGIT.split(before)[-1]
    return start - len(gap) in ends and _CARD_LABEL.search("card>" + gap) is not None


def in_front(text: str, start: int) -> str:
    """What stands before a number and may label it."""
    return text[max(0, start - _WINDOW) : start]


def _is_card(written: str) -> bool:
    from stdnum import luhn

    digits = _NO_DIGIT.sub("", written)
    return luhn.is_valid(digits) and any(
        len(digits) in lengths and prefix.match(digits) for prefix, lengths in _issuers()
    )


@cache
def _issuers() -> tuple[tuple[re.Pattern[str], tuple[int, ...]], ...]:
    return tuple((re.compile(prefix), lengths) for prefix, lengths in _ISSUERS)


def _ends_of_groups(text: str, found: re.Match[str]) -> Iterator[int]:
    """Where the account may end: the words behind it are letters as well. The longest comes first."""
    for end in range(found.end(), found.start() + _SHORTEST_IBAN - 1, -1):
        if text[end - 1].isalnum() and not text[end : end + 1].isalnum():
            yield end


def _is_iban(written: str) -> bool:
    from stdnum import iban

    # The country's own check digits are left out: not every bank keeps to them.
    return iban.is_valid(written, check_country=False)
