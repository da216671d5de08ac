"""Insults and obscenities, by a lexicon."""

import re
from collections.abc import Callable, Iterable, Mapping, Sequence

from tuneline.config.schema import ToxicityRuleConfig
from tuneline.data.finding import Finding, Rule
from tuneline.data.judging import learned, place
from tuneline.data.records import Example, Message, message_texts
from tuneline.errors import DataError

Lexicon = Mapping[str, Sequence[str]]  # entries by their first word; those without a letter or digit under ""
Hits = Callable[[Sequence[str]], Sequence[bool]]  # which texts hold a word of the lexicon

_WORD = re.compile(r"\w+")
# What glin-profanity calls its lexicons. Those of Chinese, Hindi, Japanese and Thai are left out: where words are not
# told apart by spaces and letters alone, a lexicon finds its entries inside harmless words.
_LEXICONS = {
    "ar": "arabic",
    "cs": "czech",
    "da": "danish",
    "de": "german",
    "en": "english",
    "eo": "esperanto",
    "es": "spanish",
    "fa": "persian",
    "fi": "finnish",
    "fr": "french",
    "hu": "hungarian",
    "it": "italian",
    "ko": "korean",
    "nl": "dutch",
    "no": "norwegian",
    "pl": "polish",
    "pt": "portuguese",
    "ru": "russian",
    "sv": "swedish",
    "tr": "turkish",
}


def toxicity_rule(settings: ToxicityRuleConfig) -> Rule:
    """Rows with more words of the lexicons of glin-profanity than allowed go.

    A word counts when it stands alone: letters, digits or _ beside it make another word of it. Case does not matter.
    An entry of several words counts as one. The worse answer of a preference pair is not looked at. Raises
    `DataError` for a language without a lexicon, and for an allowed word that is in none.
    """
    entries = _entries(settings)
    if not entries:
        return lambda examples: [None] * len(examples)
    lexicon, hits = _by_first_word(entries), _prefilter(entries)
    return lambda examples: _judge(examples, settings.max_words, lexicon, hits)


def _entries(settings: ToxicityRuleConfig) -> list[str]:
    for language in settings.languages:
        if language not in _LEXICONS:
            raise DataError(
                f"clean.toxicity.languages: there is no lexicon for {language!r}; allowed are {', '.join(_LEXICONS)}"
            )
    found = _words(settings.languages)
    allowed = {word.lower() for word in settings.allowed_words}
    if not allowed <= found:
        _check_known(settings.allowed_words)
    return sorted(found - allowed - {""})


def _check_known(allowed_words: Sequence[str]) -> None:
    """An allowed word of any lexicon will do: one list serves every choice of languages."""
    known = _words(_LEXICONS)
    if unknown := [word for word in allowed_words if word.lower() not in known]:
        named = ", ".join(map(repr, unknown))
        raise DataError(f"clean.toxicity.allowed_words: no lexicon holds {named}; take them off the list")


def _words(languages: Iterable[str]) -> set[str]:
    from glin_profanity.data.dictionary import dictionary  # type: ignore[import-untyped]

    return {word.lower().strip() for language in languages for word in dictionary.get_words(_LEXICONS[language])}


def _judge(examples: Sequence[Example], max_words: int, lexicon: Lexicon, hits: Hits) -> list[Finding]:
    texts = ["\n".join(_texts(example)) for example in examples]
    return [
        _reason(example, max_words, lexicon) if hit else None
        for example, hit in zip(examples, hits(texts), strict=True)
    ]


def _texts(example: Example) -> list[str]:
    """The raw text, or what each message of `learned` says, at its place."""
    if example.text is not None:
        return [example.text]
    return [_said(message) for message in learned(example)]


def _said(message: Message) -> str:
    return "\n".join(message_texts(message)) if message.tool_calls else message.content


def _reason(example: Example, max_words: int, lexicon: Lexicon) -> str | None:
    found = [(word, index) for index, text in enumerate(_texts(example)) for word in _found(text, lexicon)]
    if len(found) <= max_words:
        return None
    word, index = found[0]
    return f"{len(found)} words of the lexicon, the first in {place(example, index)}: {word!r}; allowed are {max_words}"


def _found(text: str, lexicon: Lexicon) -> list[str]:
    """The text's words of the lexicon, in order; of two that begin at one place, the longer one."""
    firsts = {"", *_WORD.findall(text.lower())}
    entries = [entry for first in firsts for entry in lexicon.get(first, ())]
    entries.sort(key=lambda entry: (-len(entry), entry))
    alternatives = "|".join(re.escape(entry).replace(r"\ ", r"\s+") for entry in entries)
    return re.findall(rf"(?<!\w)(?:{alternatives})(?!\w)", text, re.IGNORECASE) if entries else []


def _by_first_word(entries: Sequence[str]) -> Lexicon:
    lexicon: dict[str, list[str]] = {}
    for entry in entries:
        first = _WORD.search(entry)
        lexicon.setdefault(first[0] if first else "", []).append(entry)
    return lexicon


def _prefilter(entries: Sequence[str]) -> Hits:
    """RE2, by way of pyarrow, on all texts at once: its time does not grow with the lexicon, as that of `re` does."""
    import pyarrow as pa  # type: ignore[import-untyped]  # no stubs
    import pyarrow.compute as pc  # type: ignore[import-untyped]

    pattern = _as_re2(entries)

    def hits(texts: Sequence[str]) -> Sequence[bool]:
        try:
            data = pa.array(texts, pa.large_string())
        except UnicodeEncodeError:  # a lone surrogate, in rows that the encoding rule has not seen
            data = pa.array([text.encode("utf-8", "replace").decode() for text in texts], pa.large_string())
        found: list[bool] = pc.match_substring_regex(data, pattern).to_pylist()
        return found

    return hits


def _as_re2(entries: Sequence[str]) -> str:
    r"""Finds all that counts, and a little more: for RE2's \b, which knows ASCII only, other letters end a word."""
    bounded = [_escaped(entry) for entry in entries if _is_word_sign(entry[0]) and _is_word_sign(entry[-1])]
    others = [_escaped(entry) for entry in entries if not (_is_word_sign(entry[0]) and _is_word_sign(entry[-1]))]
    # One pair of \b for all words: a pair for each is ten times as slow.
    return "(?i)" + "|".join([rf"\b(?:{'|'.join(bounded)})\b"] * bool(bounded) + others)


def _is_word_sign(sign: str) -> bool:
    return sign.isascii() and sign.isalnum()


def _escaped(entry: str) -> str:
    return re.sub(r"([!-/:-@\[-`{-~])", r"\\\1", entry).replace(" ", r"\s+")
