"""Rows as they may be published."""

import pytest

from tests.reporting.stage_files import EMAIL, PHONE
from tuneline.data.records import Json, Message, as_json, make_example
from tuneline.reporting.sample import Shown, as_markdown
from tuneline.reporting.showing import SHOWN_CHARS, shown


@pytest.mark.parametrize(
    "row",
    [
        f"call {PHONE} or {EMAIL}",
        f'{{"a": "x\\n{PHONE}", "b": "\\t{EMAIL}"',  # a broken line: an escape's letter touches the number
        '{"mail": "ann.smith\\u0040example-mail.com"',
        {"deep": [{"list": ["\n" + PHONE, {"key": EMAIL}]}]},
        [EMAIL, PHONE],
        {"messages": [{"role": "user", "content": f"{EMAIL}"}], "other": PHONE},
    ],
)
def test_personal_data_is_masked_however_deep_or_escaped(row: Json) -> None:
    text = shown(row)
    assert EMAIL not in text
    assert PHONE not in text


def test_personal_data_at_the_cut_is_masked_before_it_is_cut() -> None:
    text = shown("x" * (SHOWN_CHARS - 8) + " " + EMAIL)
    assert "ann" not in text


def test_an_example_reads_as_its_turns() -> None:
    messages = (Message("user", "Hi\nthere"), Message("assistant", "Hello."))
    assert shown(as_json(make_example("own", 1, messages, None, {}))) == "user: Hi\\nthere\\nassistant: Hello."


def test_long_rows_are_cut_to_the_limit() -> None:
    assert shown("a" * 300) == "a" * 300
    assert shown("a" * 301) == "a" * 299 + "…"


def test_control_direction_and_surrogate_characters_are_spelled_out() -> None:
    assert shown("a\x1b[0m\u202e\u2028\x00\ud800\r\n") == "a\\x1b[0m\\u202e\\u2028\\x00\\ud800\\r\\n"


def test_a_row_cannot_leave_its_quotation() -> None:
    text = as_markdown([Shown("clean", "length", "own:1", "<b> `x` *y*", "``` # title ````")])
    assert "\\<b\\> \\`x\\` \\*y\\*" in text
    assert text.count("`````") == 2
