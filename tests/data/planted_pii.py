"""A seeded corpus with personal data and secrets planted in it, and hard negatives: what only looks like them.

The check digits are computed here, from the published rules, and by none of the libraries that the finder uses.
"""

import random
import string
from collections.abc import Callable, Iterator
from dataclasses import dataclass

Random = random.Random
Writer = Callable[[Random], str]


@dataclass(frozen=True, slots=True)
class Sample:
    """A text, and what is planted in it: kind, offset of the first character, offset behind the last one."""

    text: str
    planted: tuple[tuple[str, int, int], ...]


def planted_corpus(seed: int, n_per_writing: int) -> list[Sample]:
    """Samples of every writing of every kind, and as many negatives of each of theirs."""
    draw = Random(seed)
    return [*_positives(draw, n_per_writing), *_negatives(draw, n_per_writing)]


def _positives(draw: Random, n: int) -> Iterator[Sample]:
    for kind, writers in WRITERS.items():
        for writer in writers:
            for _ in range(n):
                before, value, after = _marked(writer(draw))
                frame = draw.choice(FRAMES)
                text_before, text_after = frame.split("@@")
                start = len(text_before) + len(before)
                yield Sample(text_before + before + value + after + text_after, ((kind, start, start + len(value)),))


def _negatives(draw: Random, n: int) -> Iterator[Sample]:
    for writer in NEGATIVES:
        for _ in range(n):
            yield Sample(draw.choice(FRAMES).replace("@@", writer(draw)), ())


def _marked(written: str) -> tuple[str, str, str]:
    """The planted value is between « and »; without them it is the whole."""
    if "«" not in written:
        return "", written, ""
    before, rest = written.split("«")
    value, after = rest.split("»")
    return before, value, after


FRAMES = (
    "@@",
    "Hello, this is what I have on file: @@. Please check it.",
    "She wrote (@@) on the back of the form.",
    "# TODO ask about @@ before the release\nx = [row for row in rows if row.ok]",
    'SELECT name FROM people WHERE note = "@@" AND id < 30;',
    '{"id": 17, "note": "@@", "ok": true}',
    "| name | value |\n|---|---|\n| first | @@ |\n| second | none |",
    "- item one\n- **@@**\n- item three",
    "2024-03-01 12:30:45 INFO worker[3] @@",
    "Q: Which one is it?\nA: @@\nQ: Thanks.",
    "Bitte notieren: @@, und melden Sie sich dann.",
    "C'est noté : @@; merci.",
    "请记下：@@。谢谢。",
    "1. Open the page.\n2. Enter `@@`.\n3. Press OK.",
    "name,value,city\nMiller,@@,Lund",
    "> @@\n\nis what he said on 12 May 2021 at 10:15.",
    "He asked 'is it @@?' and left.",
    "/* @@ */ int main(void) { return 0; }",
)

FIRST = "anna bob carol david eva frank grace henry ines jonas klara liam mia noah olga paul".split()
LAST = "miller smith garcia weber rossi dubois jansen kowalski silva tanaka novak olsen".split()
DOMAINS = (
    "gmail.com mail.example.org web.de company.co.uk uni-lund.se correo.es posta.it firma.pl host.io kontor.no".split()
)


def digits(draw: Random, n: int) -> str:
    return "".join(draw.choice(string.digits) for _ in range(n))


def pick(draw: Random, n: int, alphabet: str) -> str:
    return "".join(draw.choice(alphabet) for _ in range(n))


def from_one(draw: Random, n: int) -> str:
    return draw.choice("23456789") + digits(draw, n - 1)


BASE62 = string.ascii_letters + string.digits
WORDY = BASE62 + "_-"
HEX = "0123456789abcdef"


# --- e-mail


def _email_plain(draw: Random) -> str:
    return f"{draw.choice(FIRST)}.{draw.choice(LAST)}@{draw.choice(DOMAINS)}"


def _email_tagged(draw: Random) -> str:
    return f"{draw.choice(FIRST)}{digits(draw, 2)}+news@{draw.choice(DOMAINS)}"


def _email_shout(draw: Random) -> str:
    return f"{draw.choice(FIRST)}_{draw.choice(LAST)}@{draw.choice(DOMAINS)}".upper()


def _email_angle(draw: Random) -> str:
    return f"{draw.choice(FIRST).title()} <«{_email_plain(draw)}»>"


def _email_mailto(draw: Random) -> str:
    return f"mailto:«{_email_plain(draw)}»"


