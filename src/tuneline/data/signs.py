"""Cheap signs that a text may hold personal data or secrets: most texts show none, and need no closer look.

A sign may be wrong about a text that holds nothing. What shows no sign is not found: a bearer's token without its
header, and a password without a digit.
"""

import re
from typing import NamedTuple

_DIGITS = b"0123456789"
_LETTERS_KEPT = b"ABCDEFGHIJKLMNOPQRSTUVWXYZ"
_SKELETON = _DIGITS + _LETTERS_KEPT + b"@_-=:/(["
# What is left of a page of prose without these is some fifty bytes, in which every further look costs next to nothing.
_NO_SKELETON = bytes(set(range(256)) - set(_SKELETON))
_NO_DIGIT = bytes(set(range(256)) - set(_DIGITS))
# All digits as 0, all capitals as A: a pattern that begins with one known byte is searched at the speed of memory.
_FORM = bytes.maketrans(_DIGITS + _LETTERS_KEPT, b"0" * 10 + b"A" * 26)

# Six digits with at most two separators between them, the beginning of an IPv4 address, or 85M01H of a codice fiscale.
_number = re.compile(rb"0(?:(?:[ ./()\-\xc2\xa0\xe2\x80\x90\x91\x93\xaf]{0,3}0){5}|0?0?\.00?0?\.0|0[Aa]00[Aa])").search
_FEWEST_DIGITS = 4  # of an IPv4 address

# The same in a text, and how far a number may reach to both sides of it.
_ANCHOR = re.compile(
    r"[0-9](?:(?:[ ./()\u00a0\u202f\u2010\u2011\u2013-]{0,3}[0-9]){5}"
    r"|[0-9]{0,2}\.[0-9]{1,3}\.[0-9]|[0-9][A-Za-z][0-9]{2}[A-Za-z])"
)
_BEFORE_ANCHOR, _BEHIND_ANCHOR = 40, 60

# A long word behind the separator of a token's prefix: hf_..., sk-..., SG....
_underscored = re.compile(rb"_[A-Za-z0-9_-]{16}").search
_hyphenated = re.compile(rb"-[A-Za-z0-9_-]{16}").search
_dotted = re.compile(rb"\.[A-Za-z0-9_-]{16}").search
# A value given to something, which holds a digit and is as long as a password.
_VALUE = rb"[>\s*\\\"'`]{0,6}(?=[^\s\"'`<>]{8})[^\s\"'`0-9]{0,200}[0-9]"
_set_by_equals = re.compile(b"=" + _VALUE).search
_set_by_colon = re.compile(b":" + _VALUE).search
# What the labels of passwords and keys have in common; a text without any of them is not looked at for values.
_LABELS = (
    *(b"pass", b"key", b"token", b"secret", b"pwd", b"credential", b"jwt", b"bearer", b"sig="),
    *("contraseña".encode(), "密码".encode()),
)
_FEWEST_DIGITS_OF_HEX = 10  # in 32 random hex digits there are 20 on average
# a choice behind the first byte: a pattern of one known word is searched more slowly
_round_at, _square_at = re.compile(rb"\((?:at|AT)\)").search, re.compile(rb"\[(?:at|AT)\]").search
_groups_of_ipv6 = re.compile(rb":[0-9a-fA-F]{0,4}:[0-9a-fA-F]").search


class Signs(NamedTuple):
    """What a closer look may find in a text."""

    email: bool
    number: bool  # telephone numbers, cards, accounts, identity numbers, IPv4
    ipv6: bool
    token: bool  # secrets that are known by their form
    password: bool  # secrets that are known by their label


NO_SIGN = Signs(False, False, False, False, False)


def signs(text: str) -> Signs:
    """What the text may hold."""
    # bytes: patterns that begin with a known byte are searched at the speed of memory, in any language
    encoded = text.encode("utf-8", "surrogatepass")
    skeleton = encoded.translate(None, _NO_SKELETON)
    if _is_plain(encoded, skeleton):
        return NO_SIGN
    n_digits = len(skeleton.translate(None, _NO_DIGIT))
    has_at = b"@" in skeleton
    return Signs(
        has_at or _may_hold_hidden_at(encoded, skeleton),
        n_digits >= _FEWEST_DIGITS and _number(encoded.translate(_FORM)) is not None,
        n_digits > 0 and skeleton.count(b":") > 1 and _groups_of_ipv6(encoded) is not None,
        _may_hold_token(encoded, skeleton, has_at, n_digits),
        n_digits > 0 and _may_hold_password(encoded, skeleton),
    )


def _is_plain(encoded: bytes, skeleton: bytes) -> bool:
    """True only for prose in which nothing below would find a sign, known by the fewest looks."""
    return (
        not skeleton.translate(None, _LETTERS_KEPT)
        and b"DOT" not in skeleton
        and not _may_hold_capitals(encoded, skeleton)
        and not _dotted(encoded)
    )


def _may_hold_hidden_at(encoded: bytes, skeleton: bytes) -> bool:
    return bool(
        (b"(" in skeleton and _round_at(encoded))
        or (b"[" in skeleton and _square_at(encoded))
        or (b"DOT" in skeleton and b" DOT " in encoded and b" AT " in encoded)
    )


def _may_hold_token(encoded: bytes, skeleton: bytes, has_at: bool, n_digits: int) -> bool:
    # plain tests: every row of the data comes here, and a loop takes three times as long
    return bool(
        (b"-" in skeleton and _hyphenated(encoded))
        or (b"_" in skeleton and _underscored(encoded))
        or _dotted(encoded)
        or (b":" in skeleton and ((has_at and b"://" in skeleton) or b":AA" in skeleton))
        or (b"/T" in skeleton and b"/B" in skeleton)  # hooks.slack.com/services/T.../B...
        or _may_hold_capitals(encoded, skeleton)
        or (n_digits >= _FEWEST_DIGITS_OF_HEX and (b"AC" in skeleton or b"SK" in skeleton))
    )


def _may_hold_capitals(encoded: bytes, skeleton: bytes) -> bool:
    """Private keys, keys of AWS and of Google."""
    return (
        b"KIA" in skeleton
        or b"SIA" in skeleton
        or b"BIA" in skeleton
        or b"ACCA" in skeleton
        or b"PRIVATEKEY" in skeleton
        or (b"AIS" in skeleton and b"AIzaSy" in encoded)
    )


def _may_hold_password(encoded: bytes, skeleton: bytes) -> bool:
    lowered = encoded.lower()
    if not any(label in lowered for label in _LABELS):
        return False
    return bool(
        (b"=" in skeleton and _set_by_equals(encoded))
        or (b":" in skeleton and _set_by_colon(encoded))
        or b"--" in skeleton
        or b"API" in skeleton
        or b"assw" in encoded
        or (b":B" in skeleton and b"Bearer " in encoded)
    )


def number_regions(text: str) -> list[tuple[int, int]]:
    """The parts of the text that may hold a number of interest, in order and apart; labels may lie in front of them."""
    regions: list[tuple[int, int]] = []
    for anchor in _ANCHOR.finditer(text):
        begin, end = max(0, anchor.start() - _BEFORE_ANCHOR), min(len(text), anchor.end() + _BEHIND_ANCHOR)
        if regions and begin <= regions[-1][1]:
            begin = regions.pop()[0]
        regions.append((begin, end))
    return regions
