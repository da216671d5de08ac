"""Do two tokenizers read the same text as the same ids? A model that is fed other ids than in training is another."""

import random
import unicodedata
from collections.abc import Callable, Iterable, Iterator, Sequence

from tuneline.errors import ModelError

Encode = Callable[[str], Sequence[int]]

N_VARIED_TEXTS = 10_000  # what convert and verify try; fixed, as a check that could be turned down is none

_SCRIPTS = (
    (0x20, 0x7F), (0xA1, 0x180), (0x370, 0x400), (0x400, 0x530), (0x5D0, 0x5EB), (0x620, 0x64B), (0x904, 0x93A),
    (0xE01, 0xE31), (0x1100, 0x1113), (0x1780, 0x17B4), (0x2010, 0x2028), (0x20A0, 0x20C0), (0x2190, 0x2200),
    (0x3041, 0x3097), (0x30A1, 0x30FB), (0x4E00, 0x9FA6), (0xAC00, 0xD7A4), (0x1F300, 0x1F650), (0x1D400, 0x1D455),
)  # fmt: skip
_WORDS = (
    "SELECT", "name", "FROM", "Hello", "world", "don't", "I'LL", "we've", "naïve", "Größe", "Ελλάδα", "Привет",
    "我想在", "東京", "हिन्दी", "العربية", "한국어", "ไทย", "कि", "Việt", "x_1", "fooBar", "3.14", "1e-4", "0x1F",
    "1234567", "½", "²", "'it''s'", "<=", "!=", "->", "```", '""', "…", "“quoted”", "👍🏽", "👩‍👩‍👧", "🇩🇪", "🚀",
    "<b>", "C:\\tmp", "http://a.b/c?d=e#f",
)  # fmt: skip
_GAPS = (
    "",
    "",
    " ",
    " ",
    " ",
    "  ",
    "   ",
    "\n",
    "\n\n",
    "\r\n",
    "\t",
    "\t\t",
    " \n ",
    "        ",
    "\u00a0",
    "\u3000",
)


def varied_texts(count: int, special_tokens: Sequence[str]) -> Iterator[str]:
    """`count` fixed strings: whitespace runs, digits, scripts, emoji, code, `special_tokens` in the middle of text.

    All are in Unicode's NFC form: llama.cpp does not normalise, and tokenizers that do would differ by design.
    """
    draw = random.Random("varied texts")
    for _ in range(count):
        pieces = [_piece(draw, special_tokens) + draw.choice(_GAPS) for _ in range(draw.randint(1, 12))]
        yield unicodedata.normalize("NFC", draw.choice(_GAPS) + "".join(pieces))


def _piece(draw: random.Random, special_tokens: Sequence[str]) -> str:
    match draw.randrange(10):
        case 0 | 1 | 2 | 3:
            return draw.choice(_WORDS)
        case 4 | 5:
            first, end = draw.choice(_SCRIPTS)
            return "".join(chr(draw.randrange(first, end)) for _ in range(draw.randint(1, 8)))
        case 6:
            return str(draw.randrange(10 ** draw.randint(1, 12)))
        case 7:
            return draw.choice("!\"#$%&'()*+,-./:;<=>?@[]^_`{|}~") * draw.randint(1, 6)
        case 8:
            return draw.choice(_GAPS) * draw.randint(1, 5)
        case _:
            return draw.choice(special_tokens) if special_tokens else draw.choice(_WORDS)


def check_same_ids(link: str, texts: Iterable[str], expected: Encode, found: Encode) -> int:
    """Compare both on every text; returns how many there were. Raises `ModelError` at the first difference."""
    count = 0
    for text in texts:
        count += 1
        want, got = list(expected(text)), list(found(text))
        if want != got:
            raise ModelError(f"{link}: {_difference(text, want, got)}")
    return count


def _difference(text: str, want: list[int], got: list[int]) -> str:
    place = next((i for i, (a, b) in enumerate(zip(want, got, strict=False)) if a != b), min(len(want), len(got)))
    return (
        f"the tokenizers disagree on {text!r} at token {place}: {want[place : place + 4]} in the model's own, "
        f"{got[place : place + 4]} in the GGUF; the usual cause is a GGUF made from another tokenizer, or a "
        f"pre-tokenizer type that splits differently"
    )
