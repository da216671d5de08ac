"""E-mail addresses and public IP addresses in running text."""

import ipaddress
import re
from collections.abc import Iterator

Span = tuple[int, int]  # offsets of the first character and behind the last one

# Letters that an address may hold. Not every letter: Chinese writes them right beside an address, without a space.
LETTER = r"a-z0-9_\u00aa-\u024f\u0370-\u052f"
# The last label of a domain has letters only: of Latin, Greek or Cyrillic (.рф, .бг, .ελ), or xn-- and how they travel.
_LAST_LABEL = r"(?:xn--[a-z0-9-]{2,59}|[a-z\u00df-\u00f6\u00f8-\u024f\u0370-\u052f]{2,24})"
_DOMAIN = rf"(?:(?!_)[{LETTER}](?:[{LETTER}-]{{0,62}})\.){{1,4}}{_LAST_LABEL}"
# No "%" in front: LIKE '%@mail.com' is a pattern. No "(" behind: a @ b.transpose() is code.
_EMAIL = re.compile(
    rf"(?<![{LETTER}.%+-])(?!_)(?P<local>[{LETTER}][{LETTER}.+-]{{0,63}})@{_DOMAIN}(?![{LETTER}(-])", re.IGNORECASE
)
_HIDDEN_EMAIL = re.compile(
    rf"(?<![{LETTER}.%+-])[a-z0-9][\w.+-]{{0,63}} {{0,2}}[(\[]at[)\]] {{0,2}}"
    rf"[a-z0-9][a-z0-9-]{{0,62}}(?:(?:\.| {{0,2}}[(\[]dot[)\]] {{0,2}})[a-z0-9-]{{2,63}}){{1,4}}(?![\w(-])",
    re.IGNORECASE,
)
# Capitals only: "at" and "dot" in running text are words. Both: LOOK AT example.com is none.
_SPELT_EMAIL = re.compile(
    r"(?<![\w.%+-])[A-Za-z0-9][\w.+-]{0,63} AT [A-Za-z0-9][A-Za-z0-9-]{0,62}"
    r"(?: DOT [A-Za-z0-9][A-Za-z0-9-]{0,62}){0,3} DOT [A-Za-z]{2,24}(?![\w(-])"
)
_LOGIN_BEFORE = re.compile(r"://[^\s/@:]*:[^\s/@]*\Z")
_FILE_ENDINGS = (
    ".png",
    ".jpg",
    ".jpeg",
    ".gif",
    ".svg",
    ".webp",
    ".bmp",
    ".ico",
    ".css",
    ".js",
    ".mjs",
    ".ts",
    ".json",
    ".yaml",
    *(".txt", ".sql", ".csv", ".tsv", ".html", ".xml", ".yml", ".toml", ".ini", ".cfg", ".log", ".ipynb", ".pdf"),
)
# Of the matrix in a @ b.shape, and the files py and md, which are also countries'. Case counts: .mt is a country's.
_ATTRIBUTES = frozenset(
    "shape reshape mean sum dtype values data grad size item mT mH ndim real imag conj inv diag trace norm max min std"
    " var"
    " any all cpu cuda numpy float double half detach clone copy view flatten ravel squeeze unsqueeze transpose permute"
    " weight bias columns index iloc loc tolist device tensor".split()
)
_FILES_OF_COUNTRIES = (".py", ".md")

_IPV4 = re.compile(r"(?<![\w.+-])\d{1,3}(?:\.\d{1,3}){3}(?![\w-]|\.\d)")
_IN_PATH = re.compile(r"\w/\Z")
_VERSION_BEFORE = re.compile(
    r"(?:(?:version|release|build|driver|firmware|update|section|chapter|clause|oid"
    r"|objectidentifier)\W{0,5}"
    r"|\bv\.? ?|§ ?|[<>=~!]= ?[\"']?|\^)\Z",
    re.IGNORECASE,
)
_HOST_BEFORE = re.compile(
    r"(?:\bip\b|ipv4|dns|host|server|resolver|gateway|address|ping|ssh|telnet|curl|connect|client|://)[^\n]{0,16}\Z",
    re.IGNORECASE,
)
_RESOLVERS = ("8.8.8.8", "8.8.4.4", "9.9.9.9")
_WINDOW = 32  # characters in front that tell what a number is
_IPV6 = re.compile(
    r"(?<![0-9a-zA-Z:.])[23][0-9a-f]{3}:(?:[0-9a-f]{0,4}:){1,7}[0-9a-f]{0,4}(?![0-9a-zA-Z:])", re.IGNORECASE
)


def find_emails(text: str) -> Iterator[Span]:
    """Addresses, also with (at) or AT for @. Not git@ in front of a path, ftp://user:word@host, nor icon@2x.png."""
    for found in _EMAIL.finditer(text):
        is_remote = found["local"] == "git" and text[found.end() : found.end() + 1] in {":", "/"}
        is_login = _LOGIN_BEFORE.search(text[max(0, found.start() - _WINDOW) : found.start()])
        if not is_remote and not is_login and not _is_code(found[0]):
            yield found.span()
    if "at)" in text or "at]" in text or "AT)" in text or "AT]" in text:
        yield from (found.span() for found in _HIDDEN_EMAIL.finditer(text))
    if " AT " in text and " DOT " in text:
        yield from (found.span() for found in _SPELT_EMAIL.finditer(text))


def find_ipv4(text: str, begin: int, end: int) -> Iterator[Span]:
    """Addresses of the public internet; not the private, reserved, documentation and multicast ones."""
    last = 0  # no address ends there
    for found in _IPV4.finditer(text, begin, end):
        if _is_public_ipv4(found[0]) and not _is_version(text, found, last):
            last = found.end()
            yield found.span()


def find_ipv6(text: str) -> Iterator[Span]:
    """Global unicast addresses (2000::/3, RFC 4291): any other start is reserved, or code such as a::b."""
    for found in _IPV6.finditer(text):
        try:
            address = ipaddress.IPv6Address(found[0])
        except ValueError:
            continue
        if address.is_global:
            yield found.span()


def _is_code(written: str) -> bool:
    """Whether an address is a file, as icon@2x.png, or an attribute of a matrix product, as a@b.shape."""
    domain = written.rpartition("@")[2]
    if domain.rpartition(".")[2] in _ATTRIBUTES or written.lower().endswith(_FILE_ENDINGS):
        return True
    return domain.count(".") == 1 and domain.lower().endswith(_FILES_OF_COUNTRIES)


def _is_public_ipv4(written: str) -> bool:
    try:
        address = ipaddress.IPv4Address(written)
    except ValueError:  # a number above 255, or with a zero in front
        return False
    return address.is_global and not address.is_multicast


def _is_version(text: str, found: re.Match[str], last: int) -> bool:
    """Whether four numbers are a version, a section or in a path; those of one digit each are, unless a host is named.

    `last`: end of the address in front, if any; its placeholder <IP> names a host.
    """
    before = text[max(0, found.start() - _WINDOW) : found.start()]
    if last > 0 and found.start() - last <= _WINDOW:
        before = "ip>" + text[last : found.start()]
    if _VERSION_BEFORE.search(before) or _IN_PATH.search(before):
        return True
    is_short = len(found[0]) == len("1.2.3.4") and found[0] not in _RESOLVERS
    return is_short and not _HOST_BEFORE.search(before)
