"""Telephone numbers in running text.

A number counts only when it is written as one: in the international form, in a national form that nothing else
has, or behind a word that says so. Prices, dates, ids, IP addresses, ISBNs and the numbers of an SQL statement are
left alone: damaged data is worse than a number too many.
"""

import re
from collections.abc import Iterator, Set
from functools import cache
from types import ModuleType

from tuneline.data.addresses import LETTER, Span

MIN_DIGITS, MAX_DIGITS = 9, 15  # E.164 allows 15; below 9 are dates and ids

_SEPARATOR = r"[ ./\u00a0\u202f\u2010\u2011-]"
_DASH = r"[ .\u00a0\u202f\u2010\u2011\u2013-]"
# Not inside a word, number or path, nor a term of a sum: "5 +1234567890", or digits over "+1234567890".
_BEFORE = rf"(?<![{LETTER}A-Z+/=#-])(?<!(?<!\*)\*)(?<!\d[ \n.,:])"  # **bold** is no product
_AFTER = rf"(?![{LETTER}A-Z%]|[.,:/-]\d)"
# Digits behind a space mean that this is a longer number, or the next telephone number of the same form.
_TRUNK_NEXT = r"(?! (?!0[1-9]\d{1,3}[ /-]\d{3})\d)"
_PAIR_NEXT = r"(?! (?!0[1-9](?:[ .-]\d\d){4})\d)"
# Every group of digits is behind a separator that must be there, so the time to match stays linear.
_NUMBER = (
    r"(?P<number>"
    r"(?P<abroad>\+[1-9]\d{0,14}"  # +49 170 1234567, +44 (0)20 7946 0958, +33 6 12 34 56 78
    rf"(?:{_SEPARATOR}?\(\d{{1,4}}\)(?:{_SEPARATOR}?\d{{2,12}})?|{_SEPARATOR}\d(?={_SEPARATOR}\d))?"
    rf"(?:{_SEPARATOR}\d{{2,12}}){{0,6}}"
    rf"|00[1-9]\d{{0,2}}(?:{_SEPARATOR}\d{{2,12}}){{1,6}})"  # 0049 170 1234567
    rf"|(?:\+?1{_DASH})?\(\d{{3}}\){_DASH}?\d{{3}}{_DASH}?\d{{4}}"  # (555) 123-4567, +1 (555) 123-4567
    r"|(?:1[.-])?\d{3}(?P<dot>[.\u2010\u2011\u2013-])\d{3}(?P=dot)\d{4}"  # 555-123-4567
    r"|(?:1 )?[2-9]\d\d [2-9]\d\d-\d{4}"  # 555 123-4567
    rf"|(?:\(0[1-9]\d{{1,3}}\)|0[1-9]\d{{1,3}})"
    rf"[ /-]\d{{3,8}}(?:[ -]\d{{2,4}}){{0,2}}{_TRUNK_NEXT}"  # 020 7946 0958
    rf"|0[1-9](?P<pair>[ .-])\d\d(?:(?P=pair)\d\d){{3}}{_PAIR_NEXT}"  # 06 12 34 56 78
    r"|(?:\(0[2-8]\)|0[2-8])(?P<four>[ -])\d{4}(?P=four)\d{4}(?! \d)"  # 03-1234-5678, (02) 9374 4000
    r"|0[1-9]-(?:\d{7,8}|\d{3} \d{2,3} \d{2})(?! \d)"  # 06-12345678, 08-123 456 78
    r"|8[ -]?\(?\d{3}\)?[ -]\d{3}-\d\d-\d\d"  # 8 (495) 123-45-67
    r"|\([1-9]\d\) ?(?!(?:19|20)\d\d-(?:19|20)\d\d)9?\d{4}-\d{4}"  # (11) 91234-5678
    r"|1[3-9]\d-\d{4}-\d{4}"  # 138-0013-8000
    r")"
)
_PHONE = re.compile(_BEFORE + _NUMBER + _AFTER)
# Right behind a telephone number the digits in front are no sum and no longer number: lists of numbers, or glued ones.
_NEXT_PHONE = re.compile(r"(?:, ?|; ?|[ \n.:/]| [/|] )?" + _NUMBER + _AFTER)
_ZIP_CODE = re.compile(r"\d{5}-\d{4}")
_STATE = re.compile(r"(?:\b(?!TEL|FAX)[A-Z]{2}|(?i:\bzip|zip code|zipcode)\W?)[\s#*/,]{1,8}\Z")
_GROUP_END = re.compile(r"\d(?!\d)")
_DIGITS = re.compile(r"\d")

