"""Formats at the door, and the shape that a conversation must have behind it."""

import csv
import io
import json
from pathlib import Path
from typing import Any, get_args

import pytest
from msgspec.structs import replace

from tests.data.conftest import Collected, IngestBytes, IngestSources, MakeSource
from tuneline.config.schema import Format, SourceFormat
from tuneline.data.conversation import RowProblem, check_conversation, with_system_prompt
from tuneline.data.formats import USED_KEYS, Content, adapt
from tuneline.data.records import Message, Role, ToolCall
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
                {"from": "function_call", "value": '{"name": "f", "arguments": {"x": 1}}'},
                {"from": "observation", "value": "1"},
                {"from": "gpt", "value": "b"},
            ]
        },
        (
            *turns(("system", "s"), ("user", "a")),
            Message("assistant", "", (ToolCall("f", {"x": 1}),)),
            *turns(("tool", "1"), ("assistant", "b")),
        ),
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
    (
        "sharegpt",
        {"conversations": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]},
        turns(("user", "a"), ("assistant", "b")),
    ),
    (
        "openai",
        {
            "messages": [
                {"role": "user", "content": "a"},
                {
                    "role": "assistant",
                    "content": None,
                    "tool_calls": [
                        {"id": "1", "type": "function", "function": {"name": "f", "arguments": '{"x": [1]}'}},
                        {"id": "2", "type": "function", "function": {"name": "g", "arguments": {}}},
                    ],
                },
                {"role": "tool", "tool_call_id": "1", "content": "2"},
                {"role": "tool", "tool_call_id": "2", "content": "3"},
                {"role": "assistant", "content": "b"},
            ]
        },
        (
            Message("user", "a"),
            Message("assistant", "", (ToolCall("f", {"x": [1]}), ToolCall("g", {}))),
            *turns(("tool", "2"), ("tool", "3"), ("assistant", "b")),
        ),
    ),
    (
        "openai",
        {
            "messages": [
                {"role": "user", "content": "a"},
                {"role": "assistant", "content": "hm", "function_call": {"name": "f", "arguments": "{}"}},
                {"role": "function", "name": "f", "content": "1"},
                {"role": "assistant", "content": "b"},
            ]
        },
        (
            Message("user", "a"),
            Message("assistant", "hm", (ToolCall("f", {}),)),
            *turns(("tool", "1"), ("assistant", "b")),
        ),
    ),
    ("prompt_completion", {"prompt": "a", "completion": "b"}, turns(("user", "a"), ("assistant", "b"))),
    (
        "prompt_completion",
        {
            "prompt": [{"role": "system", "content": "s"}, {"role": "user", "content": "a"}],
            "completion": [{"role": "assistant", "content": "b"}],
        },
        turns(("system", "s"), ("user", "a"), ("assistant", "b")),
    ),
    ("prompt", {"prompt": "a"}, turns(("user", "a"))),
    ("prompt", {"messages": [{"role": "user", "content": "a"}]}, turns(("user", "a"))),
    (
        "prompt",
        {"system": "s", "conversations": [{"from": "human", "value": "a"}]},
        turns(("system", "s"), ("user", "a")),
    ),
]


@pytest.mark.parametrize(("chosen", "row", "expected"), GOOD)
def test_a_row_becomes_the_conversation_it_means(
    chosen: Format, row: dict[str, Any], expected: tuple[Message, ...]
) -> None:
    assert adapt(row, chosen) == Content(expected)


@pytest.mark.parametrize(("chosen", "row", "expected"), GOOD)
def test_auto_finds_the_format_by_its_keys_and_says_so(
    chosen: Format, row: dict[str, Any], expected: tuple[Message, ...], ingest_bytes: IngestBytes
) -> None:
    ingested: Collected = ingest_bytes(jsonl({**row, "id": 7}))
    assert ingested.examples[0].messages == expected
    unread = {key for turn in row.get("messages", []) for key in turn} & {"name", "tool_call_id"}
    left_out = ", ".join(["id", *sorted(f"messages[].{key}" for key in unread)])
    assert ingested.notes == [
        f"own: format {chosen} (found by its keys); 1 of the first 1 rows look like it; keys left out: {left_out}"
    ]


