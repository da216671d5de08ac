"""Public data sets as they are: the right format, every row accounted for, counts from a reading that is not ours.

The files are not in the repository; without them beside it these tests are skipped.
"""

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from tests.data.conftest import Collected, IngestSources, MakeSource

FOLDER = Path(__file__).resolve().parents[3] / "shared" / "data"
pytestmark = pytest.mark.skipif(not FOLDER.is_dir(), reason="the public samples are not beside the repository")

Ingest = Any
GSM8K = {"prompt": "question", "completion": "answer"}


@pytest.fixture
def ingested(ingest_sources: IngestSources, make_source: MakeSource, monkeypatch: pytest.MonkeyPatch) -> Ingest:
    monkeypatch.chdir(FOLDER.parent)
    return lambda name, **options: ingest_sources(make_source(path=f"data/{name}", **options))


def rows_of(name: str) -> list[dict[str, Any]]:
    text = (FOLDER / name).read_text(encoding="utf-8")
    if name.endswith(".json"):
        return [dict(row) for row in json.loads(text)]
    return [dict(json.loads(line)) for line in text.split("\n") if line]


def said(example: Any) -> list[tuple[str, str]]:
    return [(turn.role, turn.content) for turn in example.messages]


@pytest.mark.parametrize(
    ("name", "n_rows", "found"),
    [
        ("alpaca_en_demo.json", 999, "alpaca"),
        ("alpaca_zh_demo.json", 1000, "alpaca"),
        ("toolformer_dedupe_only.json", 7673, "alpaca"),
        ("glaive_toolcall_en_demo.json", 300, "sharegpt"),
        ("dpo_en_demo.json", 300, "preference"),
        ("kto_en_demo.json", 300, "kto"),
        ("c4_demo.jsonl", 300, "text"),
    ],
)
def test_every_row_is_an_example_of_the_format_that_its_readme_names(
    name: str, n_rows: int, found: str, ingested: Ingest
) -> None:
    result: Collected = ingested(name)
    assert len(rows_of(name)) == n_rows
    assert (len(result.examples), result.rejected) == (n_rows, [])
    expected = f"own: format {found} (found by its keys); 100 of the first 100 rows look like it"
    assert result.notes[0].startswith(expected)
    assert [example.line for example in result.examples] == list(range(1, n_rows + 1))


def test_no_key_of_a_row_is_left_out_silently(ingested: Ingest) -> None:
    (note,) = ingested("toolformer_dedupe_only.json").notes
    (odd,) = {key for row in rows_of("toolformer_dedupe_only.json") for key in row} - {"instruction", "input", "output"}
    assert note.endswith(f"keys left out: {odd}")


@pytest.mark.parametrize("name", ["alpaca_en_demo.json", "alpaca_zh_demo.json", "toolformer_dedupe_only.json"])
def test_alpaca_rows_say_what_the_file_says(name: str, ingested: Ingest) -> None:
    expected = [
        [("user", "\n\n".join(filter(None, (row["instruction"], row["input"])))), ("assistant", row["output"])]
        for row in rows_of(name)
    ]
    assert [said(example) for example in ingested(name).examples] == expected


def test_tool_dialogues_keep_every_turn_call_and_function(ingested: Ingest) -> None:
    role_of = {"human": "user", "gpt": "assistant", "function_call": "assistant", "observation": "tool"}
    rows = rows_of("glaive_toolcall_en_demo.json")
    examples = ingested("glaive_toolcall_en_demo.json").examples
    for row, example in zip(rows, examples, strict=True):
        turns = row["conversations"]
        assert [turn.role for turn in example.messages] == [role_of[turn["from"]] for turn in turns]
        for turn, message in zip(turns, example.messages, strict=True):
            calls = [{"name": call.name, "arguments": call.arguments} for call in message.tool_calls]
            is_call = turn["from"] == "function_call"
            assert calls == ([json.loads(turn["value"])] if is_call else [])
            assert message.content == ("" if is_call else turn["value"])
        assert [tool["function"] for tool in example.tools] == json.loads(row["tools"])
    n_calls = sum(len(message.tool_calls) for example in examples for message in example.messages)
    assert n_calls == 211  # as a plain count of the file says: the loop above saw some


