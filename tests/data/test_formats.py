"""Formats at the door, and the shape that a conversation must have behind it."""

import json
from typing import Any, get_args

import pytest

from tuneline.config.schema import SourceFormat
from tuneline.data.conversation import RowProblem, check_conversation, with_system_prompt
from tuneline.data.formats import USED_KEYS, adapt
from tuneline.data.ingesting import Ingested
from tuneline.data.records import Message, Role
from tuneline.data.settings import Format, FormatOrAuto
from tuneline.errors import DataError


def turns(*pairs: tuple[Role, str]) -> tuple[Message, ...]:
    return tuple(Message(role, content) for role, content in pairs)


def jsonl(*rows: Any) -> bytes:
    return "\n".join(json.dumps(row) for row in rows).encode()


GOOD: list[tuple[Format, dict[str, Any], tuple[Message, ...]]] = [
    (
        "alpaca",
        {"instruction": "Add", "input": "1 2", "output": "3"},
        turns(("user", "Add\n\n1 2"), ("assistant", "3")),
    ),
    (
        "alpaca",
        {"instruction": "Hi", "input": "", "output": "Ho"},
        turns(("user", "Hi"), ("assistant", "Ho")),
    ),
    (
        "alpaca",
        {"instruction": "Hi", "input": None, "output": "Ho"},
        turns(("user", "Hi"), ("assistant", "Ho")),
    ),
    ("alpaca", {"instruction": "Hi", "output": "Ho"}, turns(("user", "Hi"), ("assistant", "Ho"))),
    (
        "alpaca",
        {"instruction": "c", "output": "d", "system": "s", "history": [["a", "b"]]},
        turns(("system", "s"), ("user", "a"), ("assistant", "b"), ("user", "c"), ("assistant", "d")),
    ),
    (
        "sharegpt",
        {
            "conversations": [
                {"from": "system", "value": "s"},
                {"from": "human", "value": "a"},
                {"from": "function_call", "value": "f()"},
                {"from": "observation", "value": "1"},
                {"from": "gpt", "value": "b"},
            ]
        },
        turns(("system", "s"), ("user", "a"), ("assistant", "f()"), ("tool", "1"), ("assistant", "b")),
    ),
    (
        "sharegpt",
        {
            "system": "s",
            "conversations": [
                {"from": "user", "value": "a"},
                {"from": "assistant", "value": "f()"},
                {"from": "tool", "value": "1"},
                {"from": "assistant", "value": "b"},
            ],
        },
        turns(("system", "s"), ("user", "a"), ("assistant", "f()"), ("tool", "1"), ("assistant", "b")),
    ),
    (
        "openai",
        {
            "messages": [
                {"role": "developer", "content": "s"},
                {"role": "user", "content": "a"},
                {"role": "assistant", "content": "b", "tool_calls": None},
            ]
        },
        turns(("system", "s"), ("user", "a"), ("assistant", "b")),
    ),
    ("prompt_completion", {"prompt": "a", "completion": "b"}, turns(("user", "a"), ("assistant", "b"))),
]


@pytest.mark.parametrize(("chosen", "row", "expected"), GOOD)
def test_a_row_becomes_the_conversation_it_means(
    chosen: Format, row: dict[str, Any], expected: tuple[Message, ...]
) -> None:
    assert adapt(row, chosen) == (expected, None)


@pytest.mark.parametrize(("chosen", "row", "expected"), GOOD)
def test_auto_finds_the_format_by_its_keys_and_says_so(
    chosen: Format, row: dict[str, Any], expected: tuple[Message, ...], ingest_bytes: Any
) -> None:
    ingested: Ingested = ingest_bytes(jsonl({**row, "id": 7}))
    assert ingested.examples[0].messages == expected
    assert ingested.notes == [f"own: format {chosen} (found by its keys); keys left out: id"]


def test_a_text_row_is_a_text_and_no_conversation(ingest_bytes: Any) -> None:
    (example,) = ingest_bytes(jsonl({"text": "once upon"})).examples
    assert (example.messages, example.text) == ((), "once upon")


BAD: list[tuple[Format, dict[str, Any], str]] = [
    ("alpaca", {"instruction": "a"}, "no 'output'; the keys are: instruction"),
    ("alpaca", {"instruction": "a", "output": None}, "output is null; text is expected"),
    ("alpaca", {"instruction": ["a"], "output": "b"}, "instruction is a list; text is expected"),
    ("alpaca", {"instruction": "a", "output": "b", "history": "c"}, "history is text; a list"),
    (
        "alpaca",
        {"instruction": "a", "output": "b", "history": [["c"]]},
        "history must be a list of [question, answer]",
    ),
    ("sharegpt", {"conversations": "hi"}, "conversations is text; a list of messages is expected"),
    (
        "sharegpt",
        {"conversations": [None, {"from": "gpt", "value": "a"}]},
        "message 1 is null; an object is expected",
    ),
    ("sharegpt", {"conversations": [{"value": "a"}]}, "message 1: no 'from'"),
    (
        "sharegpt",
        {"conversations": [{"from": "bot", "value": "a"}]},
        "message 1: role 'bot' is unknown; allowed: human",
    ),
    ("sharegpt", {"conversations": [{"from": "", "value": "a"}]}, "message 1: role '' is unknown"),
    ("sharegpt", {"conversations": []}, "there is no message"),
    (
        "openai",
        {"messages": [{"role": "user", "content": 1}]},
        "message 1: content is a number; text is expected",
    ),
    (
        "openai",
        {"messages": [{"role": "gpt", "content": "a"}]},
        "message 1: role 'gpt' is unknown; allowed: system",
    ),
    (
        "openai",
        {
            "messages": [
                {"role": "user", "content": "a"},
                {"role": "assistant", "content": None, "tool_calls": [{}]},
            ]
        },
        "message 2: tool calls are not supported yet",
    ),
    (
        "openai",
        {"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": None}]},
        "message 2: content is null",
    ),
    (
        "openai",
        {"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b", "weight": 0}]},
        "message 2: weight 0 is not supported",
    ),
    ("prompt_completion", {"prompt": "a"}, "no 'completion'; the keys are: prompt"),
    (
        "prompt_completion",
        {"prompt": [{"role": "user"}], "completion": "b"},
        "prompt is a list; text is expected",
    ),
    ("text", {"text": 5}, "text is a number; text is expected"),
]