def test_a_text_row_is_a_text_and_no_conversation(ingest_bytes: IngestBytes) -> None:
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
        "message 2: tool call 1: no 'arguments'",
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
        "message 1: no 'content'",
    ),
    (
        "prompt_completion",
        {"prompt": 1, "completion": "b"},
        "prompt is a number; text, or a list of messages, is expected",
    ),
    ("html", {"html": "<html><body></body></html>"}, "the page has no main text"),
    ("kto", {"prompt": "a", "completion": "b", "label": 1}, "label is a number; true or false is expected"),
    ("kto", {"prompt": "a", "completion": "b"}, "no 'label'; the keys are: completion, prompt"),
    ("kto", {"messages": [{"role": "user", "content": "a"}], "label": True}, "the last message is user's"),
    ("prompt", {"text": "a"}, "no 'prompt'; the keys are: text"),
    ("prompt", {"messages": []}, "there is no message"),
    ("prompt", {"prompt": [{"role": "assistant", "content": "a"}]}, "message 1: assistant is first"),
    ("preference", {"prompt": "a", "chosen": "b"}, "no 'rejected'"),
    ("preference", {"prompt": "a", "chosen": "b", "rejected": "b"}, "chosen and rejected are equal"),
    ("preference", {"prompt": "a", "chosen": "b", "rejected": []}, "rejected has no answer"),
    ("preference", {"prompt": "a", "chosen": "b", "rejected": None}, "rejected is null; text, or a list of messages"),
    ("preference", {"chosen": "b", "rejected": "c"}, "no 'prompt', and chosen is no dialogue"),
    (
        "preference",
        {
            "prompt": "other",
            "chosen": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}],
            "rejected": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "c"}],
        },
        "prompt is not among the messages",
    ),
    (
        "preference",
        {
            "prompt": "a",
            "chosen": [{"role": "assistant", "content": "b"}, {"role": "user", "content": "c"}],
            "rejected": "d",
        },
        "chosen, message 2: user speaks",
    ),
    (
        "preference",
        {
            "chosen": "\n\nHuman: a\n\nAssistant: b\n\nHuman: c\n\nAssistant: d",
            "rejected": "\n\nHuman: a\n\nAssistant: b\n\nHuman: C\n\nAssistant: e",
        },
        "chosen and rejected part at message 3, where no answer begins",
    ),
    ("sharegpt", {"conversations": [{"from": "function_call", "value": "f()"}]}, "message 1: function_call: not JSON"),
    (
        "sharegpt",
        {"conversations": [{"from": "function_call", "value": '{"name": "f", "arguments": {"a": 1, "a": 2}}'}]},
        "message 1: function_call: key 'a' occurs twice",
    ),
    (
        "sharegpt",
        {"conversations": [{"from": "human", "value": "a"}, {"from": "gpt", "value": "b"}], "tools": "[1]"},
        "tool 1 is a number; an object is expected",
    ),
    (
        "openai",
        {"messages": [{"role": "user", "content": "a", "tool_calls": [{"name": "f", "arguments": {}}]}]},
        "message 1: user calls a tool",
    ),
    ("text", {"text": 5}, "text is a number; text is expected"),
]


@pytest.mark.parametrize(("chosen", "row", "reason"), BAD)
def test_a_row_that_does_not_fit_is_rejected_with_file_line_and_reason(
    chosen: Format, row: dict[str, Any], reason: str, ingest_bytes: IngestBytes
) -> None:
    ingested: Collected = ingest_bytes(jsonl(row), chosen=chosen)
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
    assert with_system_prompt(asked, "") == asked


def test_rows_of_another_format_in_the_file_are_rejected_not_guessed(ingest_bytes: IngestBytes) -> None:
    good = {"prompt": "a", "completion": "b"}
    ingested: Collected = ingest_bytes(jsonl(good, {"text": "c"}, good | {"prompt": "d"}))
    assert [example.line for example in ingested.examples] == [1, 3]
    (rejected,) = ingested.rejected
    assert rejected.reason == "rows.jsonl:2: no 'prompt'; the keys are: text"


ASKED, BETTER, WORSE = turns(("user", "a")), turns(("assistant", "b")), turns(("assistant", "c"))
DIALOGUE = [{"role": "user", "content": "a"}]