def test_preference_pairs_keep_prompt_and_both_answers(ingested: Ingest) -> None:
    role_of = {"system": "system", "human": "user", "gpt": "assistant"}
    rows = rows_of("dpo_en_demo.json")
    for row, example in zip(rows, ingested("dpo_en_demo.json").examples, strict=True):
        assert said(example) == [(role_of[turn["from"]], turn["value"]) for turn in row["conversations"]]
        assert [turn.content for turn in example.chosen] == [row["chosen"]["value"]]
        assert [turn.content for turn in example.rejected] == [row["rejected"]["value"]]
        assert example.kind == "preference"
    # by plain Python: no pair of equal answers, none that does not wait for an answer
    assert all(row["chosen"]["value"] != row["rejected"]["value"] for row in rows)
    assert {row["conversations"][-1]["from"] for row in rows} == {"human"}


def test_labelled_dialogues_keep_turns_and_label(ingested: Ingest) -> None:
    rows = rows_of("kto_en_demo.json")
    examples = ingested("kto_en_demo.json").examples
    assert [said(example) for example in examples] == [
        [(turn["role"], turn["content"]) for turn in row["messages"]] for row in rows
    ]
    assert [example.label for example in examples] == [row["label"] for row in rows]
    assert Counter(example.kind for example in examples) == {"labelled": 300}


def test_forcing_a_format_takes_the_dialogues_of_labelled_data(ingested: Ingest) -> None:
    result = ingested("kto_en_demo.json", format="openai")
    assert (len(result.examples), result.rejected) == (300, [])
    assert result.notes == [
        "own: format openai (as configured); 0 of the first 100 rows look like it; keys left out: label"
    ]


@pytest.mark.parametrize(("name", "n_rows"), [("gsm8k_train.jsonl", 7473), ("gsm8k_test.jsonl", 1319)])
def test_columns_make_questions_and_answers_of_other_names_readable(name: str, n_rows: int, ingested: Ingest) -> None:
    result = ingested(name, columns=GSM8K)
    assert (len(result.examples), result.rejected) == (n_rows, [])
    assert result.notes[0].startswith("own: format prompt_completion (found by its keys)")
    expected = [[("user", row["question"]), ("assistant", row["answer"])] for row in rows_of(name)]
    assert [said(example) for example in result.examples] == expected


def test_raw_text_has_a_document_a_line(ingested: Ingest) -> None:
    result = ingested("wiki_demo.txt")
    lines = (FOLDER / "wiki_demo.txt").read_bytes().decode("utf-8").split("\n")
    assert [example.text for example in result.examples] == [line for line in lines if line.strip()]
    assert (len(result.examples), result.rejected) == (30, [])
    assert [example.text for example in ingested("c4_demo.jsonl").examples] == [
        row["text"] for row in rows_of("c4_demo.jsonl")
    ]


def test_one_glob_reads_files_of_one_format_in_the_order_of_their_names(ingested: Ingest) -> None:
    result = ingested("gsm8k_*.jsonl", columns=GSM8K)
    assert Counter(example.file for example in result.examples) == {"gsm8k_test.jsonl": 1319, "gsm8k_train.jsonl": 7473}
    assert [example.file for example in result.examples] == ["gsm8k_test.jsonl"] * 1319 + ["gsm8k_train.jsonl"] * 7473


def test_the_result_does_not_depend_on_the_number_of_processes(
    ingest_sources: IngestSources, make_source: MakeSource, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(FOLDER.parent)
    sources = [
        make_source("maths", path="data/gsm8k_*.jsonl", columns=GSM8K),
        make_source("pairs", path="data/dpo_en_demo.json"),
    ]
    one, three = (ingest_sources(*sources, n_workers=n_workers) for n_workers in (1, 3))
    assert one == three
    assert len(one.examples) == 7473 + 1319 + 300
