"""Do two tokenizers read the same text as the same ids? A model that is fed other ids than in training is another."""

import random
import unicodedata
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from tuneline.errors import ModelError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

Encode = Callable[[str], Sequence[int]]


@dataclass(frozen=True, slots=True)
class Sides:
    """How a message names whose ids are expected and whose were found, and the usual cause of a difference."""

    expected: str
    found: str
    cause: str


GGUF_SIDES = Sides(
    "the model's own",
    "the GGUF",
    "a GGUF made from another tokenizer, or a pre-tokenizer type that splits differently",
)

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
    "\v",
    "\f",
    "\u0085",
    "\u1680",
    *map(chr, range(0x2000, 0x200B)),  # NFC makes the first two their twins, U+2002 and U+2003
    "\u2028",
    "\u2029",
    "\u202f",
    "\u205f",
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


def check_same_ids(link: str, sides: Sides, texts: Iterable[str], expected: Encode, found: Encode) -> int:
    """Compare both on every text; returns how many there were. Raises `ModelError` at the first difference."""
    count = 0
    for text in texts:
        count += 1
        want, got = list(expected(text)), list(found(text))
        if want != got:
            raise ModelError(f"{link}: {_difference(sides, text, want, got)}")
    return count


def check_same_tokenizer(
    link: str, sides: Sides, expected: "PreTrainedTokenizerBase", found: "PreTrainedTokenizerBase"
) -> None:
    """Raise `ModelError` when the two have other tokens, another chat template, or read a varied text otherwise."""
    if difference := _first_difference(expected, found):
        what, want, got = difference
        raise ModelError(
            f"{link}: {what} is {want} in {sides.expected}, {got} in {sides.found}; the usual cause is {sides.cause}"
        )
    if expected.chat_template != found.chat_template:
        raise ModelError(
            f"{link}: the chat template in {sides.found} is not that in {sides.expected}; "
            f"the usual cause is {sides.cause}"
        )
    texts = list(varied_texts(N_VARIED_TEXTS, sorted(expected.get_added_vocab())))
    want_of, got_of = (dict(zip(texts, _all_ids(tokenizer, texts), strict=True)) for tokenizer in (expected, found))
    check_same_ids(link, sides, texts, want_of.__getitem__, got_of.__getitem__)


def _first_difference(
    expected: "PreTrainedTokenizerBase", found: "PreTrainedTokenizerBase"
) -> tuple[str, object, object] | None:
    """Of the special tokens and the vocabularies: what differs, and both values."""
    for name in ("bos_token", "eos_token", "pad_token"):
        want, got = getattr(expected, name), getattr(found, name)
        if want != got:
            return name, repr(want), repr(got)
    one, two = expected.get_vocab(), found.get_vocab()
    changed = sorted(token for token in one.keys() | two.keys() if one.get(token) != two.get(token))
    return (f"the id of token {changed[0]!r}", one.get(changed[0]), two.get(changed[0])) if changed else None


def _all_ids(tokenizer: "PreTrainedTokenizerBase", texts: list[str]) -> list[list[int]]:
    """All at once, which takes a tenth of the time; with the BOS and EOS that the tokenizer adds by itself."""
    ids: list[list[int]] = tokenizer(texts, add_special_tokens=True, verbose=False).input_ids
    return ids


def _difference(sides: Sides, text: str, want: list[int], got: list[int]) -> str:
    place = next((i for i, (a, b) in enumerate(zip(want, got, strict=False)) if a != b), min(len(want), len(got)))
    return (
        f"the tokenizers disagree on {text!r} at token {place}: {want[place : place + 4]} in {sides.expected}, "
        f"{got[place : place + 4]} in {sides.found}; the usual cause is {sides.cause}"
    )
