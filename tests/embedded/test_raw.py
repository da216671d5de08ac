"""The committed raw data: reproducible, dirty where it should be, and a test set that training cannot have seen."""

import json
import re
import sqlite3
from pathlib import Path
from typing import Any

import pytest

from tuneline.embedded import raw
from tuneline.embedded.english import AGGREGATES, CONDITIONS, LIMITED, LISTS, ORDERED
from tuneline.embedded.world import is_held_out

RAW = Path("data/raw/text_to_sql")


def read(name: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (RAW / name).read_text(encoding="utf-8").split("\n")[:-1]]


def quoted(sql: str) -> set[str]:
    """Values compared as a whole; the first word of a LIKE can begin many values."""
    return set(re.findall(r"= '([^']*)'", sql))


@pytest.mark.slow
def test_committed_files_are_regenerated_byte_for_byte(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.argv", ["raw", "--out", str(tmp_path)])
    raw.main()
    made = {path.relative_to(tmp_path): path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    committed = {path.relative_to(RAW): path.read_bytes() for path in RAW.rglob("*") if path.is_file()}
    assert made == committed


def test_pool_and_test_are_as_large_as_promised() -> None:
    assert len(read("pool.jsonl")) >= 4000
    assert len(read("test.jsonl")) >= 500


def test_no_text_value_of_the_test_set_occurs_in_training_data() -> None:
    test = {value for row in read("test.jsonl") for value in quoted(row["completion"])}
    leaked = {row["prompt"] for row in read("test.jsonl")}
    pool = {v for row in read("pool.jsonl") if row["prompt"] not in leaked for v in quoted(row.get("completion", ""))}
    documents = {v for row in read("documents.jsonl") for v in quoted(row["text"])}
    assert len(test) > 50
    assert test.isdisjoint(pool | documents)
    assert all(is_held_out(value) for value in test)


def test_held_out_wordings_are_asked_in_the_test_set_only() -> None:
    held_out = [wording for wordings in CONDITIONS.values() for wording in wordings.held_out]
    patterns = [re.escape(w).replace(r"\{column\}", "[a-z ]+").split(r"\{0\}")[0] for w in held_out]
    test = [row["prompt"] for row in read("test.jsonl")]
    pool = " ".join(row["prompt"] for row in read("pool.jsonl") if row["prompt"] not in test)
    for pattern in patterns:
        assert re.search(pattern, " ".join(test)), pattern
        assert not re.search(pattern, pool), pattern


def test_held_out_beginnings_are_asked_in_the_test_set_only() -> None:
    held_out = {w.split("{")[0] for wordings in (LISTS, AGGREGATES, ORDERED, LIMITED) for w in wordings.held_out}
    test = [row["prompt"] for row in read("test.jsonl")]
    pool = [row["prompt"] for row in read("pool.jsonl") if row["prompt"] not in test]
    for beginning in held_out:
        assert any(f"Question: {beginning}" in prompt for prompt in test), beginning
        assert not any(f"Question: {beginning}" in prompt for prompt in pool), beginning


def test_every_gold_query_of_the_test_set_has_an_answer_in_its_database() -> None:
    connections = {}
    for script in (RAW / "databases").glob("*.sql"):
        connections[script.stem] = sqlite3.connect(":memory:")
        connections[script.stem].executescript(script.read_text(encoding="utf-8"))
    empty = [row["completion"] for row in read("test.jsonl")
             if not connections[row["database"]].execute(row["completion"]).fetchall()]  # fmt: skip
    assert empty == []


def test_pool_holds_every_kind_of_dirt() -> None:
    rows = read("pool.jsonl")
    answers = [row.get("completion") for row in rows]
    prompts = [row["prompt"] for row in rows]
    assert None in answers, "a missing answer"
    assert "" in answers, "an empty answer"
    assert any("cannot" in (answer or "") for answer in answers), "a refusal"
    assert any("\ufffd" in prompt for prompt in prompts), "a broken encoding"
    assert any("@example.org" in prompt for prompt in prompts), "an e-mail address"
    assert any("+44" in prompt for prompt in prompts), "a phone number"
    assert any(len(prompt) > 4000 for prompt in prompts), "an over-long row"
    assert len(set(prompts)) < len(prompts), "duplicates"
    assert {row["prompt"] for row in read("test.jsonl")} & set(prompts), "leaked test rows"


def test_choices_hold_the_right_query_once() -> None:
    gold = {row["prompt"]: row["completion"] for row in read("test.jsonl")}
    for row in read("choices.jsonl"):
        assert row["choices"][row["answer"]] == gold[row["question"]]
        assert len(set(row["choices"])) == 4
