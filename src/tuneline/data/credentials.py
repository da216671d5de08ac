"""Secrets in running text: keys and tokens by their form, passwords by their label. Obvious placeholders stay.

The forms are those that the issuers document for secret scanners; a lone random word is no secret.
"""

import re
from collections.abc import Iterator

from tuneline.data.addresses import Span

_W = "[A-Za-z0-9_-]"
_A = "[A-Za-z0-9]"
_HEX = "[0-9a-f]"
_TOKEN = re.compile(
    r"(?<![A-Za-z0-9_-])(?:"
    r"(?:AKIA|ASIA|ABIA|ACCA)[A-Z2-7]{16}"  # AWS access key id
    rf"|AIzaSy{_W}{{33}}|GOCSPX-{_W}{{28}}|ya29\.{_W}{{20,400}}"  # Google: API key, OAuth client secret, access token
    rf"|gh[pousr]_{_A}{{36,255}}|github_pat_{_A}{{22}}_{_A}{{59}}|glpat-{_W}{{20,64}}"
    rf"|hf_{_A}{{30,64}}|sk-{_W}{{20,300}}|gsk_{_A}{{40,64}}|r8_{_A}{{30,48}}|(?:xai|pplx|nvapi)-{_W}{{40,100}}"
    rf"|xox[abeoprs]-{_W}{{20,250}}|xapp-{_W}{{20,250}}"  # Slack
    rf"|[rs]k_(?:live|test)_{_A}{{16,120}}|whsec_{_A}{{24,64}}"  # Stripe
    rf"|(?:AC|SK){_HEX}{{32}}|key-{_HEX}{{32}}"  # Twilio, Mailgun
    rf"|SG\.{_W}{{22}}\.{_W}{{43}}"  # SendGrid
    rf"|npm_{_A}{{36}}|pypi-{_W}{{50,300}}|dckr_pat_{_W}{{27}}|do[opr]_v1_{_HEX}{{64}}|shp(?:at|ca|pa|ss)_[0-9a-fA-F]{{32}}"
    rf"|gl(?:sa|c)_{_W}{{32,200}}|hv[sb]\.{_W}{{24,300}}|lin_api_{_A}{{40}}|ntn_{_A}{{40,60}}|PMAK-{_HEX}{{24}}-{_HEX}{{34}}"
    rf"|\d{{8,10}}:AA{_W}{{33}}"  # Telegram bot
    rf"|[MNO][A-Za-z0-9]{{23,27}}\.{_W}{{6}}\.{_W}{{27,40}}"  # Discord bot
    rf"|eyJ{_W}{{10,4000}}\.eyJ{_W}{{10,8000}}\.{_W}{{10,2000}}"  # JSON web token (RFC 7519)
    rf")(?![A-Za-z0-9_])"
)
_BEARER = re.compile(
    r"earer(?<=\b[Bb]earer)[ \t]{1,2}(?P<value>[A-Za-z0-9._~+/-]{15,4000}[A-Za-z0-9_=-]={0,2})(?![\w(])"
)
_SLACK_HOOK = re.compile(r"hooks\.slack\.com/services/(?P<value>T[A-Z0-9]{8,12}/B[A-Z0-9]{8,12}/[A-Za-z0-9]{20,28})")
_AZURE = re.compile(
    r"=(?:(?<=AccountKey=)|(?<=SharedAccessKey=)|(?<=[?&;]sig=))(?P<value>[A-Za-z0-9+/%]{40,120}={0,2})(?![\w(])"
)
_IN_ADDRESS = re.compile(r"://(?P<value>(?P<user>[^\s/:@\"'<>`]{0,64}):(?P<password>[^\s/@\"'<>`]{1,128}))@(?=[\w\[])")
_PEM_LINE = re.compile(r"-----(?P<which>BEGIN|END) (?:[A-Z0-9]{2,10} ){0,3}PRIVATE KEY(?: BLOCK)?-----")
_PEM_BODY = re.compile(r"(?:[A-Za-z0-9+/=\s]|\\[nr])*")
_MIN_PEM_CHARS = 48  # an Ed25519 key has 64; below is an illustration

