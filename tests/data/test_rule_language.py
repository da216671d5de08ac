"""Language: other languages and scripts are caught, English is not, and the shortcut agrees with the classifier."""

import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from tuneline.config.schema import LanguageRuleConfig
from tuneline.data.finding import Finding
from tuneline.data.language import foreign_share, language_rule, sample, surely_english
from tuneline.data.records import Example, Message, make_example
from tuneline.errors import DataError

FOLDER = Path(__file__).resolve().parents[3] / "shared" / "data"
needs_data = pytest.mark.skipif(not FOLDER.is_dir(), reason="the public samples are not beside the repository")

# Without accents as well: as people type, and as the shortcut could mistake them.
FOREIGN = {
    "es": (
        "Hola, me gustaría saber cómo puedo llegar a la estación de tren desde aquí.",
        "Escribe un poema corto sobre el mar y las montanas en invierno.",
        "El gato se sube a la mesa para comer el pan que me has dado.",
    ),
    "fr": (
        "Peux-tu m'expliquer comment fonctionne un moteur à explosion ?",
        "Donne moi une recette simple pour le repas de ce soir, on est six a table.",
        "Le chat est sur la table, as tu vu ou il a mis son or et son pain ?",
    ),
    "de": (
        "Kannst du mir bitte erklären, wie man einen Kuchen ohne Eier backt?",
        "Der Hund war an der Tür und will in den Garten, so geh doch mit ihm.",
        "Ich bin in Rom an Bord gegangen, aber das Schiff war so alt.",
    ),
    "nl": (
        "Wat is de hoofdstad van Nederland en hoeveel mensen wonen daar?",
        "Het water is me te koud of te warm, we gaan dan maar in bed.",
        "Schrijf een kort gedicht over de zee en de wind in de winter.",
    ),
    "it": (
        "Mi puoi dire quali sono le principali differenze tra questi due modelli?",
        "Vorrei una ricetta per fare la pasta al pomodoro come a Napoli.",
        "Come si fa a dire a una persona che non la ami?",
    ),
    "pt": (
        "Você pode me explicar como funciona a fotossíntese nas plantas?",
        "Escreva uma carta para o meu chefe a pedir um dia de folga.",
        "As casas do bairro me dizem mais do que os livros da escola.",
    ),
}
ENGLISH = (
    "Write a short poem about the sea.",
    "What is the capital of France?",
    "def mean(values):\n    return sum(values) / len(values)",
    "The résumé mentions a café, naïve “quotes” and the Greek letter π.",
    "SELECT name FROM singer WHERE age > 30 ORDER BY name",
    "Name three planets.",
    "Say 'hello' in Chinese: 你好. It is pronounced as it is written, with two falling and rising tones.",
)


def judge(*examples: Example, languages: tuple[str, ...] = ("en",), min_letters: int = 24) -> list[Finding]:
    section = LanguageRuleConfig(enabled=True, languages=languages, min_confidence=0.6, min_letters=min_letters)
    return list(language_rule(section)(examples))


def ask(prompt: str, answer: str) -> Example:
    return make_example("pool", 1, (Message("user", prompt), Message("assistant", answer)), None, {})


def raw(text: str) -> Example:
    return make_example("pool", 1, (), text, {})


def alpaca(name: str) -> list[Example]:
    rows = json.loads((FOLDER / name).read_text(encoding="utf-8"))
    return [ask(f"{row['instruction']}\n{row['input']}".strip(), row["output"]) for row in rows]


@pytest.mark.parametrize("language", sorted(FOREIGN))
def test_other_languages_in_the_same_letters_are_caught_and_named(language: str) -> None:
    findings = judge(*map(raw, FOREIGN[language]))
    assert all(isinstance(finding, str) and f"is in {language!r}" in finding for finding in findings)
    assert judge(*map(raw, FOREIGN[language]), languages=(language,)) == [None] * len(findings)


@pytest.mark.parametrize("text", ENGLISH)
def test_english_with_foreign_words_or_code_passes(text: str) -> None:
    assert judge(ask(text, text), raw(text)) == [None, None]


@pytest.mark.parametrize("text", ["你好", "はい", "네", "Да", "שלום", "مرحبا", "ไทย", "नमस्ते", "και"])
def test_a_script_of_no_allowed_language_is_caught_however_short_the_message(text: str) -> None:
    (finding,) = judge(ask("Please", text))
    assert finding == "message 2 (assistant) has 100% of its letters in a script of no allowed language"


@pytest.mark.parametrize(
    ("text", "language"),
    [("你好", "zh"), ("はい、漢字", "ja"), ("네", "ko"), ("Да", "ru"), ("και", "el")],
)
def test_the_scripts_of_an_allowed_language_are_fine(text: str, language: str) -> None:
    assert judge(raw(text), languages=("en", language)) == [None]