@pytest.mark.parametrize(("chosen", "row", "reason"), BAD)
def test_a_row_that_does_not_fit_is_rejected_with_file_line_and_reason(
    chosen: Format, row: dict[str, Any], reason: str, ingest_bytes: Any
) -> None:
    ingested: Ingested = ingest_bytes(jsonl(row), chosen=chosen)
    (rejected,) = ingested.rejected
    assert rejected.reason.startswith("rows.jsonl:1: ")
    assert reason in rejected.reason
    assert rejected.row == row
    assert not ingested.examples


@pytest.mark.parametrize(
    ("roles", "reason"),
    [
        ("u", "the last message is user's"),
        ("sua", None),
        ("uatataua", None),
        ("uatta", None),
        ("uaa", "message 3: assistant follows assistant; expected: user or tool"),
        ("uua", "message 2: user follows user; expected: assistant"),
        ("ausa", "message 1: assistant is first; expected: system or user"),
        ("sa", "message 2: assistant follows system; expected: user"),
        ("usa", "message 2: system follows user"),
        ("ssua", "message 2: system follows system"),
        ("uta", "message 2: tool follows user"),
        ("uat", "the last message is tool's"),
        ("s", "the last message is system's"),
        ("", "there is no message"),
    ],
)
def test_user_and_assistant_alternate_and_the_assistant_has_the_last_word(roles: str, reason: str | None) -> None:
    names: dict[str, Role] = {"s": "system", "u": "user", "a": "assistant", "t": "tool"}
    messages = [Message(names[letter], "x") for letter in roles]
    if reason is None:
        check_conversation(messages)
    else:
        with pytest.raises(RowProblem) as caught:
            check_conversation(messages)
        assert str(caught.value).startswith(reason)


def test_the_system_prompt_fills_in_only_where_none_is_given() -> None:
    asked = turns(("user", "a"))
    own = turns(("system", "own"), ("user", "a"))
    assert with_system_prompt(asked, "ours") == turns(("system", "ours"), ("user", "a"))
    assert with_system_prompt(own, "ours") == own
    assert with_system_prompt(turns(("system", " "), ("user", "a")), "ours") == turns(("system", "ours"), ("user", "a"))
    assert with_system_prompt(turns(("system", ""), ("user", "a")), None) == asked


def test_rows_of_another_format_in_the_file_are_rejected_not_guessed(ingest_bytes: Any) -> None:
    good = {"prompt": "a", "completion": "b"}
    ingested: Ingested = ingest_bytes(jsonl(good, {"text": "c"}, good | {"prompt": "d"}))
    assert [example.line for example in ingested.examples] == [1, 3]
    (rejected,) = ingested.rejected
    assert rejected.reason == "rows.jsonl:2: no 'prompt'; the keys are: text"


@pytest.mark.parametrize(
    "row",
    [
        {"prompt": "a", "chosen": "b", "rejected": "c"},
        {"messages": [], "label": True},
        {"prompt": "a", "completion": "b", "label": False},
    ],
)
def test_auto_does_not_learn_from_answers_that_are_labelled_bad(row: dict[str, Any], ingest_bytes: Any) -> None:
    with pytest.raises(DataError, match=r"rows\.jsonl:1: .*not supported yet"):
        ingest_bytes(jsonl(row))


def test_unknown_keys_are_an_error_that_lists_the_formats(ingest_bytes: Any) -> None:
    with pytest.raises(DataError, match=r"rows\.jsonl:1: the keys answer, question fit no known format.*alpaca"):
        ingest_bytes(jsonl({"question": "a", "answer": "b"}))


def test_a_file_whose_first_rows_cannot_be_read_is_an_error_with_the_first_reason(ingest_bytes: Any) -> None:
    with pytest.raises(DataError, match=r"rows\.jsonl:1: the row is null"):
        ingest_bytes(b"null\n")


def test_meta_fields_are_carried_untouched_where_present(ingest_bytes: Any) -> None:
    rows = [{"text": "a", "database": {"b": [1, None]}}, {"text": "c"}]
    first, second = ingest_bytes(jsonl(*rows), meta_fields=["database"]).examples
    assert (first.meta, second.meta) == ({"database": {"b": [1, None]}}, {})


def test_a_meta_field_that_no_row_has_is_an_error(ingest_bytes: Any) -> None:
    with pytest.raises(DataError, match=r"data\.meta_fields: 'databse' is in no row"):
        ingest_bytes(jsonl({"text": "a", "database": "b"}), meta_fields=["databse"])


def test_schema_and_room_know_the_same_formats() -> None:
    assert get_args(SourceFormat) == get_args(FormatOrAuto) == ("auto", *get_args(Format))
    assert set(USED_KEYS) == set(get_args(Format))
