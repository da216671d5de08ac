"""Toxicity: whole words of the lexicon are counted, in any writing of case, and never inside other words."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from tuneline.config.schema import ToxicityRuleConfig
from tuneline.data.finding import Finding
from tuneline.data.records import Example, Message, ToolCall, make_example
from tuneline.data.toxicity import toxicity_rule
from tuneline.errors import DataError


def judge(
    *examples: Example, languages: tuple[str, ...] = ("en",), max_words: int = 0, allowed: tuple[str, ...] = ()
) -> list[Finding]:
    section = ToxicityRuleConfig(enabled=True, languages=languages, max_words=max_words, allowed_words=allowed)
    return list(toxicity_rule(section)(examples))


def raw(text: str) -> Example:
    return make_example("pool", 1, (), text, {})


def ask(prompt: str, answer: str) -> Example:
    return make_example("pool", 1, (Message("user", prompt), Message("assistant", answer)), None, {})


@pytest.mark.parametrize(
    "text",
    [
        "You asshole!",
        "SHIT happens",
        "“bullshit”",
        "what a piece of\n shit.",
        "f*ck that",
        "such $hit",
        "oh_no shit\u2014no",
    ],
)
def test_words_of_the_lexicon_are_found_whatever_stands_around_them(text: str) -> None:
    (finding,) = judge(raw(text))
    assert isinstance(finding, str)
    assert finding.startswith("1 words of the lexicon, the first in the text: ")


@pytest.mark.parametrize(
    "text",
    [
        "The council of Scunthorpe and Penistone meets in Sussex.",
        "A classic passage on analysis, assassins and the title of a document.",
        "Dickens wrote of cockpits, shitake mushrooms, bassoons and Essex.",
        "pass_shit_count, shit2 and xshit are names",
        "éshit shité",
        "US$hit",
    ],
)
def test_a_word_inside_another_word_is_no_hit(text: str) -> None:
    assert judge(raw(text)) == [None]


def test_every_word_counts_and_an_entry_of_several_words_counts_once() -> None:
    text = "Shit, shit! A piece of shit."
    assert judge(raw(text), max_words=3) == [None]
    assert judge(raw(text), max_words=2) == ["3 words of the lexicon, the first in the text: 'Shit'; allowed are 2"]


def test_the_words_of_all_messages_are_added_up() -> None:
    assert judge(ask("shit", "shit"), max_words=2) == [None]
    assert judge(ask("fine", "well, shit")) == [
        "1 words of the lexicon, the first in message 2 (assistant): 'shit'; allowed are 0"
    ]


def test_allowed_words_do_not_count_and_the_others_still_do() -> None:
    assert judge(raw("sex and the City"), allowed=("sex",)) == [None]
    assert judge(raw("SEX and shit"), allowed=("Sex",)) == [
        "1 words of the lexicon, the first in the text: 'shit'; allowed are 0"
    ]


def test_a_word_of_another_language_may_be_on_the_list_of_allowed_words() -> None:
    assert judge(raw("so eine Scheiße"), languages=("en",), allowed=("scheiße",)) == [None]
    (german,) = judge(raw("so eine Scheiße"), languages=("de",), allowed=("sex", "shit"))
    assert isinstance(german, str)


def test_each_language_has_its_own_lexicon() -> None:
    assert judge(raw("so eine Scheiße"), languages=("en",)) == [None]
    (german,) = judge(raw("so eine SCHEISSE oder Scheisse, oder Scheiße"), languages=("de",))
    assert isinstance(german, str)
    (russian, inside) = judge(raw("вот говно"), raw("вот говнодав"), languages=("en", "ru"))
    assert isinstance(russian, str)
    assert inside is None


def test_arguments_of_tool_calls_are_looked_at_and_answers_to_be_avoided_are_not() -> None:
    call = Message("assistant", "", (ToolCall("find", {"what": "shit"}),))
    assert judge(make_example("pool", 1, (Message("user", "go"), call), None, {})) == [
        "1 words of the lexicon, the first in message 2 (assistant): 'shit'; allowed are 0"
    ]
    rude, kind = (Message("assistant", "shit"),), (Message("assistant", "fine"),)
    pair = Example("", "pool", 1, (Message("user", "so?"),), None, {}, chosen=kind, rejected=rude)
    assert judge(pair, replace(ask("so?", "shit"), label=False)) == [None, None]
    assert judge(replace(pair, chosen=rude, rejected=kind)) != [None]


def test_a_lone_surrogate_beside_a_word_does_not_hide_it() -> None:
    assert [finding is None for finding in judge(raw("fine"), raw("shit \ud800"), raw("\ud800"))] == [True, False, True]


@settings(deadline=None)
@given(st.lists(st.sampled_from(["shit", "SHIT", "shitty", "q", "_", "é", ".", "$", "\n", " ", "piece of"])))
def test_a_hit_is_a_word_of_the_lexicon_between_other_signs(parts: list[str]) -> None:
    text = "".join(parts)
    apart = "".join(sign if sign.isalnum() or sign == "_" else " " for sign in text.lower()).split()
    (finding,) = judge(raw(text + " "))
    assert (finding is not None) == any(word in {"shit", "shitty"} for word in apart)


@pytest.mark.parametrize(
    ("languages", "allowed", "message"),
    [
        (("xx",), (), r"clean\.toxicity\.languages: there is no lexicon for 'xx'; allowed are ar, cs, "),
        (("zh",), (), r"clean\.toxicity\.languages: there is no lexicon for 'zh'"),
        (("en",), ("Flower", "sex", "tree"), r"allowed_words: no lexicon holds 'Flower', 'tree'; take them off"),
    ],
)
def test_an_unknown_language_or_allowed_word_is_one_clear_line(
    languages: tuple[str, ...], allowed: tuple[str, ...], message: str
) -> None:
    with pytest.raises(DataError, match=message):
        judge(raw("fine"), languages=languages, allowed=allowed)


def test_no_language_finds_nothing() -> None:
    assert judge(raw("shit"), languages=()) == [None]