def test_a_quarter_of_the_letters_is_too_much() -> None:
    # 3 of 12 letters, and 3 of 13
    assert judge(raw("abc def ghi 你好吗"), raw("abc def ghij 你好吗"), min_letters=99) == [
        "the text has 25% of its letters in a script of no allowed language",
        None,
    ]


def test_the_share_of_foreign_letters_leaves_out_what_is_no_letter() -> None:
    han = re.compile(r"[\u4e00-\u9fff]")
    assert foreign_share("ab 1234 !? 你好", han) == 0.5
    assert foreign_share("1234 !?", han) == 0.0


def test_greek_letters_of_a_formula_are_no_greek() -> None:
    assert judge(raw("α + β = γ, Δx"), raw("π")) == [None, None]


def test_messages_with_too_few_letters_are_not_shown_to_the_classifier() -> None:
    text = "Guten Morgen, mein lieber Freund"
    n_letters = sum(sign.isalpha() for sign in text)
    (judged,), (spared,) = judge(raw(text), min_letters=n_letters), judge(raw(text), min_letters=n_letters + 1)
    assert isinstance(judged, str)
    assert spared is None


def test_prompts_and_answers_are_judged_but_not_tools_and_answers_to_be_avoided() -> None:
    german, english = FOREIGN["de"][0], "Write a short poem about the sea."
    prompt, answer = judge(ask(german, english), ask(english, german))
    assert str(prompt).startswith("message 1 (user)")
    assert str(answer).startswith("message 2 (assistant)")
    turns = (Message("user", english), Message("tool", german), Message("assistant", english))
    said = (Message("assistant", english),), (Message("assistant", german),)
    pair = Example("", "pool", 1, turns[:1], None, {}, chosen=said[0], rejected=said[1])
    assert judge(make_example("pool", 1, turns, None, {}), pair) == [None, None]


def test_a_long_text_is_judged_by_its_beginning_middle_and_end() -> None:
    text = "b" * 500 + "m" * 80 + "e" * 500
    assert {sign: sample(text).count(sign) for sign in "bme"} == {"b": 80, "m": 80, "e": 80}
    assert sample("a short text") == "a short text"


@pytest.mark.parametrize("texts", FOREIGN.values(), ids=FOREIGN)
def test_the_shortcut_takes_no_other_language_for_english(texts: tuple[str, ...]) -> None:
    english = " Could you please translate this to English?"
    for text in texts:
        assert not surely_english(text)
        assert not surely_english(sample(" ".join([text] * 8)))
        assert not surely_english(sample(" ".join([text] * 8) + english))


@pytest.mark.parametrize("code", ["xx", "english", "EN"])
def test_an_unknown_language_is_one_clear_line(code: str) -> None:
    message = rf"^clean\.language\.languages: '{code}' is no language .* allowed are .*, en, "
    with pytest.raises(DataError, match=message):
        judge(languages=("de", code))


@needs_data
def test_chinese_rows_are_caught_by_english_and_kept_by_chinese() -> None:
    rows = alpaca("alpaca_zh_demo.json")
    assert len(rows) == 1000
    # The others hold little Chinese: code to mend, a sentence to parse, a word to translate.
    assert sum(finding is not None for finding in judge(*rows)) >= 990
    assert sum(finding is None for finding in judge(*rows, languages=("zh",))) >= 950


@needs_data
def test_english_rows_are_kept_by_english() -> None:
    rows = alpaca("alpaca_en_demo.json")
    assert len(rows) == 999
    assert sum(finding is not None for finding in judge(*rows)) < 5


@needs_data
def test_the_shortcut_accepts_nothing_that_the_classifier_rejects() -> None:
    texts = sorted({text for text in _real_texts() if surely_english(sample(text))})
    assert len(texts) > 2000
    # "en" is left out of the languages, so that no shortcut is taken; every other code stands for the classifier's say.
    everything_else = judge(*map(raw, texts), languages=("la",))
    said = [finding for finding in everything_else if finding is not None and "'en'" not in str(finding)]
    assert said == []


def _real_texts() -> Iterator[str]:
    for name in ("alpaca_en_demo.json", "alpaca_zh_demo.json"):
        for example in alpaca(name):
            yield from (message.content for message in example.messages)
    for line in (FOLDER / "c4_demo.jsonl").read_text(encoding="utf-8").split("\n"):
        if line:
            yield json.loads(line)["text"]
    for row in json.loads((FOLDER / "kto_en_demo.json").read_text(encoding="utf-8")):
        yield from (message["content"] for message in row["messages"])
    for row in json.loads((FOLDER / "dpo_en_demo.json").read_text(encoding="utf-8")):
        yield from (turn["value"] for turn in [*row["conversations"], row["chosen"], row["rejected"]])