def _email_hidden(draw: Random) -> str:
    at, dot = draw.choice([(" (at) ", "."), (" [at] ", " [dot] "), ("(at)", "(dot)"), ("[at]", ".")])
    return f"{draw.choice(FIRST)}{at}{draw.choice(LAST)}{dot}org"


def _email_umlaut(draw: Random) -> str:
    return f"j\u00fcrgen.{draw.choice(LAST)}@m\u00fcller-{draw.choice(LAST)}.de"


def _email_international(draw: Random) -> str:
    name = draw.choice([draw.choice(FIRST), "иван", "ελένη", "j\u00fcrgen"])
    domain = draw.choice(["пример.рф", "почта.пример.бг", "παράδειγμα.ελ", "m\u00fcnchen.de", "xn--e1afmkfd.xn--p1ai"])
    return f"{name}@{domain}"


def _email_spelt(draw: Random) -> str:
    return (
        f"{draw.choice(FIRST)} AT {draw.choice(LAST)}{draw.choice(['', ' DOT co'])} DOT {draw.choice(['com', 'ORG'])}"
    )


def _capital_at(draw: Random) -> str:
    return draw.choice(["LOOK AT example.com", "MEET AT noon DOT", "signed AT Oslo on the DOT", "STAND AT it, DOT two"])


# --- telephone


def _nanp(draw: Random) -> tuple[str, str, str]:
    area = draw.choice("202 212 213 303 305 312 415 503 512 617 702 718 808 917".split())
    return area, from_one(draw, 3), digits(draw, 4)


def _phone_us(draw: Random) -> str:
    a, b, c = _nanp(draw)
    form = draw.choice(["({}) {}-{}", "{}-{}-{}", "{}.{}.{}", "+1 {}-{}-{}", "+1{}{}{}", "1-{}-{}-{}", "+1 ({}) {}-{}"])
    return form.format(a, b, c)


def _phone_labelled(draw: Random) -> str:
    a, b, c = _nanp(draw)
    label = draw.choice(["phone: ", "Tel. ", "call ", "mobile number: ", "call me at ", '"phone": "', "cell=", "Fax: "])
    form = draw.choice(["{}{}{}", "{} {} {}", "{} {}{}"])
    return f"{label}«{form.format(a, b, c)}»"


def _phone_uk(draw: Random) -> str:
    return draw.choice(
        [
            f"020 7946 {digits(draw, 4)}",
            f"07700 900{digits(draw, 3)}",
            f"+44 20 7946 {digits(draw, 4)}",
            f"+44 (0)20 7946 {digits(draw, 4)}",
            f"+447700900{digits(draw, 3)}",
            f"(020) 7946 {digits(draw, 4)}",
            f"0161 496 {digits(draw, 4)}",
        ]
    )


def _phone_de(draw: Random) -> str:
    rest = from_one(draw, 7)
    return draw.choice(
        [f"+49 171 {rest}", f"0171/{rest}", f"030 {rest}5", f"+49 (0) 171 {rest}", f"0049 171 {rest}", f"+49171{rest}"]
    )


def _phone_fr(draw: Random) -> str:
    p = [digits(draw, 2) for _ in range(4)]
    return draw.choice(["06 {} {} {} {}", "06.{}.{}.{}.{}", "+33 6 {} {} {} {}", "01-{}-{}-{}-{}"]).format(*p)


def _phone_world(draw: Random) -> str:
    return draw.choice(
        [
            f"+34 612 {digits(draw, 3)} {digits(draw, 3)}",
            f"+39 340 {from_one(draw, 7)}",
            f"+91 98765 {digits(draw, 5)}",
            f"+86 138 {digits(draw, 4)} {digits(draw, 4)}",
            f"138-{digits(draw, 4)}-{digits(draw, 4)}",
            f"+81 90-{from_one(draw, 4)}-{digits(draw, 4)}",
            f"090-{from_one(draw, 4)}-{digits(draw, 4)}",
            f"03-{draw.choice('356')}{digits(draw, 3)}-{digits(draw, 4)}",
            f"+55 11 9{from_one(draw, 4)}-{digits(draw, 4)}",
            f"(11) 9{draw.choice('6789')}{digits(draw, 3)}-{digits(draw, 4)}",
            f"+61 412 {digits(draw, 3)} {digits(draw, 3)}",
            f"0412 {digits(draw, 3)} {digits(draw, 3)}",
            f"+7 (495) {from_one(draw, 3)}-{digits(draw, 2)}-{digits(draw, 2)}",
            f"8 (495) {from_one(draw, 3)}-{digits(draw, 2)}-{digits(draw, 2)}",
            f"+31 6 {from_one(draw, 8)}",
            f"06-{from_one(draw, 8)}",
            f"+46 70 123 {digits(draw, 2)} {digits(draw, 2)}",
            f"+41 44 668 {digits(draw, 2)} {digits(draw, 2)}",
            f"+48 512 {digits(draw, 3)} {digits(draw, 3)}",
            f"+45 {draw.choice('23')}{digits(draw, 1)} {digits(draw, 2)} {digits(draw, 2)} {digits(draw, 2)}",
        ]
    )


