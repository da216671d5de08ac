"""JSON as strict as training data deserves: what other parsers accept silently is a named problem here."""

import json
import re
from collections import Counter
from math import isfinite

from tuneline.data.records import Json

MAX_DEPTH = 64  # nested lists and objects; real rows have 3 to 6
_MAX_INTEGER_DIGITS = 20  # longer cannot fit 64 bits; also keeps int() away from its quadratic time
# possessive, and a string may lack its end: one that is never closed must not be tried from each quote inside it
_TOKEN = re.compile(r'"(?:[^"\\]+|\\.?)*+"?|([\[{])|([\]}])', re.DOTALL)
_SURROGATE_ESCAPE = re.compile(r"\\u[dD][89a-fA-F]")


class StrictDecoder:
    """Parses one value at a time; `problems` lists what the standard parser would have let through.

    Syntax errors raise `json.JSONDecodeError`; nesting beyond the interpreter's limit, `RecursionError`.
    """

    def __init__(self) -> None:
        self.problems: list[str] = []
        self._decoder = json.JSONDecoder(
            object_pairs_hook=self._object,
            parse_int=self._integer,
            parse_float=self._float,
            parse_constant=self._constant,
        )

    def decode_at(self, text: str, start: int) -> tuple[Json, int]:
        """The value that starts at `start`, and the index after it."""
        self.problems.clear()
        value: Json
        value, end = self._decoder.raw_decode(text, start)
        if _SURROGATE_ESCAPE.search(text, start, end) and has_lone_surrogate(value):
            self.problems.append("a lone surrogate (\\ud800 to \\udfff) is no character")
        return value, end

    def _object(self, pairs: list[tuple[str, Json]]) -> dict[str, Json]:
        row = dict(pairs)
        if len(row) != len(pairs):
            repeated = next(key for key, n_times in Counter(key for key, _ in pairs).items() if n_times > 1)
            self.problems.append(f"key {repeated!r} occurs twice in one object")
        return row

    def _integer(self, digits: str) -> int:
        if len(digits) <= _MAX_INTEGER_DIGITS and -(2**63) <= int(digits) < 2**63:
            return int(digits)
        self.problems.append(f"an integer of {len(digits.lstrip('-'))} digits does not fit 64 bits; quote it")
        return 0

    def _float(self, digits: str) -> float:
        if not isfinite(float(digits)):
            self.problems.append(f"the number {digits[:20]} is too large")
        return float(digits)

    def _constant(self, name: str) -> None:
        self.problems.append(f"{name} is not JSON; use null or leave the key out")


def decoded(text: str) -> Json:
    """The one value that the whole text is. Raises `ValueError` with one line that says why it is none."""
    if is_too_deep(text):
        raise ValueError(f"nested deeper than {MAX_DEPTH} levels")
    decoder = StrictDecoder()
    try:
        value, end = decoder.decode_at(text, len(text) - len(text.lstrip()))
    except json.JSONDecodeError as error:
        raise ValueError(f"not JSON: {what_is_wrong(error)} at column {error.pos + 1}") from None
    if text[end:].strip():
        raise ValueError(f"not JSON: more text at column {end + 1}")
    if decoder.problems:
        raise ValueError(decoder.problems[0])
    return value


def what_is_wrong(error: json.JSONDecodeError) -> str:
    """The decoder's message; the place comes next, so without the last word of "Unterminated string starting at"."""
    return error.msg.removesuffix(" at")


def has_lone_surrogate(value: Json) -> bool:
    """True when a key or text cannot be written as UTF-8."""
    try:
        json.dumps(value, ensure_ascii=False).encode("utf-8")
    except UnicodeEncodeError:
        return True
    return False


def is_too_deep(text: str) -> bool:
    """True for more than MAX_DEPTH nested brackets outside strings; found without recursion."""
    if text.count("[") + text.count("{") <= MAX_DEPTH:
        return False
    depth = 0
    for token in _TOKEN.finditer(text):
        depth += bool(token[1]) - bool(token[2])
        if depth > MAX_DEPTH:
            return True
    return False


def end_of_value(text: str, start: int) -> int:
    """Index after the list or object that starts at `start`; the end of `text` when it is never closed."""
    depth = 0
    for token in _TOKEN.finditer(text, start):
        depth += bool(token[1]) - bool(token[2])
        if depth == 0:
            return token.end()
    return len(text)
