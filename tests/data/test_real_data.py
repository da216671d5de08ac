"""Cleaning rules on real rows, with counts derived by other means."""

import json
import unicodedata
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tuneline.config.schema import CleanConfig, SourceConfig
from tuneline.data.cleaning import clean_files
from tuneline.data.ingesting import IngestOutputs, ingest
from tuneline.data.opening import Additions
from tuneline.data.record_files import iterate_rejected, read_examples
from tuneline.data.records import Example, Rejected
from tuneline.data.writing import CleanOutputs

FOLDER = Path(__file__).resolve().parents[3] / "shared" / "data"
pytestmark = pytest.mark.skipif(not FOLDER.is_dir(), reason="needs the real data sets")

Cleaned = tuple[list[Example], list[Rejected]]
CleanReal = Callable[..., Cleaned]


def rows_of(name: str) -> list[dict[str, Any]]:
    """The rows as the standard library reads them."""
    text = (FOLDER / name).read_text(encoding="utf-8")
    if name.endswith(".json"):
        return [dict(row) for row in json.loads(text)]
    return [dict(json.loads(line)) for line in text.split("\n") if line]


def only(rules: CleanConfig, *names: str) -> CleanConfig:
    sections = rules.model_dump()
    for name, section in sections.items():
        if isinstance(section, dict):
            section["enabled"] = name in names
    return CleanConfig.model_validate({**sections, "workers": 1})


@pytest.fixture
def clean_real(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, make_source: Callable[..., SourceConfig]) -> CleanReal:
    """What the rules keep and reject of a whole real file."""

    def cleaned(name: str, rules: CleanConfig, **options: Any) -> Cleaned:
        monkeypatch.chdir(FOLDER)
        source = make_source(path=name, **options)
        read = IngestOutputs(tmp_path / "examples.jsonl", tmp_path / "rejected.jsonl")
        ingest([source], Additions((), None, FOLDER), read, 1, lambda rows, _: rows, lambda _: None)
        outputs = CleanOutputs(*(tmp_path / part for part in ("kept", "gone", "clusters")))
        clean_files([read.examples], outputs, [source], rules, lambda rows: rows, lambda _: None)
        return read_examples(outputs.examples), list(iterate_rejected(outputs.rejected))

    return cleaned


@pytest.mark.parametrize("name", ["alpaca_en_demo.json", "alpaca_zh_demo.json", "toolformer_dedupe_only.json"])
def test_exact_duplicates_are_the_rows_that_are_equal(name: str, all_rules: CleanConfig, clean_real: CleanReal) -> None:
    kept, gone = clean_real(name, only(all_rules, "exact_duplicates"))
    distinct = {(row["instruction"], row["input"], row["output"]) for row in rows_of(name)}
    assert len(kept) == len(distinct)
    assert len(gone) == len(rows_of(name)) - len(distinct)


def test_folded_duplicates_are_rows_with_the_same_letters(all_rules: CleanConfig, clean_real: CleanReal) -> None:
    # An independent bound: letters, digits and symbols alone, punctuation of any category and white space dropped.
    name = "toolformer_dedupe_only.json"
    kept, gone = clean_real(name, only(all_rules, "exact_duplicates", "folded_duplicates"))
    bare = Counter(tuple(_bare(row[key]) for key in ("instruction", "input", "output")) for row in rows_of(name))
    n_repeated = sum(bare.values()) - len(bare)
    assert 0 < len(gone) <= n_repeated
    lines = {row.line for row in kept}
    for row in gone:
        assert int(row.reason.rpartition(":")[2]) in lines


def _bare(text: str) -> str:
    return "".join(sign for sign in text.casefold() if unicodedata.category(sign)[0] not in "PZC")


@pytest.mark.parametrize("name", ["alpaca_en_demo.json", "alpaca_zh_demo.json", "c4_demo.jsonl", "kto_en_demo.json"])
def test_the_encoding_rule_takes_the_rows_with_control_or_replacement_characters(
    name: str, all_rules: CleanConfig, clean_real: CleanReal
) -> None:
    rules = only(all_rules, "encoding")
    rejecting = rules.model_copy(update={"encoding": rules.encoding.model_copy(update={"action": "reject"})})
    _, gone = clean_real(name, rejecting)
    broken = {number for number, row in enumerate(rows_of(name), 1) if _is_broken(row)}
    by_sign = {row.line for row in gone if row.reason.endswith("is no text")}
    assert by_sign == broken
    # and mojibake by hand: one row of the KTO sample holds "Ã§"
    others = [row.line for row in gone if row.line not in by_sign]
    assert others == ([246] if name.startswith("kto") else [])


def test_chinese_rows_are_caught_by_the_language_rule_and_english_ones_are_not(
    all_rules: CleanConfig, clean_real: CleanReal
) -> None:
    _, gone = clean_real("alpaca_zh_demo.json", only(all_rules, "language"))
    han = {
        number
        for number, row in enumerate(rows_of("alpaca_zh_demo.json"), 1)
        if any("\u4e00" <= sign <= "\u9fff" for sign in row["instruction"] + row["output"])
    }
    assert len(han) >= 999
    assert len({row.line for row in gone} & han) >= 0.99 * len(han)
    _, gone = clean_real("alpaca_en_demo.json", only(all_rules, "language"))
    assert len(gone) < 0.005 * 999


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