PAIRS: list[dict[str, Any]] = [
    {"prompt": "a", "chosen": "b", "rejected": "c"},
    {"instruction": "a", "input": "", "chosen": "b", "rejected": "c"},
    {"prompt": DIALOGUE, "chosen": [{"role": "assistant", "content": "b"}], "rejected": "c"},
    {"messages": DIALOGUE, "chosen": {"role": "assistant", "content": "b"}, "rejected": "c"},
    {
        "conversations": [{"from": "human", "value": "a"}],
        "chosen": {"from": "gpt", "value": "b"},
        "rejected": {"from": "gpt", "value": "c"},
    },
    {"chosen": "\n\nHuman: a\n\nAssistant: b", "rejected": "\n\nHuman: a\n\nAssistant: c"},
    {
        "prompt": "a",
        "chosen": [*DIALOGUE, {"role": "assistant", "content": "b"}],
        "rejected": [*DIALOGUE, {"role": "assistant", "content": "c"}],
    },
]


@pytest.mark.parametrize("row", PAIRS)
def test_a_preference_pair_is_found_and_read_however_it_is_written(
    row: dict[str, Any], ingest_bytes: IngestBytes
) -> None:
    ingested = ingest_bytes(jsonl(row))
    (example,) = ingested.examples
    assert (example.messages, example.chosen, example.rejected) == (ASKED, BETTER, WORSE)
    assert ingested.notes == ["own: format preference (found by its keys); 1 of the first 1 rows look like it"]


def test_what_two_dialogues_have_in_common_is_the_prompt(ingest_bytes: IngestBytes) -> None:
    common = "\n\nHuman: Human: really?\n\nAssistant: yes\nno\n\nHuman: a\n\nAssistant:"
    (example,) = ingest_bytes(jsonl({"chosen": f"{common} b", "rejected": common})).examples
    assert example.messages == turns(("user", "Human: really?"), ("assistant", "yes\nno"), ("user", "a"))
    # an empty answer is kept here: the rule `empties` is for it
    assert (example.chosen, example.rejected) == (BETTER, turns(("assistant", "")))


@pytest.mark.parametrize(
    "row",
    [
        {"messages": [*DIALOGUE, {"role": "assistant", "content": "b"}], "label": False},
        {"conversations": [{"from": "human", "value": "a"}, {"from": "gpt", "value": "b"}], "kto_tag": False},
        {"instruction": "a", "input": "", "output": "b", "kto_tag": False},
        {"prompt": "a", "completion": "b", "label": False},
        {"prompt": "a", "completion": "b", "label": "False"},
    ],
)
def test_a_labelled_answer_is_found_and_never_learned_from_as_a_good_one(
    row: dict[str, Any], ingest_bytes: IngestBytes
) -> None:
    ingested = ingest_bytes(jsonl(row))
    (example,) = ingested.examples
    assert (example.messages, example.label, example.kind) == (ASKED + BETTER, False, "labelled")
    assert ingested.notes[0].startswith("own: format kto (found by its keys)")


def test_labels_that_may_mean_good_and_bad_reject_the_row_instead_of_being_ignored(ingest_bytes: IngestBytes) -> None:
    ingested = ingest_bytes(jsonl({"prompt": "a", "completion": "b", "label": 0}))
    assert (len(ingested.examples), len(ingested.rejected)) == (0, 1)
    other = jsonl({"prompt": "a", "completion": "b", "label": "sports"})
    (reason,) = ingest_bytes(other).reasons
    assert "label is 'sports'" in reason
    assert "set format: prompt_completion" in reason
    assert "in columns" in reason
    said_so = ingest_bytes(other, chosen="prompt_completion")
    assert (said_so.examples[0].kind, said_so.notes[0][-22:]) == ("conversation", "; keys left out: label")
    assert ingest_bytes(other, meta_fields=["label"]).examples[0].meta == {"label": "sports"}
    renamed = ingest_bytes(jsonl({"text": "a", "label": "b"}), columns={"prompt": "text", "completion": "label"})
    assert renamed.examples[0].messages == ASKED + BETTER


