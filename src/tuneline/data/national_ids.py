"""National identity, tax and social security numbers, each by its form and checksum (python-stdnum).

A number whose form is nothing but digits counts only behind its label, unless its checksum is strong.
"""

import re
from collections.abc import Callable, Iterator
from functools import cache
from typing import TypeAlias

from tuneline.data.addresses import Span
from tuneline.data.identifiers import in_front

Validator: TypeAlias = Callable[[str], bool]
_Table: TypeAlias = tuple[tuple[str, Validator], ...]  # an expression, and what validates the number

# Digits in any grouping, with the letters that some numbers begin or end with.
_PLAIN_ID = re.compile(r"(?<![\w./+-])(?<!\d,)[A-Z]{0,5}\d(?:[ ./-]{0,3}\d){3,14}[A-Z]{0,2}(?![\w/]|[.,-]\d)", re.ASCII)


def find_national_ids(text: str, begin: int, end: int) -> Iterator[Span]:
    """Identity, tax and social security numbers of persons."""
    for form, is_valid in _unmistakable():
        for found in form.finditer(text, begin, end):
            if is_valid(found[0]):
                yield found.span()
    for found in _PLAIN_ID.finditer(text, begin, end):
        before = in_front(text, found.start())
        written = found[0].replace(" ", "")
        if any(label.search(before) and is_valid(written) for label, is_valid in _labelled()):
            yield found.span()


@cache
def _unmistakable() -> tuple[tuple[re.Pattern[str], Validator], ...]:
    """Forms that nothing else has, and what validates them. A form that is digits only has a strong checksum."""
    bounds = r"(?<![\w./+-])(?<!\d,)(?:{})(?![\w/]|[.,-]\d)"
    forms = _forms_in_europe() + _forms_elsewhere()
    return tuple((re.compile(bounds.format(form), re.ASCII), is_valid) for form, is_valid in forms)


def _forms_in_europe() -> _Table:
    from stdnum.be import nn
    from stdnum.ch import ssn as ahv
    from stdnum.es import dni, nie
    from stdnum.fi import hetu
    from stdnum.fr import nir
    from stdnum.it import codicefiscale

    return (
        (
            r"(?!BG|GB|NK|KN|TN|NT|ZZ)[A-CEGHJ-PR-TW-Z][A-CEGHJ-NPR-TW-Z](?P<s> ?)\d\d(?P=s)\d\d(?P=s)\d\d(?P=s)[A-D]",
            _always,
        ),  # UK National Insurance: a form without a checksum
        (r"[12] ?\d\d ?(?:0[1-9]|1[0-2]) ?(?:\d\d|2[AB]) ?\d{3} ?\d{3} ?\d\d", nir.is_valid),
        (r"\d{8}-?[A-HJ-NP-TV-Z]|\d\d\.\d{3}\.\d{3}-?[A-HJ-NP-TV-Z]", dni.is_valid),
        (r"[XYZ]-?\d{7}-?[A-HJ-NP-TV-Z]", nie.is_valid),
        (r"(?i:[A-Z]{6}\d\d[A-EHLMPRST]\d\d[A-Z]\d{3}[A-Z])", codicefiscale.is_valid),
        (r"\d{6}[-+A-FU-Y]\d{3}[0-9A-FHJ-NPR-Y]", hetu.is_valid),
        (r"\d\d\.\d\d\.\d\d-\d{3}\.\d\d", nn.is_valid),
        (r"756\.\d{4}\.\d{4}\.\d\d", ahv.is_valid),
    )


def _forms_elsewhere() -> _Table:
    from stdnum.br import cpf
    from stdnum.cl import rut
    from stdnum.cn import ric
    from stdnum.kr import rrn
    from stdnum.mx import curp
    from stdnum.us import ssn

    return (
        (r"(?<!=)(?<!= )\d{3}-\d\d-\d{4}(?! ?(?:[=+]|[*/] ?\d))", ssn.is_valid),  # not a sum
        (r"\d{3}\.\d{3}\.\d{3}-\d\d", cpf.is_valid),
        (
            r"[1-9]\d{5}(?:19|20)\d\d(?:0[1-9]|1[0-2])(?:0[1-9]|[12]\d|3[01])\d{3}[\dXx]",
            lambda number: number[-1].upper() == ric.calc_check_digit(number),
        ),
        (r"[A-Z][AEIOUX][A-Z]{2}\d\d(?:0[1-9]|1[0-2])[0-3]\d[HM][A-Z]{5}[A-Z\d]\d", curp.is_valid),
        (r"\d{1,2}\.\d{3}\.\d{3}-[\dKk]", rut.is_valid),
        (r"\d\d(?:0[1-9]|1[0-2])(?:0[1-9]|[12]\d|3[01])-[1-4]\d{6}", rrn.is_valid),
    )


@cache
def _labelled() -> tuple[tuple[re.Pattern[str], Validator], ...]:
    """Labels in front of a number, and what validates the number."""
    labels = _labels_in_europe() + _labels_elsewhere()
    # Nothing but a few words between the label and its number, and no other number.
    return tuple((re.compile(rf"(?:{label})[^\d\n]{{0,24}}\Z", re.IGNORECASE), is_valid) for label, is_valid in labels)


def _labels_in_europe() -> _Table:
    from stdnum.cz import rc
    from stdnum.de import idnr
    from stdnum.dk import cpr
    from stdnum.fr import nif
    from stdnum.gb import nhs
    from stdnum.ie import pps
    from stdnum.nl import bsn
    from stdnum.no import fodselsnummer
    from stdnum.pl import pesel
    from stdnum.ro import cnp
    from stdnum.se import personnummer
    from stdnum.tr import tckimlik

    return (
        (r"steuer|\bidnr|tax[ -]?id|\btin\b", idnr.is_valid),
        (r"\bbsn|burgerservicenummer|sofinummer", bsn.is_valid),
        (r"pesel", pesel.is_valid),
        (r"personnummer|personnr|\bpnr", personnummer.is_valid),
        (r"f[øo]dselsnummer|personnummer", fodselsnummer.is_valid),
        (r"\bcpr", cpr.is_valid),
        (r"\bnhs", nhs.is_valid),
        (r"num[ée]ro fiscal|\bspi\b", nif.is_valid),
        (r"\bpps", pps.is_valid),
        (r"\bcnp", cnp.is_valid),
        (r"rodn[ée] [čc][íi]slo|\brč", rc.is_valid),
        (r"kimlik|\btckn|t\.?c\.? no", tckimlik.is_valid),
    )


def _labels_elsewhere() -> _Table:
    from stdnum.au import tfn
    from stdnum.br import cpf
    from stdnum.ca import sin
    from stdnum.in_ import aadhaar, pan
    from stdnum.us import itin, ssn
    from stdnum.za import idnr

    return (
        (r"\bssn|social security", ssn.is_valid),
        (r"\bitin\b|taxpayer", itin.is_valid),
        (r"aadh?aar|\buid", aadhaar.is_valid),
        (r"\bpan\b", pan.is_valid),
        (r"\bcpf", cpf.is_valid),
        (r"\bsin\b|social insurance", sin.is_valid),
        (r"\btfn|tax file", tfn.is_valid),
        (r"south african id|\bsa id|id number", idnr.is_valid),
    )


def _always(_: str) -> bool:
    return True