def _phone_chinese(draw: Random) -> str:
    return f"{draw.choice(['手机号', '电话', '联系方式：', '手机：'])}«138{digits(draw, 8)}»"


# --- IP addresses


def _ipv4(draw: Random) -> str:
    first = draw.choice([5, 23, 34, 52, 62, 81, 91, 104, 131, 142, 151, 185, 193, 212, 217])
    return f"{first}.{draw.randrange(10, 256)}.{draw.randrange(256)}.{draw.randrange(1, 255)}"


def _ipv4_port(draw: Random) -> str:
    return f"«{_ipv4(draw)}»:{draw.choice([22, 80, 443, 8080])}"


def _ipv4_address(draw: Random) -> str:
    return f"http://«{_ipv4(draw)}»/index.html"


def _ipv4_log(draw: Random) -> str:
    return f'«{_ipv4(draw)}» - - [10/Oct/2023:13:55:36 +0000] "GET / HTTP/1.1" 200 2326'


def _ipv6(draw: Random) -> str:
    groups = [f"{draw.randrange(1, 65536):x}" for _ in range(6)]
    start = draw.choice(["2a00:1450", "2600:1f18", "2606:4700", "2a02:8108"])
    return draw.choice(
        [f"{start}:{':'.join(groups)}", f"{start}::{groups[0]}", f"{start}:{groups[0]}::{groups[1]}:{groups[2]}"]
    )


# --- payment cards


def luhn_digit(number: str) -> str:
    total = 0
    for place, digit in enumerate(reversed(number)):
        value = int(digit) * (2 if place % 2 == 0 else 1)
        total += value - 9 if value > 9 else value
    return str(-total % 10)


def _card(draw: Random, prefix: str, length: int) -> str:
    number = prefix + digits(draw, length - 1 - len(prefix))
    return number + luhn_digit(number)


def _card_16(draw: Random) -> str:
    return _card(draw, draw.choice(["4", "51", "55", "2221", "2720", "6011", "65", "3528", "62"]), 16)


def _card_grouped(draw: Random) -> str:
    number, separator = _card_16(draw), draw.choice(" -")
    return separator.join(number[i : i + 4] for i in range(0, 16, 4))


def _card_amex(draw: Random) -> str:
    number = _card(draw, draw.choice(["34", "37"]), 15)
    return draw.choice(
        [number, f"{number[:4]} {number[4:10]} {number[10:]}", f"{number[:4]}-{number[4:10]}-{number[10:]}"]
    )


def _card_diners(draw: Random) -> str:
    number = _card(draw, draw.choice(["36", "38", "305"]), 14)
    return draw.choice([f"{number[:4]} {number[4:10]} {number[10:]}", f"card number «{number}»"])


def _card_labelled(draw: Random) -> str:
    return f"{draw.choice(['Visa ', 'credit card: ', 'card_number='])}«{_card_16(draw)}»"


# --- bank accounts


def _iban_of(country: str, account: str) -> str:
    moved = account + country + "00"
    rest = int("".join(str(int(c, 36)) for c in moved)) % 97
    return f"{country}{98 - rest:02d}{account}"


def _iban(draw: Random) -> str:
    letters = pick(draw, 4, string.ascii_uppercase)
    return draw.choice(
        [
            _iban_of("DE", digits(draw, 18)),
            _iban_of("FR", digits(draw, 23)),
            _iban_of("GB", letters + digits(draw, 14)),
            _iban_of("NL", letters + digits(draw, 10)),
            _iban_of("ES", digits(draw, 20)),
            _iban_of("CH", digits(draw, 17)),
            _iban_of("AT", digits(draw, 16)),
            _iban_of("PL", digits(draw, 24)),
            _iban_of("NO", digits(draw, 11)),
            _iban_of("IT", letters[0] + digits(draw, 22)),
        ]
    )


def _iban_grouped(draw: Random) -> str:
    iban = _iban(draw)
    return draw.choice(" -").join(iban[i : i + 4] for i in range(0, len(iban), 4))