@pytest.mark.parametrize("n_chars", range(5, 36))
def test_a_reason_holds_no_half_of_an_address(n_chars: int, ingest_bytes: IngestBytes) -> None:
    row = {"prompt": "a", "completion": "b", "label": f"{'x' * n_chars} ann.smith@example-mail.com"}
    (found,), (forced,) = (ingest_bytes(jsonl(row), chosen=chosen).reasons for chosen in ("auto", "kto"))
    assert "label is" in found
    assert "true or false is expected" in forced
    assert "ann.smith" not in found + forced


@pytest.mark.parametrize("n_chars", range(5, 80))
@pytest.mark.parametrize(
    ("message", "said"),
    [
        ({"role": "TEXT", "content": "a"}, "is unknown"),
        ({"role": "user", "content": "a", "weight": "TEXT"}, "is not supported"),
        ({"role": "user", "content": [{"type": "TEXT", "text": "a"}]}, "only text is learned"),
    ],
)
def test_what_a_message_says_is_no_half_of_an_address_either(
    message: dict[str, Any], said: str, n_chars: int, ingest_bytes: IngestBytes
) -> None:
    row = jsonl({"messages": [message]}).replace(b"TEXT", f"{'x' * n_chars} ann.smith@example-mail.com".encode())
    (reason,) = ingest_bytes(row, chosen="openai").reasons
    assert said in reason
    assert "ann.smith" not in reason


@pytest.mark.parametrize("word", ["0", "1", "good", "bad", "-1"])
def test_a_csv_label_in_other_words_than_true_and_false_is_never_learned_from(
    word: str, ingest_bytes: IngestBytes
) -> None:
    ingested = ingest_bytes(f"prompt,completion,label\na,b,{word}\n".encode(), "csv")
    assert ingested.examples == []
    assert repr(word) in ingested.reasons[0]
    assert ingest_bytes(b"prompt,completion,label\na,b,FALSE\n", "csv").examples[0].label is False


def test_a_few_labelled_rows_among_others_are_not_learned_from_as_good_ones(ingest_bytes: IngestBytes) -> None:
    rows = [{"prompt": "a", "completion": "b"}] * 3 + [{"prompt": "a", "completion": "c", "label": False}]
    ingested = ingest_bytes(jsonl(*rows, {"prompt": "a", "completion": "b", "label": None}))
    assert [example.line for example in ingested.examples] == [1, 2, 3, 5]
    assert ingested.reasons[0].startswith("rows.jsonl:4: label is False")


@pytest.mark.parametrize("wrapped", [False, True])
@pytest.mark.parametrize("as_text", [False, True])
def test_tools_have_one_form_behind_the_door(wrapped: bool, as_text: bool, ingest_bytes: IngestBytes) -> None:
    bare = {"name": "f", "parameters": {"type": "object"}}
    tools: Any = [{"type": "function", "function": bare} if wrapped else bare]
    row = {"messages": [*DIALOGUE, {"role": "assistant", "content": "b"}]}
    (example,) = ingest_bytes(jsonl(row | {"tools": json.dumps(tools) if as_text else tools})).examples
    assert example.tools == ({"type": "function", "function": bare},)
    assert ingest_bytes(jsonl(row | {"tools": ""})).examples[0].tools == ()


def test_the_majority_of_the_first_rows_decides_and_the_others_are_rejected_with_the_reason(
    ingest_bytes: IngestBytes,
) -> None:
    answered = {"messages": [*DIALOGUE, {"role": "assistant", "content": "b"}]}
    ingested = ingest_bytes(jsonl({"messages": DIALOGUE}, answered, answered, {"text": "c"}))
    assert [example.line for example in ingested.examples] == [2, 3]
    assert ingested.reasons == [
        "rows.jsonl:1: the last message is user's; a conversation ends with assistant, whose answer is learned",
        "rows.jsonl:4: no 'messages'; the keys are: text",
    ]
    assert ingested.notes[0].startswith("own: format openai (found by its keys); 2 of the first 4 rows look like it")


def test_columns_give_the_rows_own_names_to_the_format(ingest_bytes: IngestBytes) -> None:
    row = {"question": "a", "answer": "b", "prompt": "not this", "more": 1}
    ingested = ingest_bytes(jsonl(row), columns={"prompt": "question", "completion": "answer"}, meta_fields=["more"])
    (example,) = ingested.examples
    assert (example.messages, example.meta) == (ASKED + BETTER, {"more": 1})
    assert ingested.notes[0].endswith("; keys left out: prompt")