# Any writing of 9 to 15 digits, which counts behind a label.
_ANY_WRITING = re.compile(
    rf"(?<![{LETTER}A-Z.,+/-])\(?\d(?:[ ./()\u00a0\u2011-]{{0,2}}\d){{8,14}}(?![{LETTER}A-Z%(]|[.,:/-]?\d| \d)",
    re.ASCII,
)
_FILL = r"[\s\"'`*:=.#(>\]\[_：-]"
_LABEL = re.compile(
    r"(?:(?:phone|telefoon|telefono?|téléphone|teléfono|mobile|mobil|móvil|cellular|celular|whats ?app|hotline|landline"
    r"|portable|handy|rufnummer|msisdn|电话|手机|联系方式|電話|携帯"
    r"|(?<![a-z])(?:(?P<verb>called|calling|call|ring|text|contact|reach)|tel|tlf|cell|fax|dial|sms|mob))号?码?"
    rf"{_FILL}{{0,4}}(?:(?:number|nummer|numero|número|no|nr|num|is|was|at|me|us|him|her|them|on|or|mobile|home|work"
    rf"|office|my|the|为|是){_FILL}{{1,4}}){{0,3}})\Z",
    re.IGNORECASE,
)
_OBJECT = re.compile(r"\b(?:number|me|us|him|her|them|mobile|home|work|office)\b", re.IGNORECASE)
# What counts right behind a verb: "text 12345 67890" is no telephone number.
_CLEAR_FORM = re.compile(r"\(?0|1?[ .-]?\(?[2-9]\d\d\)?[ .-]?[2-9]\d\d[ .-]?\d{4}\Z|1[3-9]\d{9}\Z", re.ASCII)
_YEARS = re.compile(r"(?:(?:19|20)\d\d(?:\D+|\Z)){2,}", re.ASCII)
_WINDOW = 48  # characters in front of a number in which its label is looked for
# Whose numbers are recognised behind a label without a country code.
_REGIONS = ("US", "GB", "DE", "FR", "ES", "IT", "NL", "PL", "IN", "CN", "JP", "BR", "AU", "MX", "RU", "KR", "TR", "ZA")


def find_phones(text: str, begin: int, end: int) -> Iterator[Span]:
    """Telephone numbers between the offsets, in no order; a labelled one may be found twice."""
    written = list(_written_as_phones(text, begin, end))
    yield from written
    ends = {last for _, last in written}
    for found in _ANY_WRITING.finditer(text, begin, end):
        if _is_labelled(text, found, ends) and _is_valid_anywhere(found[0]):
            ends.add(found.end())
            yield found.span()


def _is_labelled(text: str, found: re.Match[str], ends: Set[int]) -> bool:
    """Whether a label is in front, or a number that ends at one of `ends`: its placeholder would be a label as well."""
    before = text[max(0, found.start() - _WINDOW) : found.start()]
    gap = _DIGITS.split(before)[-1]
    label = _LABEL.search("phone>" + gap if found.start() - len(gap) in ends else before)
    if not label or _YEARS.fullmatch(found[0]):
        return False
    return not label["verb"] or _OBJECT.search(label[0]) is not None or _CLEAR_FORM.match(found[0]) is not None


def _written_as_phones(text: str, begin: int, end: int) -> Iterator[Span]:
    """One pass, so the time is linear."""
    found = _PHONE.search(text, begin, end)
    while found:
        last = _phone_end(found, text)
        if last:
            yield found.start("number"), last
        # The next search must see what is in front, hence offsets and no slice.
        found = (_NEXT_PHONE.match(text, last, end) if last else None) or _PHONE.search(text, last or found.end(), end)


def _phone_end(found: re.Match[str], text: str) -> int:
    """Where the telephone number ends, 0 when it is none. An international one may have caught what is behind it."""
    written = found["number"]
    if found["abroad"]:
        valid = [end for end in _ends_of_groups(written) if _is_valid_abroad(written[:end])]
        followed = [end for end in valid if _is_followed_by_phone(text, found.start("number") + end)]
        if valid:
            return found.start("number") + max(followed or valid)
        if written.startswith("00"):
            return 0
    return found.end() if _is_phone(written) and not _is_zip_code(text, found) else 0


def _is_zip_code(text: str, found: re.Match[str]) -> bool:
    """MA 02110-1301, also over a line's end; a telephone number may have the same form elsewhere."""
    if not _ZIP_CODE.fullmatch(found["number"]):
        return False
    return _STATE.search(text[max(0, found.start("number") - _WINDOW) : found.start("number")]) is not None


def _ends_of_groups(written: str) -> list[int]:
    return [group.end() for group in _GROUP_END.finditer(written)]


def _is_followed_by_phone(text: str, end: int) -> bool:
    following = _NEXT_PHONE.match(text, end)
    return following is not None and following.start("number") > end and _is_phone(following["number"])


def _is_phone(written: str) -> bool:
    digits = _DIGITS.findall(written)
    # only zeros and ones: a binary number
    return MIN_DIGITS <= len(digits) <= MAX_DIGITS and not set(digits) <= {"0", "1"}


def _is_valid_abroad(written: str) -> bool:
    return MIN_DIGITS <= len(_DIGITS.findall(written)) <= MAX_DIGITS + 2 and _is_valid(_with_plus(written), None)


def _with_plus(written: str) -> str:
    return "+" + written[2:] if written.startswith("00") else written


def _is_valid_anywhere(written: str) -> bool:
    return _is_phone(written) and any(_is_valid(written, region) for region in _REGIONS)


def _is_valid(written: str, region: str | None) -> bool:
    """Whether the country's numbering plan has it (libphonenumber)."""
    phonenumbers = _phonenumbers()
    try:
        return bool(phonenumbers.is_valid_number(phonenumbers.parse(written, region)))
    except phonenumbers.NumberParseException:
        return False


@cache
def _phonenumbers() -> ModuleType:
    import phonenumbers

    return phonenumbers
