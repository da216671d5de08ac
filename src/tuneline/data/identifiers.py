"""Payment cards, bank accounts and national identity numbers, each by its checksum (python-stdnum).

A number whose form is nothing but digits counts only behind its label, unless its checksum is strong.
"""

import re
from collections.abc import Callable, Iterator, Set
from functools import cache

from tuneline.data.addresses import Span

Validator = Callable[[str], bool]

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


def find_national_ids(text: str, begin: int, end: int) -> Iterator[Span]:
    """Identity, tax and social security numbers of persons."""
    for form, is_valid in _unmistakable():
        for found in form.finditer(text, begin, end):
            if is_valid(found[0]):
                yield found.span()
    for found in _PLAIN_ID.finditer(text, begin, end):
        before = _in_front(text, found.start())
        written = found[0].replace(" ", "")
        if any(label.search(before) and is_valid(written) for label, is_valid in _labelled()):
            yield found.span()


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
    before = _in_front(text, start)
    if _CARD_LABEL.search(before):
        return True
    gap = _DIGIT.split(before)[-1]
    return start - len(gap) in ends and _CARD_LABEL.search("card>" + gap) is not None


def _in_front(text: str, start: int) -> str:
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


# Digits in any grouping, with the letters that some numbers begin or end with.
_PLAIN_ID = re.compile(r"(?<![\w./+-])(?<!\d,)[A-Z]{0,5}\d(?:[ ./-]{0,3}\d){3,14}[A-Z]{0,2}(?![\w/]|[.,-]\d)", re.ASCII)


@cache
def _unmistakable() -> tuple[tuple[re.Pattern[str], Validator], ...]:
    """Forms that nothing else has, and what validates them. A form that is digits only has a strong checksum."""
    from stdnum.be import nn
    from stdnum.br import cpf
    from stdnum.ch import ssn as ahv
    from stdnum.cl import rut
    from stdnum.cn import ric
    from stdnum.es import dni, nie
    from stdnum.fi import hetu
    from stdnum.fr import nir
    from stdnum.it import codicefiscale
    from stdnum.kr import rrn
    from stdnum.mx import curp
    from stdnum.us import ssn

    forms: tuple[tuple[str, Validator], ...] = (
        (r"(?<!=)(?<!= )\d{3}-\d\d-\d{4}(?! ?(?:[=+]|[*/] ?\d))", ssn.is_valid),  # not a sum
        (
            r"(?!BG|GB|NK|KN|TN|NT|ZZ)[A-CEGHJ-PR-TW-Z][A-CEGHJ-NPR-TW-Z](?P<s> ?)\d\d(?P=s)\d\d(?P=s)\d\d(?P=s)[A-D]",
            _always,
        ),  # UK National Insurance: a form without a checksum
        (r"[12] ?\d\d ?(?:0[1-9]|1[0-2]) ?(?:\d\d|2[AB]) ?\d{3} ?\d{3} ?\d\d", nir.is_valid),
        (r"\d{8}-?[A-HJ-NP-TV-Z]|\d\d\.\d{3}\.\d{3}-?[A-HJ-NP-TV-Z]", dni.is_valid),
        (r"[XYZ]-?\d{7}-?[A-HJ-NP-TV-Z]", nie.is_valid),
        (r"(?i:[A-Z]{6}\d\d[A-EHLMPRST]\d\d[A-Z]\d{3}[A-Z])", codicefiscale.is_valid),
        (r"\d{3}\.\d{3}\.\d{3}-\d\d", cpf.is_valid),
        (
            r"[1-9]\d{5}(?:19|20)\d\d(?:0[1-9]|1[0-2])(?:0[1-9]|[12]\d|3[01])\d{3}[\dXx]",
            lambda number: number[-1].upper() == ric.calc_check_digit(number),
        ),
        (r"\d{6}[-+A-FU-Y]\d{3}[0-9A-FHJ-NPR-Y]", hetu.is_valid),
        (r"\d\d\.\d\d\.\d\d-\d{3}\.\d\d", nn.is_valid),
        (r"756\.\d{4}\.\d{4}\.\d\d", ahv.is_valid),
        (r"[A-Z][AEIOUX][A-Z]{2}\d\d(?:0[1-9]|1[0-2])[0-3]\d[HM][A-Z]{5}[A-Z\d]\d", curp.is_valid),
        (r"\d{1,2}\.\d{3}\.\d{3}-[\dKk]", rut.is_valid),
        (r"\d\d(?:0[1-9]|1[0-2])(?:0[1-9]|[12]\d|3[01])-[1-4]\d{6}", rrn.is_valid),
    )
    bounds = r"(?<![\w./+-])(?<!\d,)(?:{})(?![\w/]|[.,-]\d)"
    return tuple((re.compile(bounds.format(form), re.ASCII), is_valid) for form, is_valid in forms)


@cache
def _labelled() -> tuple[tuple[re.Pattern[str], Validator], ...]:
    """Labels in front of a number, and what validates the number."""
    from stdnum.au import tfn
    from stdnum.br import cpf
    from stdnum.ca import sin
    from stdnum.cz import rc
    from stdnum.de import idnr
    from stdnum.dk import cpr
    from stdnum.fr import nif
    from stdnum.gb import nhs
    from stdnum.ie import pps
    from stdnum.in_ import aadhaar, pan
    from stdnum.nl import bsn
    from stdnum.no import fodselsnummer
    from stdnum.pl import pesel
    from stdnum.ro import cnp
    from stdnum.se import personnummer
    from stdnum.tr import tckimlik
    from stdnum.us import itin, ssn
    from stdnum.za import idnr as za_id

    labels: tuple[tuple[str, Validator], ...] = (
        (r"\bssn|social security", ssn.is_valid),
        (r"\bitin\b|taxpayer", itin.is_valid),
        (r"steuer|\bidnr|tax[ -]?id|\btin\b", idnr.is_valid),
        (r"\bbsn|burgerservicenummer|sofinummer", bsn.is_valid),
        (r"pesel", pesel.is_valid),
        (r"aadh?aar|\buid", aadhaar.is_valid),
        (r"\bpan\b", pan.is_valid),
        (r"\bcpf", cpf.is_valid),
        (r"personnummer|personnr|\bpnr", personnummer.is_valid),
        (r"f[øo]dselsnummer|personnummer", fodselsnummer.is_valid),
        (r"\bcpr", cpr.is_valid),
        (r"\bnhs", nhs.is_valid),
        (r"\bsin\b|social insurance", sin.is_valid),
        (r"\btfn|tax file", tfn.is_valid),
        (r"num[ée]ro fiscal|\bspi\b", nif.is_valid),
        (r"\bpps", pps.is_valid),
        (r"\bcnp", cnp.is_valid),
        (r"rodn[ée] [čc][íi]slo|\brč", rc.is_valid),
        (r"kimlik|\btckn|t\.?c\.? no", tckimlik.is_valid),
        (r"south african id|\bsa id|id number", za_id.is_valid),
    )
    # Nothing but a few words between the label and its number, and no other number.
    return tuple((re.compile(rf"(?:{label})[^\d\n]{{0,24}}\Z", re.IGNORECASE), is_valid) for label, is_valid in labels)


def _always(_: str) -> bool:
    return True