@pytest.mark.parametrize(
    ("columns", "problem"),
    [
        ({"prompt": "query"}, r"data\.sources\[0\]\.columns\.prompt: 'query' is in none of the first rows"),
        (
            {"question": "a"},
            r"data\.sources\[0\]\.columns: 'question' is no key of format .*; allowed: completion",
        ),
    ],
)
def test_a_column_that_nothing_reads_or_no_row_has_is_an_error(
    columns: dict[str, str], problem: str, ingest_bytes: IngestBytes
) -> None:
    with pytest.raises(DataError, match=problem):
        ingest_bytes(jsonl({"prompt": "a", "completion": "b", "a": "c"}), columns=columns, chosen="prompt_completion")


def test_columns_given_the_wrong_way_round_are_named_before_the_format_is_looked_for(ingest_bytes: IngestBytes) -> None:
    columns = {"question": "prompt", "answer": "completion"}
    problem = r"data\.sources\[0\]\.columns\.question: 'prompt' is in none of .*: answer, question; .* before the colon"
    with pytest.raises(DataError, match=problem):
        ingest_bytes(jsonl({"question": "a", "answer": "b"}), columns=columns)


def test_system_prompt_and_task_prefix_go_before_every_kind(ingest_bytes: IngestBytes) -> None:
    options = {"system_prompt": "all's", "task_prefix": "Task: "}
    begin = turns(("system", "all's"), ("user", "Task: a"))
    (example,) = ingest_bytes(jsonl({"prompt": "a", "completion": "b"}), **options).examples
    assert example.messages == begin + BETTER
    (pair,) = ingest_bytes(jsonl(PAIRS[0]), **options).examples
    assert pair.messages == begin
    assert ingest_bytes(jsonl({"text": "a"}), **options).examples[0].text == "a"