def _iban_followed(draw: Random) -> str:
    iban = _iban_of("ES", digits(draw, 20))
    return f"IBAN: «{' '.join(iban[i : i + 4] for i in range(0, 24, 4))}» this is the account"


# --- national identity numbers


def _ssn(draw: Random) -> str:
    area = draw.choice([n for n in range(101, 899) if n != 666])
    return f"{area}-{draw.randrange(1, 100):02d}-{draw.randrange(1, 10000):04d}"


def _ssn_labelled(draw: Random) -> str:
    written = _ssn(draw).replace("-", draw.choice(["", " "]))
    return f"{draw.choice(['SSN ', 'SSN: ', 'social security number is '])}«{written}»"


def _nino(draw: Random) -> str:
    d = [digits(draw, 2) for _ in range(3)]
    prefix = draw.choice("AB CE HJ JK LM PR SX TW YZ".split())
    return draw.choice(["{}{}{}{}{}", "{} {} {} {} {}"]).format(prefix, *d, draw.choice("ABCD"))


def _steuer_id(draw: Random) -> str:
    nine = draw.sample("123456789", 9)
    body = [*nine, nine[0]]  # ten digits, one of them twice
    product = 10
    for digit in body:
        total = (int(digit) + product) % 10 or 10
        product = total * 2 % 11
    number = "".join(body) + str((11 - product) % 10)
    spaced = f"{number[:2]} {number[2:5]} {number[5:8]} {number[8:]}"
    return f"{draw.choice(['Steuer-ID: ', 'Steueridentifikationsnummer ', 'IdNr. '])}«{draw.choice([number, spaced])}»"


def _nir(draw: Random) -> str:
    body = f"{draw.choice('12')}{digits(draw, 2)}{draw.randrange(1, 13):02d}{draw.randrange(10, 96)}"
    body += f"{draw.randrange(1, 1000):03d}{draw.randrange(1, 1000):03d}"
    key = f"{97 - int(body) % 97:02d}"
    spaced = f"{body[0]} {body[1:3]} {body[3:5]} {body[5:7]} {body[7:10]} {body[10:]} {key}"
    return draw.choice([body + key, spaced])


def _dni(draw: Random) -> str:
    number = draw.randrange(10_000_000, 100_000_000)
    letter = "TRWAGMYFPDXBNJZSQVHLCKE"[number % 23]
    return draw.choice([f"{number}{letter}", f"{number}-{letter}"])


def _nie(draw: Random) -> str:
    first, rest = draw.randrange(3), digits(draw, 7)
    return f"{'XYZ'[first]}{rest}{'TRWAGMYFPDXBNJZSQVHLCKE'[int(f'{first}{rest}') % 23]}"


# Decree of 23 December 1976 (Italy): values of characters at odd places.
_ODD = dict(zip("0123456789", (1, 0, 5, 7, 9, 13, 15, 17, 19, 21), strict=True)) | dict(
    zip(
        string.ascii_uppercase,
        (1, 0, 5, 7, 9, 13, 15, 17, 19, 21, 2, 4, 18, 20, 11, 3, 6, 8, 12, 14, 16, 10, 22, 25, 24, 23),
        strict=True,
    )
)


def _codice_fiscale(draw: Random) -> str:
    body = pick(draw, 6, "BCDFGLMNPRSTVZ") + digits(draw, 2) + draw.choice("ABCDEHLMPRST")
    body += f"{draw.choice([0, 40]) + draw.randrange(1, 29):02d}" + draw.choice(["H501", "F205", "L219", "A944"])
    total = sum(_ODD[c] if place % 2 == 0 else int(c, 36) - (10 if c.isalpha() else 0) for place, c in enumerate(body))
    return body + string.ascii_uppercase[total % 26]


def _bsn(draw: Random) -> str:
    while True:
        body = from_one(draw, 8)
        last = sum(int(d) * (9 - place) for place, d in enumerate(body)) % 11
        if last < 10:
            return f"{draw.choice(['BSN: ', 'burgerservicenummer '])}«{body}{last}»"


def _pesel(draw: Random) -> str:
    body = f"{draw.randrange(40, 100)}{draw.randrange(1, 13):02d}{draw.randrange(1, 29):02d}{digits(draw, 4)}"
    total = sum(int(d) * w for d, w in zip(body, (1, 3, 7, 9, 1, 3, 7, 9, 1, 3), strict=True))
    return f"PESEL{draw.choice([': ', ' '])}«{body}{-total % 10}»"


