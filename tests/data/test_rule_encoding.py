"""Encoding: damaged text is found anywhere in a row, repaired or rejected; good text in any script is left alone."""

from collections.abc import Sequence
from typing import Literal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tuneline.config.schema import EncodingRuleConfig
from tuneline.data.encoding import encoding_problem, encoding_rule
from tuneline.data.finding import Changed, Finding
from tuneline.data.records import Example, Message, ToolCall, contents, make_example

SIGNS = ("é", "ü", "ñ", "’", "“", "–", "…", "£", "😀", "\ufeff")


def ask(prompt: str, answer: str) -> Example:
    return make_example("pool", 1, (Message("user", prompt), Message("assistant", answer)), None, {})


def raw(text: str) -> Example:
    return make_example("pool", 1, (), text, {})


def found(action: Literal["repair", "reject"], *examples: Example) -> Sequence[Finding]:
    return encoding_rule(EncodingRuleConfig(enabled=True, action=action))(examples)


def as_cp1252(text: str) -> str:
    """What UTF-8 looks like to a program that takes it for Windows-1252."""
    return text.encode("utf-8").decode("cp1252")


@pytest.mark.parametrize(
    "text", ["caf\ufffd", "a\0b", "a\x1b[0m", "a\x0bb", "a\x7f", "a\x85b", "a\ud800", *map(as_cp1252, SIGNS)]
)
def test_a_text_that_was_decoded_wrongly_is_rejected_wherever_it_stands(text: str) -> None:
    call = Message("assistant", "", (ToolCall("find", {"where": ["x", text]}),))
    rows = [ask(f"before {text} after", "fine"), ask("fine", text), raw(text)]
    rows.append(make_example("pool", 1, (Message("user", "fine"), call), None, {}))
    assert all(isinstance(finding, str) for finding in found("reject", *rows))


@pytest.mark.parametrize(
    "text",
    [
        "tab\tline\nreturn\r\n",
        "page\x0cbreak\n\x0c\nimport os\n",
        "SÃO PAULO, AMANHÃ, IRMÃ.",
        "a “AMANHÔ",
        "Âme, château, Übung, naïve, Привет, 日本語, हिन्दी, 😀",
        "1\u00a0000 € £5 ©",
        "a\u2028b\u200bc",
    ],
)
def test_text_in_any_language_passes_unchanged(text: str) -> None:
    assert found("reject", ask(text, text), raw(text)) == [None, None]
    assert found("repair", ask(text, text), raw(text)) == [None, None]


def test_the_reason_names_the_sign_and_its_place() -> None:
    assert found("reject", ask("fine", "ab\ufffd")) == ["U+FFFD at character 3 is no text"]


@pytest.mark.parametrize("text", ["Où est le café – l’été?", "“¡Mañana!", "Grüße 😀"])
def test_mojibake_is_mended_to_what_was_written(text: str) -> None:
    (finding,) = found("repair", ask("fine", f"Here: {as_cp1252(text)}"))
    assert isinstance(finding, Changed)
    assert contents(finding.example) == ["fine", f"Here: {text}"]
    assert finding.counts == {"encoding_repaired": 1}


def test_a_mended_row_has_the_id_of_its_new_content() -> None:
    (finding,) = found("repair", ask("fine", as_cp1252("café")))
    assert isinstance(finding, Changed)
    assert finding.example.id == ask("fine", "café").id


def test_repair_reaches_the_arguments_of_a_tool_call() -> None:
    call = Message("assistant", "", (ToolCall("find", {"where": ["x", as_cp1252("café")], "n": 2}),))
    (finding,) = found("repair", make_example("pool", 1, (Message("user", "go"), call), None, {}))
    assert isinstance(finding, Changed)
    assert finding.example.messages[1].tool_calls == (ToolCall("find", {"where": ["x", "café"], "n": 2}),)


@pytest.mark.parametrize(("broken", "mended"), [("a\0b", "ab"), ("\x1b[31mred\x1b[0m", "red"), ("it\x92s", "it’s")])
def test_control_characters_are_taken_out_or_read_as_windows_1252(broken: str, mended: str) -> None:
    (finding,) = found("repair", raw(broken))
    assert isinstance(finding, Changed)
    assert finding.example.text == mended


@pytest.mark.parametrize("text", ["caf\ufffd", "a\ud800b"])
def test_what_cannot_be_mended_is_rejected_even_where_repair_is_asked_for(text: str) -> None:
    (finding,) = found("repair", raw(text))
    assert isinstance(finding, str)


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ('s.replace("Ã©", "é")', "quotes it or holds code"),
        ("x = s.replace('Ã©', 'e')", "quotes it or holds code"),
        ("Use `fix(Ã©)` here.", "quotes it or holds code"),
        ("Like this:\n```\nCafÃ© = 1\n```", "quotes it or holds code"),
        ("Why does é show as Ã© on my page?", "beside letters that were read rightly"),
        ("Почему â€™ на странице?", "beside letters that were read rightly"),
    ],
)
def test_mojibake_that_may_be_meant_is_rejected_and_never_changed(text: str, why: str) -> None:
    (finding,) = found("repair", ask("fine", text))
    assert isinstance(finding, str)
    assert why in finding


@pytest.mark.parametrize("text", ["Ãœbung Ã¼bt", "“itâ€™s”", "Ð¿Ñ€Ð¸Ð²ÐµÑ‚ cafÃ©", 'don\'t say "cafÃ© au lait crÃ¨me"'])
def test_a_text_that_is_mojibake_throughout_is_still_mended(text: str) -> None:
    (finding,) = found("repair", raw(text))
    assert isinstance(finding, Changed)


def test_repair_mends_the_encoding_and_nothing_else() -> None:
    kept = "&amp; “curly” ﬁ ＡＢＣ\r\n e\u0301 &eacute;"
    (finding,) = found("repair", raw(f"{kept} {as_cp1252('é')}"))
    assert isinstance(finding, Changed)
    assert finding.example.text == f"{kept} é"


def test_repair_keeps_a_form_feed_beside_what_it_mends() -> None:
    (finding,) = found("repair", raw(f"one\x0ctwo {as_cp1252('é')}"))
    assert isinstance(finding, Changed)
    assert finding.example.text == "one\x0ctwo é"


def test_an_undamaged_message_beside_a_damaged_one_is_not_touched() -> None:
    odd = "&lt; ﬁ “x”"
    (finding,) = found("repair", ask(odd, as_cp1252("é")))
    assert isinstance(finding, Changed)
    assert contents(finding.example)[0] == odd


@settings(deadline=None)
@given(st.text(st.characters(max_codepoint=0x2FFF), max_size=40))
def test_a_problem_is_found_exactly_when_a_forbidden_sign_is_there(text: str) -> None:
    forbidden = any((ord(sign) < 32 and sign not in "\t\n\f\r") or 0x7F <= ord(sign) < 0xA0 for sign in text)
    problem = encoding_problem(text)
    assert (problem is not None and "no text" in problem) == forbidden


@settings(deadline=None)
@given(st.text(st.characters(blacklist_categories=()), max_size=40))
def test_what_repair_keeps_would_not_be_rejected(text: str) -> None:
    (finding,) = found("repair", raw(text))
    after = finding.example if isinstance(finding, Changed) else raw(text)
    assert isinstance(finding, str) or found("reject", after) == [None]
