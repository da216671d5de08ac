"""Public data sets as they are: every row is accounted for, and counts agree with a reading that is not ours.

The files are not in the repository; without them beside it these tests are skipped.
"""

import json
import unicodedata
from collections import Counter
from pathlib import Path
from typing import Any, Literal

import pytest

from tuneline.config.schema import CleanConfig, RuleConfig, SourceFormat
from tuneline.data.cleaning import clean
from tuneline.data.ingesting import Additions, Ingested, ingest
from tuneline.errors import DataError

FOLDER = Path(__file__).resolve().parents[3] / "shared" / "data"
pytestmark = pytest.mark.skipif(not FOLDER.is_dir(), reason="the public samples are not beside the repository")


class FileSource:
    """A source anywhere on the disk: the schema allows paths inside the repository only."""

    name = "own"
    hub = None
    role: Literal["pool", "test"] = "pool"

    def __init__(self, path: Path, chosen: SourceFormat) -> None:
        self.path = str(path)
        self.format = chosen


def ingested(name: str, chosen: SourceFormat = "auto") -> Ingested:
    return ingest([FileSource(FOLDER / name, chosen)], Additions((), None), lambda rows, _: rows)


def rows_of(name: str) -> list[dict[str, Any]]:
    text = (FOLDER / name).read_text(encoding="utf-8")
    if name.endswith(".json"):
        return [dict(row) for row in json.loads(text)]
    return [dict(json.loads(line)) for line in text.split("\n") if line]


def only(rules: CleanConfig, *names: str) -> CleanConfig:
    switches = {name: RuleConfig(enabled=name in names) for name in CleanConfig.model_fields if name not in SETTINGS}
    return rules.model_copy(update=switches | {name: _off(rules, name) for name in ("length", "pii")})


SETTINGS = {"length", "pii", "max_rejected_fraction"}


def _off(rules: CleanConfig, name: str) -> Any:
    return {"length": rules.length, "pii": rules.pii}[name].model_copy(update={"enabled": False})


@pytest.mark.parametrize(
    ("name", "n_rows", "found"),
    [
        ("alpaca_en_demo.json", 999, "alpaca"),
        ("alpaca_zh_demo.json", 1000, "alpaca"),
        ("glaive_toolcall_en_demo.json", 300, "sharegpt"),
        ("c4_demo.jsonl", 300, "text"),
        ("toolformer_dedupe_only.json", 7673, "alpaca"),
    ],
)
def test_every_row_of_a_supported_format_is_an_example(name: str, n_rows: int, found: str) -> None:
    result = ingested(name)
    assert (len(result.examples), result.rejected) == (n_rows, [])
    assert result.notes[0].startswith(f"own: format {found} (found by its keys)")
    assert [example.line for example in result.examples] == list(range(1, n_rows + 1))


def test_alpaca_rows_say_what_the_file_says() -> None:
    expected = [
        ("\n\n".join(filter(None, (row["instruction"], row["input"]))), row["output"])
        for row in rows_of("alpaca_zh_demo.json")
    ]
    found = [tuple(message.content for message in row.messages) for row in ingested("alpaca_zh_demo.json").examples]
    assert found == expected


def test_tool_dialogues_keep_every_turn_and_say_what_is_left_out() -> None:
    result = ingested("glaive_toolcall_en_demo.json")
    role_of = {"human": "user", "gpt": "assistant", "function_call": "assistant", "observation": "tool"}
    expected = [
        [(role_of[turn["from"]], turn["value"]) for turn in row["conversations"]]
        for row in rows_of("glaive_toolcall_en_demo.json")
    ]
    assert [[(turn.role, turn.content) for turn in row.messages] for row in result.examples] == expected
    assert result.notes[0].endswith("keys left out: tools")


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("dpo_en_demo.json", "preference pairs"),
        ("kto_en_demo.json", "KTO"),
        ("gsm8k_train.jsonl", "the keys answer, question fit no known format"),
        ("gsm8k_test.jsonl", "the keys answer, question fit no known format"),
        ("wiki_demo.txt", r"extension '\.txt' is unknown"),
    ],
)
def test_a_format_that_is_not_supported_yet_is_refused_with_the_reason(name: str, reason: str) -> None:
    with pytest.raises(DataError, match=f"{name}:?.*{reason}"):
        ingested(name)


def test_forcing_a_format_takes_the_dialogues_of_labelled_data() -> None:
    result = ingested("kto_en_demo.json", "openai")
    assert (len(result.examples), result.rejected) == (300, [])
    assert result.notes == ["own: format openai (as configured); keys left out: label"]


@pytest.mark.parametrize("name", ["alpaca_en_demo.json", "alpaca_zh_demo.json", "toolformer_dedupe_only.json"])
def test_exact_duplicates_are_the_rows_that_are_equal(name: str, all_rules: CleanConfig) -> None:
    result = ingested(name)
    cleaned = clean(result.examples, [FileSource(FOLDER / name, "auto")], only(all_rules, "exact_duplicates"))
    distinct = {(row["instruction"], row["input"], row["output"]) for row in rows_of(name)}
    assert len(cleaned.examples) == len(distinct)
    assert len(cleaned.rejected) == len(result.examples) - len(distinct)


def test_near_duplicates_are_the_rows_with_the_same_letters(all_rules: CleanConfig) -> None:
    # An independent bound: letters, digits and symbols alone, punctuation of any category and white space dropped.
    name = "toolformer_dedupe_only.json"
    cleaned = clean(
        ingested(name).examples,
        [FileSource(FOLDER / name, "auto")],
        only(all_rules, "exact_duplicates", "near_duplicates"),
    )
    bare = Counter(tuple(_bare(row[key]) for key in ("instruction", "input", "output")) for row in rows_of(name))
    n_repeated = sum(bare.values()) - len(bare)
    assert 0 < len(cleaned.rejected) <= n_repeated
    kept = {row.line for row in cleaned.examples}
    for row in cleaned.rejected:
        assert int(row.reason.rpartition(":")[2]) in kept


def _bare(text: str) -> str:
    return "".join(sign for sign in text.casefold() if unicodedata.category(sign)[0] not in "PZC")


@pytest.mark.parametrize("name", ["alpaca_en_demo.json", "alpaca_zh_demo.json", "c4_demo.jsonl", "kto_en_demo.json"])
def test_the_encoding_rule_takes_the_rows_with_control_or_replacement_characters(
    name: str, all_rules: CleanConfig
) -> None:
    chosen: SourceFormat = "openai" if name.startswith("kto") else "auto"
    rules = only(all_rules, "encoding")
    cleaned = clean(ingested(name, chosen).examples, [FileSource(FOLDER / name, chosen)], rules)
    broken = {number for number, row in enumerate(rows_of(name), 1) if _is_broken(row)}
    by_sign = {row.line for row in cleaned.rejected if row.reason.endswith("is no text")}
    assert by_sign == broken
    # and mojibake by hand: one row of the KTO sample holds "Ã§"
    others = [row.line for row in cleaned.rejected if row.line not in by_sign]
    assert others == ([246] if name.startswith("kto") else [])


def _is_broken(value: Any) -> bool:
    match value:
        case str():
            return any(sign == "\ufffd" or _is_control(sign) for sign in value)
        case list():
            return any(_is_broken(item) for item in value)
        case dict():
            return any(_is_broken(item) for item in value.values())
    return False


def _is_control(sign: str) -> bool:
    return unicodedata.category(sign) in {"Cc", "Cs"} and sign not in "\t\n\r"