def _aadhaar(draw: Random) -> str:
    body = from_one(draw, 11)
    number = body + _verhoeff_digit(body)
    return f"Aadhaar{draw.choice([': ', ' no. '])}«{draw.choice([number, f'{number[:4]} {number[4:8]} {number[8:]}'])}»"


def _dihedral(a: int, b: int) -> int:
    """The product of two elements of the dihedral group of order ten (Verhoeff 1969)."""
    if a < 5:
        return (a + b) % 5 if b < 5 else 5 + (a + b) % 5
    return 5 + (a - b) % 5 if b < 5 else (a - b) % 5


def _verhoeff_digit(body: str) -> str:
    turn = (1, 5, 7, 6, 2, 8, 3, 0, 9, 4)
    check = 0
    for place, digit in enumerate(reversed(body), 1):
        value = int(digit)
        for _ in range(place % 8):
            value = turn[value]
        check = _dihedral(check, value)
    return str(next(value for value in range(10) if _dihedral(check, value) == 0))


def _cpf(draw: Random) -> str:
    body = digits(draw, 9)
    for length in (10, 11):
        total = sum(int(d) * (length - place) for place, d in enumerate(body))
        body += str(total * 10 % 11 % 10)
    written = f"{body[:3]}.{body[3:6]}.{body[6:9]}-{body[9:]}"
    return draw.choice([written, f"CPF: «{body}»"])


def _chinese_id(draw: Random) -> str:
    body = draw.choice(["110105", "310104", "440106", "510107"])
    body += f"{draw.randrange(1950, 2005)}{draw.randrange(1, 13):02d}{draw.randrange(1, 29):02d}{digits(draw, 3)}"
    total = sum(int(d) * (2 ** (17 - place) % 11) for place, d in enumerate(body))
    return body + "10X98765432"[total % 11]


def _personnummer(draw: Random) -> str:
    body = f"{draw.randrange(40, 100)}{draw.randrange(1, 13):02d}{draw.randrange(1, 29):02d}{digits(draw, 3)}"
    return f"personnummer «{body[:6]}-{body[6:]}{luhn_digit(body)}»"


def _hetu(draw: Random) -> str:
    day, serial = f"{draw.randrange(1, 29):02d}{draw.randrange(1, 13):02d}{digits(draw, 2)}", draw.randrange(2, 900)
    sign = "0123456789ABCDEFHJKLMNPRSTUVWXY"[int(f"{day}{serial:03d}") % 31]
    return f"{day}-{serial:03d}{sign}"


def _ahv(draw: Random) -> str:
    body = "756" + digits(draw, 9)
    total = sum(int(d) * (3 if place % 2 else 1) for place, d in enumerate(body))
    number = body + str(-total % 10)
    return f"{number[:3]}.{number[3:7]}.{number[7:11]}.{number[11:]}"


def _nhs(draw: Random) -> str:
    while True:
        body = from_one(draw, 9)
        check = 11 - sum(int(d) * (10 - place) for place, d in enumerate(body)) % 11
        if check != 10:
            number = f"{body}{check % 11}"
            return f"NHS number: «{draw.choice([number, f'{number[:3]} {number[3:6]} {number[6:]}'])}»"


# --- secrets


def _token(prefix: str, n: int, alphabet: str = BASE62) -> Writer:
    def write(draw: Random) -> str:
        return prefix + pick(draw, n, alphabet)

    return write


def _placed(before: str, n: int, alphabet: str, after: str = "") -> Writer:
    def write(draw: Random) -> str:
        return f"{before}«{pick(draw, n - 1, alphabet)}{draw.choice(BASE62)}»{after}"

    return write


def _azure(draw: Random) -> str:
    return f"AccountName=x1;AccountKey=«{pick(draw, 86, BASE62 + '+/')}==»;EndpointSuffix=core.windows.net"


def _slack(draw: Random) -> str:
    return f"xox{draw.choice('bp')}-{from_one(draw, 12)}-{from_one(draw, 12)}-{pick(draw, 24, BASE62)}"


def _jwt(draw: Random) -> str:
    return f"eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.eyJ{pick(draw, 60, WORDY)}.{pick(draw, 42, WORDY)}A"


def _pem(draw: Random) -> str:
    kind = draw.choice(["RSA ", "EC ", "OPENSSH ", "", "ENCRYPTED "])
    line_end = draw.choice(["\n", "\\n"])
    lines = [pick(draw, 64, BASE62 + "+/") for _ in range(draw.randrange(3, 20))]
    return line_end.join([f"-----BEGIN {kind}PRIVATE KEY-----", *lines, f"-----END {kind}PRIVATE KEY-----"])