_LABEL_WORDS = (
    r"(?P<password>pass(?:word|wd|phrase|code)?|passwort|contraseña|mot de passe|密码|pwd)"
    r"|api[ _-]?(?:key|token|secret)|(?:access|auth|private|account|secret|signing|encryption|master|service)[ _-]?key"
    r"|secret|token|credentials?|jwt"
)
_LABEL = re.compile(
    rf"(?:{_LABEL_WORDS})(?:[ _-]?(?:value|v\d|\d))?(?:\\?[\"'`\]*]|:\s*[\w.]+\s*)?[\s*]{{0,3}}[:=]?\Z", re.IGNORECASE
)
_WINDOW = 48  # characters in front of a value in which its label is looked for
_QUOTED = r"(?P<quote>\\?[\"'`])(?P<quoted>[^\s\"'`\\]{8,400})(?P=quote)"
_BARE = r"(?P<bare>[!#$%&*+./0-9:=?@A-Z^_a-z~-]{8,400}+)(?![(\[{])"
_VALUE = rf"(?:{_QUOTED}|{_BARE})"
# The sign first: it is rare, and words such as "token" are not. Looked at only, as a value may hold the next sign.
_ASSIGNED = tuple(re.compile(rf"{sign}(?=>?\s{{0,2}}[*]{{0,2}}\s?{_VALUE})") for sign in ("=", ":"))
_SAID = re.compile(
    rf"(?i:(?<![a-z])(?:password|passphrase|passcode|api key|api token|access token)(?: is|:)?) {_VALUE}"
)
_OPTION = re.compile(rf"--(?:[a-z]+-)?(?:password|passphrase|token|api-key|secret) {_VALUE}")

_PLACEHOLDER = re.compile(
    r"x{4}|\*{3}|\.{3}|…|<|>|\$\{|\$\(|\{\{|%\(|example|placeholder|change_?me|dummy|redacted|insert|your|_here|foobar"
    r"|0{6}|1{6}|01234567|12345678|abcdefgh|qwerty",
    re.IGNORECASE,
)
# In a password these are samples; in a value without quotes, the names of code.
_SAMPLE_WORD = re.compile(
    r"pass|secret|test|demo|sample|admin|user|letmein|1234|abc|my_|token|guest|welcome", re.IGNORECASE
)
_NAME = re.compile(r"[A-Za-z_]\w*(?:\.[A-Za-z_]\w*)*", re.ASCII)
_NAME_WORD = re.compile(
    r"user|hash|input|value|name|data|text|string|bytes|encode|model|config|args|default|field|param|file|path|list"
    r"|id_|_id|type|index|count|size|len|self|result|response|request|random|uuid|env|get|new|old",
    re.IGNORECASE,
)
_NO_SECRET = re.compile(
    r"\d{4}-\d\d-\d\d|[a-z]{2,10}://|[./~]|[\w.+-]+@[\w-]+\.\w|0x|sha\d|v?\d+\.\d"
    r"|[0-9a-fA-F]{8}-[0-9a-fA-F]{4}-[0-9a-fA-F]{4}-[0-9a-fA-F]{4}-[0-9a-fA-F]{12}\Z"
)
_SYMBOL = re.compile(r"[^A-Za-z0-9_.:/,-]")
_CHANGE = re.compile(r"[A-Za-z](?=[_.-]?\d)|\d(?=[_.-]?[A-Za-z])")
_NEXT_IN_QUERY = re.compile(r"&(?=\w+=)")
_PROSE_BEHIND = re.compile(r"[^\S\n]+\w|[\"'`)\]]")
_CASE_CHANGE = re.compile(r"[a-z](?=[A-Z0-9])|[A-Z](?=[a-z0-9])|\d(?=[A-Za-z])")
_MIN_LONG_KEY_CHARS, _MIN_CASE_CHANGES = 30, 0.4  # per character: 0.66 by chance, 0.35 in aNameOfManyWords
_MIN_KEY_CHARS, _MIN_KEY_CHANGES, _MIN_DISTINCT = 16, 3, 6
_MIN_TOKEN_DISTINCT = 10  # different characters in a token that is no placeholder


def find_tokens(text: str) -> Iterator[Span]:
    """Secrets that are known by their form: keys, tokens, private keys, logins in addresses; in no order."""
    yield from _private_keys(text)
    yield from (found.span() for found in _TOKEN.finditer(text) if _is_token(found[0]))
    yield from (found.span("value") for found in _SLACK_HOOK.finditer(text) if _is_random(found["value"]))
    yield from (found.span("value") for found in _IN_ADDRESS.finditer(text) if _is_login(found))


def find_passwords(text: str) -> Iterator[Span]:
    """Values behind a label that calls them secret, in no order."""
    for form in (_BEARER, _AZURE):
        yield from (found.span("value") for found in form.finditer(text) if _is_random(found["value"]))
    for form in _ASSIGNED:
        for found in form.finditer(text):
            label = _LABEL.search(text[max(0, found.start() - _WINDOW) : found.start()])
            if label and _is_secret_value(found, is_password=label["password"] is not None):
                yield _value_span(found)
    for form in (_SAID, _OPTION):
        yield from (_value_span(found) for found in form.finditer(text) if _is_said(found))


