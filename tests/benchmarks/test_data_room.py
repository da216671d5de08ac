"""The whole measurement, small: the figures it gives, not how large they are."""

import json
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import pytest

from tuneline.benchmarks.corpus import chat_rows, write_rows
from tuneline.commands.main import dispatch
from tuneline.data.record_files import read_examples

pytestmark = pytest.mark.slow


def measured(tmp_path: Path, *words: str) -> dict[str, float]:
    out = tmp_path / "figures.json"
    sizes = ["--rows", "1500", "--peer-rows", "600", "--pairs", "300", "--repeats", "1"]
    dispatch(["benchmark-data", *sizes, "--scratch", str(tmp_path), "--out", str(out), *words])
    figures: dict[str, float] = json.loads(out.read_text())
    return figures


def test_every_row_of_the_clean_part_is_counted_and_rules_have_work(tmp_path: Path) -> None:
    figures = measured(tmp_path, "--only", "clean")
    rejected = {name: n for name, n in figures.items() if name.startswith("clean_n_rejected_by_")}
    assert figures["clean_n_kept"] + sum(rejected.values()) == figures["clean_n_rows"] == 1500
    assert {"exact", "folded", "near"} <= {name.rsplit("_", 1)[0].rpartition("by_")[2] for name in rejected}
    assert figures["clean_rows_per_s_1_workers"] > 0
    assert figures["clean_peak_memory_of_input"] > 0
    assert [path.name for path in tmp_path.iterdir()] == ["figures.json"]


def test_planted_pairs_are_found_and_decoys_left_alone(tmp_path: Path) -> None:
    figures = measured(tmp_path, "--only", "planted")
    assert figures["planted_n_similar_pairs"] + figures["planted_n_decoys"] == 300
    assert figures["planted_recall"] > 0.95
    assert figures["planted_precision"] == 1.0


@pytest.mark.skipif(find_spec("datasketch") is None, reason="needs the extra `benchmark`")
def test_both_libraries_find_about_the_same_duplicates(tmp_path: Path) -> None:
    figures = measured(tmp_path, "--only", "near")
    ours, theirs = figures["near_n_duplicates_tuneline"], figures["near_n_duplicates_datasketch"]
    assert ours == pytest.approx(theirs, rel=0.15)
    assert figures["near_n_duplicates_tuneline_2_workers"] == ours
    assert figures["near_cpu_ratio_to_datasketch"] > 0
    assert not any("cpu_ratio_of_2_workers" in name for name in figures)  # whose processor time nobody sums
    for what in ("near_rows_per_s_tuneline", "near_speed_ratio_to_datasketch"):
        assert figures[what] > 0
        assert figures[what.replace("_to_", "_of_2_workers_to_").replace("tuneline", "tuneline_2_workers")] > 0


@pytest.mark.skipif(find_spec("datasketch") is None, reason="needs the extra `benchmark`")
def test_datasketch_gets_every_text_once_and_in_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from tuneline.benchmarks import by_datasketch

    write_rows(tmp_path / "rows.jsonl", chat_rows(200, 1))
    read: list[str] = []
    texts = by_datasketch.texts

    def noted(path: Path) -> Iterator[str]:
        for text in texts(path):
            read.append(text)
            yield text

    monkeypatch.setattr(by_datasketch, "texts", noted)
    by_datasketch.main(tmp_path / "rows.jsonl", 5, 14, 8, 0.8)
    assert read == list(texts(tmp_path / "rows.jsonl"))


def test_rows_can_be_written_alone(tmp_path: Path) -> None:
    dispatch(["benchmark-data", "--rows", "50", "--write", str(tmp_path / "rows.jsonl")])
    assert len(read_examples(tmp_path / "rows.jsonl")) == 50