def _password(draw: Random) -> str:
    """At least two kinds of letters, digits and a sign, in a random order."""
    chosen = (
        pick(draw, 4, "BCDFGHJKLMNPQRSTVWXZ") + pick(draw, 4, "bcdfghjklmnpqrstvwxz") + pick(draw, 3, "23456789") + "!"
    )
    return "".join(draw.sample(chosen[:-1], len(chosen) - 1)) + draw.choice(["", "#k", "%r", "!t"])


def _password_assigned(draw: Random) -> str:
    before, after = draw.choice(
        [
            ("password = '", "'"), ('"password": "', '"'), ("PASSWORD=", ""), ("password: ", ""), ("DB_PASSWORD=", ""),
            ("pwd=", ";"), ("My password is ", ""), ("passphrase: ", ""), ("--password ", ""),
        ]
    )  # fmt: skip
    return f"{before}«{_password(draw)}»{after}"


def _key_assigned(draw: Random) -> str:
    before, after = draw.choice(
        [
            ("api_key = '", "'"), ('"apiKey": "', '"'), ("API_KEY=", ""), ("secret_key: ", ""), ("access_token=", ""),
            ("X-API-Key: ", ""), ("client_secret = `", "`"), ("WANDB_API_KEY=", ""), ("--token ", ""),
        ]
    )  # fmt: skip
    return f"{before}«{pick(draw, 40, draw.choice([HEX, BASE62]))}»{after}"


def _login(draw: Random) -> str:
    scheme = draw.choice(["https", "postgresql", "mongodb+srv", "redis", "ftp", "amqp"])
    password = _password(draw).replace("#", "q").replace("%", "r")
    return f"{scheme}://«{draw.choice(FIRST)}:{password}»@db.{draw.choice(LAST)}.net/x"


SLACK_ID = string.ascii_uppercase + string.digits

WRITERS: dict[str, tuple[Writer, ...]] = {
    "email": (
        _email_plain, _email_tagged, _email_shout, _email_angle, _email_mailto, _email_hidden, _email_umlaut,
        _email_international, _email_spelt,
    ),
    "phone": (_phone_us, _phone_labelled, _phone_uk, _phone_de, _phone_fr, _phone_world, _phone_chinese),
    "ip": (_ipv4, _ipv4_port, _ipv4_address, _ipv4_log, _ipv6),
    "card": (_card_16, _card_grouped, _card_amex, _card_diners, _card_labelled),
    "iban": (_iban, _iban_grouped, _iban_followed),
    "national_id": (
        _ssn, _ssn_labelled, _nino, _steuer_id, _nir, _dni, _nie, _codice_fiscale, _bsn, _pesel, _aadhaar, _cpf,
        _chinese_id, _personnummer, _hetu, _ahv, _nhs,
    ),
    "secret": (
        _token("AKIA", 16, "ABCDEFGHIJKLMNOPQRSTUVWXYZ234567"),
        _placed("aws_secret_access_key = ", 40, BASE62 + "+/"),
        _token("AIzaSy", 33, WORDY[:-1]),
        _azure,
        _token("ghp_", 36), _token("gho_", 36), _token("glpat-", 20), _token("hf_", 34, string.ascii_letters),
        _token("sk-", 48), _token("sk-proj-", 64), _token("sk-ant-api03-", 95, BASE62), _token("sk-or-v1-", 64, HEX),
        _slack, _token("sk_live_", 24), _token("npm_", 36), _token("pypi-AgEIcHlwaS5vcmcC", 120),
        _token("AC", 32, HEX), _token("SK", 32, HEX),
        _placed("Authorization: Bearer ", 40, BASE62), _jwt, _pem, _password_assigned, _key_assigned, _login,
        lambda draw: f"SG.{pick(draw, 22, BASE62)}.{pick(draw, 43, BASE62)}",
        lambda draw: f"github_pat_{pick(draw, 22, BASE62)}_{pick(draw, 59, BASE62)}",
        lambda draw: f"https://hooks.slack.com/services/«T{pick(draw, 10, SLACK_ID)}/B{pick(draw, 10, SLACK_ID)}"
        f"/{pick(draw, 24, BASE62)}»",
    ),
}  # fmt: skip


# --- hard negatives


def _one_of(*writings: str) -> Writer:
    return lambda draw: draw.choice(writings)


def _uuid(draw: Random) -> str:
    return "-".join(pick(draw, n, HEX) for n in (8, 4, 4, 4, 12))