def _private_keys(text: str) -> Iterator[Span]:
    """Whole PEM blocks; one without its end goes as far as the key does. One pass over the lines that mark them."""
    begin: re.Match[str] | None = None
    for line in _PEM_LINE.finditer(text):
        if line["which"] == "BEGIN":
            if begin:
                yield from _cut_off_key(text, begin)
            begin = line
        elif begin:
            if line.start() - begin.end() >= _MIN_PEM_CHARS and "..." not in text[begin.end() : line.start()]:
                yield begin.start(), line.end()
            begin = None
    if begin:
        yield from _cut_off_key(text, begin)


def _cut_off_key(text: str, begin: re.Match[str]) -> Iterator[Span]:
    body = _PEM_BODY.match(text, begin.end())
    if body and len(body[0]) >= _MIN_PEM_CHARS:
        yield begin.start(), body.start() + len(body[0].rstrip())


def _is_token(written: str) -> bool:
    if _PLACEHOLDER.search(written) or len(set(written)) < _MIN_TOKEN_DISTINCT:
        return False
    # sk-folding-cube is a style sheet's word
    return not written.startswith("sk-") or max(map(len, written.split("-"))) >= _MIN_KEY_CHARS


def _is_random(value: str) -> bool:
    return not _PLACEHOLDER.search(value) and len(set(value)) >= _MIN_TOKEN_DISTINCT and _is_mixed(value)


def _is_mixed(value: str) -> bool:
    """Whether letters and digits take turns as in no word."""
    return _n_changes(value) >= _MIN_KEY_CHANGES or _is_drawn(value)


def _is_drawn(value: str) -> bool:
    """Whether capitals, small letters and digits take turns as often as they do by chance."""
    n_changes = sum(1 for _ in _CASE_CHANGE.finditer(value))
    return len(value) >= _MIN_LONG_KEY_CHARS and n_changes >= _MIN_CASE_CHANGES * len(value)


def _is_login(found: re.Match[str]) -> bool:
    """user:password@ in an address, with a password that is neither a variable, a sample nor the user's name."""
    password = found["password"]
    if password in {found["user"], "password", "pass", "pwd", "pw", "secret", "token", "port"} or len(password) < 4:
        return False
    return not re.search(r"[${}%*]|pass(?!.*\d)", password) and not _PLACEHOLDER.search(password)


def _is_said(found: re.Match[str]) -> bool:
    return _is_secret_value(found, is_password="pass" in found[0].lower())


def _is_secret_value(found: re.Match[str], is_password: bool) -> bool:
    """Whether a labelled value is a secret: it has letters and digits in turn, and reads like no name or sample."""
    value = found["quoted"] or _bare(found)
    if _PLACEHOLDER.search(value) or _NO_SECRET.match(value) or len(set(value)) < _MIN_DISTINCT:
        return False
    if found["bare"] and _is_name(value):
        return False
    if is_password:
        return _is_password(value)
    return len(value) >= _MIN_KEY_CHARS and _is_mixed(value)


def _is_password(value: str) -> bool:
    if _SAMPLE_WORD.search(value) or not _n_changes(value) or len(value) < 8:
        return False
    has_both_cases = value != value.lower() and value != value.upper()
    return has_both_cases or _SYMBOL.search(value) is not None or _n_changes(value) >= _MIN_KEY_CHANGES


def _is_name(value: str) -> bool:
    """Whether it is a name in a program, such as hash_of_user2 or self.password1."""
    if _NAME.fullmatch(value) is None or _is_drawn(value):
        return False
    return "." in value or _NAME_WORD.search(value) is not None


def _n_changes(value: str) -> int:
    """How often letters and digits take turns."""
    return sum(1 for _ in _CHANGE.finditer(value))


def _value_span(found: re.Match[str]) -> Span:
    group = "quoted" if found["quoted"] else "bare"
    begin, end = found.span(group)
    return begin, begin + len(_bare(found)) if group == "bare" else end


def _bare(found: re.Match[str]) -> str:
    """The value without quotes, the next part of a query, and the mark of a sentence's or of bold type's end."""
    value: str = _NEXT_IN_QUERY.split(found["bare"], maxsplit=1)[0]
    value = value.rstrip(".:")
    # "!" and "?" are a sentence's end only where prose goes on; else they may be the password's.
    is_in_prose = _PROSE_BEHIND.match(found.string, found.end("bare"))
    return (value.rstrip(".:!?") if is_in_prose else value).removesuffix("**")