@pytest.mark.parametrize(
    ("own", "first"),
    [(None, ("system", "all's")), ("source's", ("system", "source's")), ("", ("user", "a"))],
)
def test_a_source_has_its_own_system_prompt_or_none_in_place_of_that_of_all(
    own: str | None,
    first: tuple[Role, str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    make_source: MakeSource,
    ingest_sources: IngestSources,
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "rows.jsonl").write_bytes(jsonl({"prompt": "a", "completion": "b"}))
    (example,) = ingest_sources(make_source(path="rows.jsonl", system_prompt=own), system_prompt="all's").examples
    assert example.messages[:1] == turns(first)


def test_a_web_page_gives_its_main_text_without_menu_and_footer(ingest_bytes: IngestBytes) -> None:
    said = "Bread is baked slowly, with flour, water, a little salt and a lot of patience on cold mornings."
    page = f"""<html><head><title>Bread</title></head><body><nav><a href="/">Home</a> <a href="/b">Our menu</a></nav>
    <article><h1>Bread</h1><p>{said}</p><p>{said[::-1]}</p></article><footer>Imprint</footer></body></html>"""
    (example,) = ingest_bytes(jsonl({"html": page, "url": "x"})).examples
    assert example.text is not None
    assert said in example.text
    assert not {"Our menu", "Imprint", "<p>"} & {
        part for part in ("Our menu", "Imprint", "<p>") if part in example.text
    }
    (same,) = ingest_bytes(page.encode(), "html").examples
    assert same.text == example.text


def test_unknown_keys_are_an_error_that_lists_the_formats(ingest_bytes: IngestBytes) -> None:
    with pytest.raises(DataError, match=r"rows\.jsonl:1: the keys answer, question fit no known format.*alpaca"):
        ingest_bytes(jsonl({"question": "a", "answer": "b"}))


@pytest.mark.parametrize("key", ["k" * 500_000, "\x1b[2J\n" * 40, "prompt\tcompletion"])
def test_a_key_of_any_length_or_sign_is_shown_on_one_short_line(key: str, ingest_bytes: IngestBytes) -> None:
    with pytest.raises(DataError, match=r"rows\.jsonl:1: the keys .* fit no known format") as caught:
        ingest_bytes(jsonl({key: "a"}))
    assert str(caught.value).isprintable()
    assert len(str(caught.value)) < 1500


def test_a_role_of_any_length_is_named_by_its_beginning(ingest_bytes: IngestBytes) -> None:
    good = {"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]}
    bad = {"messages": [{"role": "r" * 100_000, "content": "a"}]}
    (reason,) = ingest_bytes(jsonl(good, bad)).reasons
    assert "role 'rrr" in reason
    assert len(reason) < 300


def test_a_file_whose_first_rows_cannot_be_read_is_an_error_with_the_first_reason(ingest_bytes: IngestBytes) -> None:
    with pytest.raises(DataError, match=r"rows\.jsonl:1: the row is null"):
        ingest_bytes(b"null\n")


def test_meta_fields_are_carried_untouched_where_present(ingest_bytes: IngestBytes) -> None:
    rows = [{"text": "a", "database": {"b": [1, None]}}, {"text": "c"}]
    first, second = ingest_bytes(jsonl(*rows), meta_fields=["database"]).examples
    assert (first.meta, second.meta) == ({"database": {"b": [1, None]}}, {})


def test_a_meta_field_that_no_row_has_is_an_error(ingest_bytes: IngestBytes) -> None:
    with pytest.raises(DataError, match=r"data\.meta_fields: 'databse' is in no row"):
        ingest_bytes(jsonl({"text": "a", "database": "b"}), meta_fields=["databse"])


def test_schema_and_room_know_the_same_formats() -> None:
    assert get_args(SourceFormat) == ("auto", *get_args(Format))
    assert set(USED_KEYS) == set(get_args(Format))


def test_history_system_and_parts_of_text_are_not_lost(ingest_bytes: IngestBytes) -> None:
    asked = {"instruction": "q", "history": [["a", "b"]]}
    before = turns(("user", "a"), ("assistant", "b"), ("user", "q"))
    assert ingest_bytes(jsonl(asked), chosen="prompt").examples[0].messages == before
    assert ingest_bytes(jsonl(asked | {"chosen": "x", "rejected": "y"})).examples[0].messages == before
    begin = turns(("system", "s"), ("user", "a"))
    tools = [{"name": "f", "parameters": {}}]
    (pair,) = ingest_bytes(jsonl({"prompt": "a", "completion": "b", "system": "s", "tools": tools})).examples
    assert (pair.messages, len(pair.tools)) == (begin + BETTER, 1)
    parts = [{"type": "text", "text": "b"}]
    row = {"system": "s", "messages": [*DIALOGUE, {"role": "assistant", "content": parts}]}
    assert ingest_bytes(jsonl(row)).examples[0].messages == begin + BETTER


QUESTION = [{"role": "user", "content": "a"}]
ANSWER = [*QUESTION, {"role": "assistant", "content": "b"}]


@pytest.mark.parametrize(
    "row",
    [
        {"system": "s", "messages": [{"role": "system", "content": "t"}, *ANSWER]},
        {"messages": [{"role": "developer", "content": "s"}, {"role": "system", "content": "t"}, *ANSWER]},
        {"system": "s", "conversations": [{"from": "system", "value": "t"}, *ANSWER]},
        {"system": "s", "prompt": [{"role": "system", "content": "t"}, *QUESTION], "completion": "b", "label": True},
        {"system": "s", "prompt": [{"role": "system", "content": "t"}, *QUESTION], "chosen": "b", "rejected": "c"},
        {"system": "s", "prompt": [{"role": "system", "content": "t"}, *QUESTION]},
    ],
)
def test_several_system_texts_at_the_start_become_one_and_none_is_lost(
    row: dict[str, Any], ingest_bytes: IngestBytes
) -> None:
    ingested = ingest_bytes(jsonl(row))
    assert ingested.reasons == []
    assert ingested.examples[0].messages[:2] == turns(("system", "s\n\nt"), ("user", "a"))


def test_a_system_text_that_is_repeated_or_blank_is_there_once(ingest_bytes: IngestBytes) -> None:
    for text in ("s", " "):
        row = {"system": "s", "messages": [{"role": "system", "content": text}, *ANSWER]}
        assert ingest_bytes(jsonl(row)).examples[0].messages[:2] == turns(("system", "s"), ("user", "a"))


MESSAGES: dict[str, dict[str, Any]] = {
    "openai": {"messages": [*DIALOGUE, {"role": "assistant", "content": "b"}]},
    "sharegpt": {"conversations": [{"from": "human", "value": "a"}, {"from": "gpt", "value": "b"}]},
    "preference": {"prompt": "a", "chosen": [{"role": "assistant", "content": "b"}], "rejected": "c"},
    "preference of dialogues": {
        "prompt": "a",
        "chosen": [*DIALOGUE, {"role": "assistant", "content": "b"}],
        "rejected": [*DIALOGUE, {"role": "assistant", "content": "c"}],
    },
    "preference, sharegpt": {
        "conversations": [{"from": "human", "value": "a"}],
        "chosen": {"from": "gpt", "value": "b"},
        "rejected": {"from": "gpt", "value": "c"},
    },
    "kto": {"messages": [*DIALOGUE, {"role": "assistant", "content": "b"}], "label": "true"},
    "prompt": {"messages": DIALOGUE},
    "prompt_completion": {"prompt": DIALOGUE, "completion": [{"role": "assistant", "content": "b"}]},
    "alpaca": {"instruction": "a", "output": "b", "history": [["x", "y"]]},
}


def packed(row: dict[str, Any], container: str) -> bytes:
    as_texts = {key: value if isinstance(value, str) else json.dumps(value) for key, value in row.items()}
    match container:
        case "csv":
            writer = csv.DictWriter(file := io.StringIO(), row)
            writer.writeheader()
            writer.writerow(as_texts)
            return file.getvalue().encode()
        case "parquet":
            import pyarrow.parquet  # type: ignore[import-untyped]  # no stubs

            pyarrow.parquet.write_table(pyarrow.Table.from_pylist([as_texts]), data := io.BytesIO())
            return data.getvalue()
    return jsonl(as_texts)


@pytest.mark.parametrize("container", ["csv", "parquet", "jsonl"])
@pytest.mark.parametrize("name", MESSAGES)
def test_messages_as_json_text_are_the_messages_in_every_container(
    name: str, container: str, ingest_bytes: IngestBytes
) -> None:
    row = MESSAGES[name]
    expected, found = ingest_bytes(jsonl(row)), ingest_bytes(packed(row, container), container)
    assert (found.reasons, len(found.examples)) == ([], 1)
    assert replace(found.examples[0], line=0) == replace(expected.examples[0], line=0)
    assert found.notes == expected.notes


@pytest.mark.parametrize(
    "answer",
    [
        '{"role": "Engineer", "content": "b"}',
        '[{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]',
        '[{"from": "Berlin", "to": "Rome"}]',
        '[{"role": "assistant", "content": ',
    ],
)
def test_an_answer_that_is_json_of_its_own_stays_the_text_that_it_is(answer: str, ingest_bytes: IngestBytes) -> None:
    (example,) = ingest_bytes(jsonl({"prompt": "x", "completion": answer})).examples
    assert example.messages == turns(("user", "x"), ("assistant", answer))
    (pair,) = ingest_bytes(jsonl({"prompt": "x", "chosen": answer, "rejected": "c"})).examples
    assert pair.chosen == turns(("assistant", answer))


def test_text_and_calls_of_one_turn_are_one_message_as_openai_has_them(ingest_bytes: IngestBytes) -> None:
    calls = [{"name": name, "arguments": {"x": 1}} for name in ("f", "g")]
    spoken = [("human", "a"), ("gpt", "hm"), *(("function_call", json.dumps(call)) for call in calls)]
    spoken += [("observation", "1"), ("observation", "2"), ("gpt", "b")]
    ours = ingest_bytes(jsonl({"conversations": [{"from": name, "value": value} for name, value in spoken]}))
    rows = [
        *DIALOGUE,
        {"role": "assistant", "content": "hm", "tool_calls": calls},
        {"role": "tool", "content": "1"},
        {"role": "tool", "content": "2"},
        {"role": "assistant", "content": "b"},
    ]
    assert ours.reasons == []
    assert ours.examples == ingest_bytes(jsonl({"messages": rows})).examples


def test_two_texts_in_a_row_or_a_text_behind_its_call_are_still_out_of_turn(ingest_bytes: IngestBytes) -> None:
    call = {"from": "function_call", "value": '{"name": "f", "arguments": {}}'}
    asked, answer = {"from": "human", "value": "a"}, {"from": "gpt", "value": "b"}
    for turn in (answer, call):
        (reason,) = ingest_bytes(jsonl({"conversations": [asked, turn, answer]})).reasons
        assert "assistant follows assistant" in reason


def test_keys_of_messages_that_nothing_reads_are_named_and_null_ones_are_not(ingest_bytes: IngestBytes) -> None:
    answer = {"role": "assistant", "content": "b", "reasoning_content": "hm", "name": None, "weight": 1}
    ingested = ingest_bytes(jsonl({"talk": [*DIALOGUE, answer]}), columns={"messages": "talk"})
    assert ingested.examples[0].messages == ASKED + BETTER
    assert ingested.notes[0].endswith("; keys left out: talk[].reasoning_content")
    pair = {"prompt": "a", "chosen": {"from": "gpt", "value": "b", "model": "m"}, "rejected": "c"}
    assert ingest_bytes(jsonl(pair)).notes[0].endswith("; keys left out: chosen[].model")


@pytest.mark.parametrize("weight", [0.5, 2, "1", False])
def test_a_weight_other_than_one_rejects_the_row(weight: Any, ingest_bytes: IngestBytes) -> None:
    row = {"messages": [*DIALOGUE, {"role": "assistant", "content": "b", "weight": weight}]}
    assert f"message 2: weight {weight} is not supported, only 1" in ingest_bytes(jsonl(row)).reasons[0]
    row["messages"][1]["weight"] = 1
    assert len(ingest_bytes(jsonl(row)).examples) == 1


@pytest.mark.parametrize("prompt", ["\n\nHuman: x\n\nAssistant: y\n\nHuman: a\n\nAssistant:", "Human: a\n\nAssistant:"])
def test_a_prompt_written_with_speakers_is_the_dialogue_and_ends_before_the_answer(
    prompt: str, ingest_bytes: IngestBytes
) -> None:
    asked = (turns(("user", "x"), ("assistant", "y")) if "x" in prompt else ()) + ASKED
    for before in ("", prompt):  # answers, and whole dialogues
        row = {"prompt": prompt, "chosen": f"{before} b", "rejected": f"{before} c"}
        (pair,) = ingest_bytes(jsonl(row)).examples
        assert (pair.messages, pair.chosen, pair.rejected) == (asked, BETTER, WORSE)
    assert ingest_bytes(jsonl({"prompt": prompt})).examples[0].messages == asked
    assert ingest_bytes(jsonl({"prompt": prompt, "completion": " b"})).examples[0].messages == asked + BETTER


@pytest.mark.parametrize(
    "prompt", ["Human: who says that?", "Assistant: a definition?", "Say\n\nHuman: a\n\nAssistant:"]
)
def test_a_prompt_that_only_mentions_speakers_is_one_message(prompt: str, ingest_bytes: IngestBytes) -> None:
    (pair,) = ingest_bytes(jsonl({"prompt": prompt, "chosen": " b", "rejected": "c"})).examples
    assert (pair.messages, pair.chosen) == (turns(("user", prompt)), turns(("assistant", " b")))


def test_weight_zero_and_parts_that_are_no_text_reject_the_row(ingest_bytes: IngestBytes) -> None:
    row = {"conversations": [{"from": "human", "value": "a"}, {"from": "gpt", "value": "b", "weight": 0}]}
    assert "weight 0" in ingest_bytes(jsonl(row)).reasons[0]
    image = {"messages": [{"role": "user", "content": [{"type": "image_url"}]}, {"role": "assistant", "content": "b"}]}
    assert "part 1 has type 'image_url'" in ingest_bytes(jsonl(image)).reasons[0]


def test_a_call_with_empty_arguments_has_none(ingest_bytes: IngestBytes) -> None:
    call = {"role": "assistant", "tool_calls": [{"function": {"name": "f", "arguments": ""}}]}
    (example,) = ingest_bytes(jsonl({"messages": [*DIALOGUE, call]})).examples
    assert example.messages[-1].tool_calls[0].arguments == {}