def _date(draw: Random) -> str:
    y, m, d = draw.randrange(1900, 2030), draw.randrange(1, 13), draw.randrange(1, 29)
    return draw.choice(
        [
            "{0}-{1:02d}-{2:02d}",
            "{2:02d}.{1:02d}.{0}",
            "{1:02d}/{2:02d}/{0}",
            "{0}{1:02d}{2:02d}",
            "{0}-{1:02d}-{2:02d}T10:30:45Z",
            "{0}-{1:02d}-{2:02d} 10:30:45.123456",
            "[{2:02d}/{1:02d}/{0}, 10:15:33]",
            "{0}{1:02d}{2:02d}103045",
        ]
    ).format(y, m, d)


def _sum(draw: Random) -> str:
    a, b = draw.randrange(100, 99999), draw.randrange(100, 9999)
    return draw.choice(
        [f"{a} - {b} = {a - b}", f"{a}+{b}={a + b}", f"<<{a}-{b}-10={a - b - 10}>>", f"{a}*{b} = {a * b}"]
    )


def _isbn(draw: Random) -> str:
    body = "978" + digits(draw, 9)
    number = body + str(-sum(int(d) * (3 if place % 2 else 1) for place, d in enumerate(body)) % 10)
    return draw.choice([f"ISBN {number}", f"{number[:3]}-{number[3]}-{number[4:6]}-{number[6:12]}-{number[12]}"])


def _not_a_card(draw: Random) -> str:
    number = _card_16(draw)
    number = number[:-1] + str((int(number[-1]) + draw.randrange(1, 10)) % 10)
    return draw.choice([number, " ".join(number[i : i + 4] for i in range(0, 16, 4))])


def _not_an_iban(draw: Random) -> str:
    iban = _iban(draw)
    return iban[:-1] + str((int(iban[-1]) + draw.randrange(1, 10)) % 10)


def _number_list(draw: Random) -> str:
    separator = draw.choice([", ", " ", ",", "; ", "\n"])
    return separator.join(str(draw.randrange(10, 99999)) for _ in range(draw.randrange(4, 9)))


def _sql(draw: Random) -> str:
    return (
        f"SELECT id, name FROM orders WHERE id = {from_one(draw, 10)} AND price BETWEEN {from_one(draw, 6)}"
        f" AND {from_one(draw, 7)} AND day >= {_date(draw)[:10]} LIMIT 100"
    )


def _insert(draw: Random) -> str:
    return (
        f"INSERT INTO t VALUES ({from_one(draw, 9)}, {from_one(draw, 4)}, {draw.random():.12f}, -{from_one(draw, 8)})"
    )


