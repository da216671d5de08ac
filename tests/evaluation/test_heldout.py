"""Which rows are asked, and which part of them."""

from pathlib import Path

import pytest
from msgspec.structs import replace

from tuneline.data.record_files import write_examples
from tuneline.data.records import Example, Message, ToolCall, make_example, with_id
from tuneline.errors import DataError
from tuneline.evaluation.heldout import check_room, expected_answer, prompt_messages, read_heldout


def conversation(line: int) -> Example:
    messages = (Message("system", "Be brief."), Message("user", f"Question {line}"), Message("assistant", "Yes"))
    return make_example("test", line, messages, None, {})


def test_raw_text_and_unanswered_conversations_are_left_out(tmp_path: Path) -> None:
    text = make_example("documents", 1, (), "a text", {})
    unanswered = make_example("test", 2, (Message("assistant", "Hi"), Message("user", "Hm?")), None, {})
    alone = make_example("test", 3, (Message("assistant", "Hi"),), None, {})
    write_examples(tmp_path / "test.jsonl", [text, conversation(4), unanswered, alone])
    assert read_heldout(tmp_path / "test.jsonl", None) == [conversation(4)]


def test_a_part_is_the_same_examples_however_the_file_is_ordered(tmp_path: Path) -> None:
    rows = [conversation(line) for line in range(1, 31)]
    write_examples(tmp_path / "up.jsonl", rows)
    write_examples(tmp_path / "down.jsonl", rows[::-1])
    up, down = read_heldout(tmp_path / "up.jsonl", 10), read_heldout(tmp_path / "down.jsonl", 10)
    assert len(up) == 10
    assert up == down[::-1]
    fewer = read_heldout(tmp_path / "up.jsonl", 5)
    assert {example.id for example in fewer} < {example.id for example in up}


def test_a_part_larger_than_the_file_is_the_file(tmp_path: Path) -> None:
    write_examples(tmp_path / "test.jsonl", [conversation(1), conversation(2)])
    assert len(read_heldout(tmp_path / "test.jsonl", 3)) == 2


def test_the_prompt_is_everything_before_the_answer() -> None:
    example = conversation(1)
    assert [message.role for message in prompt_messages(example)] == ["system", "user"]
    assert expected_answer(example) == "Yes"


def test_an_example_fits_up_to_the_last_token_of_the_context() -> None:
    check_room([conversation(1)], [90], [10], n_ctx=100)
    with pytest.raises(DataError, match=r"test:2 .*prompt of 91 tokens and an answer of 10 .*export\.n_ctx=100; raise"):
        check_room([conversation(1), conversation(2)], [90, 91], [10, 10], n_ctx=100)


def rows_of_other_kinds() -> list[Example]:
    talk = conversation(1)
    asked, answer = talk.messages[:-1], talk.messages[-1:]
    return [
        with_id(replace(talk, messages=asked, chosen=answer, rejected=answer)),
        with_id(replace(talk, label=True)),
        with_id(replace(talk, messages=asked)),
        with_id(replace(talk, messages=(*asked, Message("assistant", "", (ToolCall("add", {}),))))),
    ]


def test_only_conversations_that_end_in_words_are_asked(tmp_path: Path) -> None:
    write_examples(tmp_path / "test.jsonl", [*rows_of_other_kinds(), conversation(4)])
    assert read_heldout(tmp_path / "test.jsonl", None) == [conversation(4)]


def test_without_a_conversation_the_error_names_the_kinds_found(tmp_path: Path) -> None:
    write_examples(tmp_path / "test.jsonl", rows_of_other_kinds())
    found = r"test.jsonl: no conversation .*\(1 of kind conversation, 1 of kind labelled, 1 of kind preference, 1 of"
    with pytest.raises(DataError, match=found):
        read_heldout(tmp_path / "test.jsonl", None)
    write_examples(tmp_path / "empty.jsonl", [])
    with pytest.raises(DataError, match="no row at all"):
        read_heldout(tmp_path / "empty.jsonl", None)