NEGATIVES: tuple[Writer, ...] = (
    _capital_at,
    _uuid,
    _date,
    _sum,
    _isbn,
    _not_a_card,
    _not_an_iban,
    _number_list,
    _sql,
    _insert,
    lambda draw: pick(draw, 40, HEX),  # a commit
    lambda draw: f"sha256:{pick(draw, 64, HEX)}",
    lambda draw: f'"integrity": "sha512-{pick(draw, 86, BASE62)}=="',
    lambda draw: "#" + pick(draw, 6, HEX),
    lambda draw: f"${draw.randrange(1, 999)},{digits(draw, 3)},{digits(draw, 3)}.{digits(draw, 2)}",
    lambda draw: f"{draw.randrange(1, 999)} {digits(draw, 3)} {digits(draw, 3)} EUR",
    lambda draw: f"version {draw.randrange(1, 9)}.{draw.randrange(9)}.{draw.randrange(9)}.{draw.randrange(9)}",
    lambda draw: f"v{draw.randrange(1, 30)}.{draw.randrange(99)}.{draw.randrange(99)}.{draw.randrange(99)}",
    lambda draw: f"Chrome/{draw.randrange(80, 120)}.0.{draw.randrange(1000, 9999)}.{draw.randrange(10, 200)}",
    lambda draw: f"torch=={draw.randrange(1, 3)}.{draw.randrange(12)}.0, numpy>=1.{draw.randrange(30)}.4",
    lambda draw: f"{draw.uniform(-90, 90):.6f}, {draw.uniform(-180, 180):.6f}",
    lambda draw: (
        f"{draw.choice('192.168 10.0 172.16 127.0 169.254'.split())}.{draw.randrange(256)}.{draw.randrange(256)}"
    ),
    lambda draw: f"{draw.choice('192.0.2 198.51.100 203.0.113 224.0.0 255.255.255'.split())}.{draw.randrange(255)}",
    lambda draw: f"2001:db8::{pick(draw, 3, HEX)}, fe80::{pick(draw, 4, HEX)}, ::1",
    lambda draw: ":".join(pick(draw, 2, HEX) for _ in range(6)),
    lambda draw: f"order {digits(draw, 3)}-{digits(draw, 7)}-{digits(draw, 7)}",
    lambda draw: f"https://shop.org/item/{digits(draw, 12)}?ref={digits(draw, 6)}",
    lambda draw: f"doi 10.{draw.randrange(1000, 9999)}/{digits(draw, 4)}-{digits(draw, 4)}.{digits(draw, 5)}",
    lambda draw: f"https://orcid.org/0000-000{draw.randrange(1, 4)}-{digits(draw, 4)}-{digits(draw, 4)}",
    lambda draw: f"created_at={draw.randrange(1_500_000_000, 1_800_000_000)}{draw.choice(['', '123'])}",
    lambda draw: f"pages {draw.randrange(1, 300)}-{draw.randrange(300, 999)}",
    lambda draw: f"{draw.randrange(1950, 2000)}-{draw.randrange(2000, 2025)}, ({draw.randrange(1, 50)}) 2010-2015",
    lambda draw: f"9:{draw.randrange(10, 59)}-17:30, room {draw.randrange(100, 900)}, gate {draw.randrange(10, 99)}B",
    lambda draw: f"x = {draw.random():.17f} + {draw.random():.9f}e-10",
    lambda draw: f"ZIP {digits(draw, 5)}-{digits(draw, 4)}",
    lambda draw: f"SKU {pick(draw, 3, 'ABCXYZ')}-{digits(draw, 6)}-{digits(draw, 3)}",
    lambda draw: f"0x{pick(draw, 16, HEX)} 0b{pick(draw, 12, '01')} {pick(draw, 8, '01')} {pick(draw, 8, '01')}",
    _one_of("user@localhost", "@app.route('/users/<int:id>')", "c = a @ b.transpose()", "pip install pkg@latest"),
    _one_of("a@b.shape", "matrix@vector.reshape", "q@k.mT", "(x@w.weight)", "run@train.py"),
    _one_of("text 12345 67890", "contact 2023 2024 2025 x", "phone 2021 2022 2023"),
    _one_of("git clone git@github.com:org/repo.git", "icon@2x.png", "LIKE '%@gmail.com'", "@media (max-width: 600px)"),
    _one_of(
        "std::vector<int>::iterator", "a::before { color: #fff }", "use std::fs::File;", "Foo::bar(1)", "dead::beef"
    ),
    _one_of(
        "sk-xxxxxxxxxxxxxxxxxxxxxxxx",
        "sk-...",
        "hf_xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx",
        "<your-api-key>",
        "ghp_" + "X" * 36,
    ),
    _one_of("AKIAIOSFODNN7EXAMPLE", "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY", "api_key = 'YOUR_API_KEY_1234567890'"),
    _one_of(
        'password = "changeme123"', "password=os.environ['DB_PASSWORD1']", "password: string(255)", "pwd = $PASSWORD_1"
    ),
    _one_of(
        "password = 'password123'", "password=${DB_PASSWORD_2}", "token = tokenizer.encode(text1)", "max_tokens=4096"
    ),
    _one_of(
        "password = hash_password2(user1)", "secret: kubernetes.io/tls-v1", "self.token = token_2", "token: str = None"
    ),
    _one_of(
        "postgres://user:password@localhost:5432/db", "https://<user>:<token>@host/x", "redis://:${PW1}@cache:6379"
    ),
    _one_of("class='sk-folding-cube sk-cube1'", "sk-learn-contrib-project-name", "hf_transfer_enabled_by_default_1"),
    _one_of(
        "Authorization: Bearer <token>", "Bearer YOUR_ACCESS_TOKEN_HERE", 'f"Bearer {api_token_v2}"', "Bearer $TOKEN"
    ),
    _one_of(
        "-----BEGIN PRIVATE KEY-----\n...\n-----END PRIVATE KEY-----",
        "-----BEGIN PUBLIC KEY-----",
        "ssh-keygen -t rsa -b 4096",
    ),
    _one_of(
        "The secret is: practise 20 minutes a day.",
        "Key: C major, 120 bpm",
        "password must be 8-20 characters",
        "The token: 42",
    ),
    _one_of("section 3.2.1.4 of the manual", "1.2.3.4 Scope", "see 4.1.2.3 below", "OID 1.3.6.1.4.1.311"),
)
