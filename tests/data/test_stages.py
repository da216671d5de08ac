"""The three stages as DVC runs them: files in, files out, and what a failed run leaves behind."""

import json
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from tuneline.config import params as params_file
from tuneline.config.schema import CleanConfig, DataConfig, MixtureConfig, SourceConfig, SplitConfig
from tuneline.data.record_files import iterate_rejected, read_examples
from tuneline.entry import run
from tuneline.stages import clean as clean_stage
from tuneline.stages import ingest as ingest_stage
from tuneline.stages import split as split_stage

POOL = [{"prompt": f"question {number}", "completion": f"answer {number}", "database": "x"} for number in range(40)]
TEST = [{"prompt": f"tested {number}", "completion": f"answer {number}", "database": "x"} for number in range(10)]


@pytest.fixture
def workplace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    write_jsonl(tmp_path / "pool.jsonl", [*POOL, POOL[0], {"prompt": "no answer"}, TEST[3]])
    write_jsonl(tmp_path / "test.jsonl", TEST)
    return tmp_path


@pytest.fixture
def params(all_rules: CleanConfig, splitting: SplitConfig, pool_and_test: list[SourceConfig]) -> SimpleNamespace:
    pool, _, test = pool_and_test
    data = DataConfig(
        name="own",
        tracked_path="data/raw/own",
        licence="mit",
        languages=("en",),
        sources=(pool, test),
        mixture=MixtureConfig(n_rows=None, replay_fraction=0.0),
        meta_fields=("database",),
        system_prompt=None,
        max_rejected_fraction=0.1,
    )
    rules = all_rules.model_dump()
    for name in ("language", "near_duplicates"):  # numbered questions are near copies, and in no language
        rules[name]["enabled"] = False
    clean = CleanConfig.model_validate({**rules, "workers": 1})
    return SimpleNamespace(data=data, clean=clean, split=splitting, seed=42)


def write_jsonl(path: Path, rows: list[dict[str, Any]]) -> None:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


def run_stage(stage: ModuleType, params: SimpleNamespace, monkeypatch: pytest.MonkeyPatch, **paths: str) -> None:
    arguments = [part for name, path in paths.items() for part in (f"--{name}", path)]
    monkeypatch.setattr(sys, "argv", ["stage", "--params", "params.yaml", *arguments])
    importer = stage if hasattr(stage, "read_params") else params_file  # clean imports it when it runs
    monkeypatch.setattr(importer, "read_params", lambda _: params)
    run(stage.main)


def run_ingest(params: SimpleNamespace, monkeypatch: pytest.MonkeyPatch) -> None:
    run_stage(
        ingest_stage, params, monkeypatch, examples="in/examples.jsonl", rejected="in/rejected.jsonl", metrics="in.json"
    )


def run_clean(params: SimpleNamespace, monkeypatch: pytest.MonkeyPatch) -> None:
    run_stage(
        clean_stage,
        params,
        monkeypatch,
        examples="in/examples.jsonl",
        out="clean/examples.jsonl",
        rejected="clean/rejected.jsonl",
        clusters="clean/clusters.jsonl",
        metrics="clean.json",
    )


def run_split(params: SimpleNamespace, monkeypatch: pytest.MonkeyPatch) -> None:
    run_stage(split_stage, params, monkeypatch, examples="clean/examples.jsonl", out="splits", metrics="split.json")


def test_every_row_is_accounted_for_from_the_raw_file_to_the_splits(
    workplace: Path, params: SimpleNamespace, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run_ingest(params, monkeypatch)
    run_clean(params, monkeypatch)
    run_split(params, monkeypatch)
    ingested, cleaned, divided = (
        json.loads(Path(name).read_text()) for name in ("in.json", "clean.json", "split.json")
    )
    assert (ingested["n_read"], ingested["n_kept"], ingested["n_rejected_by_format"]) == (53, 52, 1)
    assert (cleaned["n_read"], cleaned["n_kept"], cleaned["n_rejected_by_exact_duplicates"]) == (52, 51, 1)
    assert (divided["n_read"], divided["n_test"], divided["n_rejected_by_contamination"]) == (51, 10, 1)
    assert divided["n_train"] + divided["n_val"] == 40
    assert len(read_examples(workplace / "splits/train.jsonl")) == divided["n_train"]
    assert len(read_examples(workplace / "splits/val.jsonl")) == divided["n_val"]
    assert [row.meta for row in read_examples(workplace / "splits/test.jsonl")] == [{"database": "x"}] * 10
    lost = [
        list(iterate_rejected(Path(name)))
        for name in ("in/rejected.jsonl", "clean/rejected.jsonl", "splits/rejected.jsonl")
    ]
    assert [[(row.source, row.line, row.stage) for row in rows] for rows in lost] == [
        [("pool", 42, "ingest")],
        [("pool", 41, "clean")],
        [("pool", 43, "split")],
    ]
    assert "pool: format prompt_completion (found by its keys)" in capsys.readouterr().out


@pytest.mark.parametrize(("run_it", "path"), [(run_clean, "in/examples.jsonl"), (run_split, "clean/examples.jsonl")])
def test_a_stage_whose_input_no_stage_has_written_says_so_in_one_line(
    run_it: Callable[[SimpleNamespace, pytest.MonkeyPatch], None],
    path: str,
    workplace: Path,
    params: SimpleNamespace,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    with pytest.raises(SystemExit):
        run_it(params, monkeypatch)
    expected = f"error: {path}: cannot be read (No such file or directory); run the stage that writes it\n"
    assert capsys.readouterr().err == expected
    assert not list(workplace.rglob("*.json"))


def test_two_runs_write_the_same_bytes(
    workplace: Path, params: SimpleNamespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    written = []
    for _ in range(2):
        run_ingest(params, monkeypatch)
        run_clean(params, monkeypatch)
        run_split(params, monkeypatch)
        written.append({path: path.read_bytes() for path in sorted(workplace.rglob("*")) if path.is_file()})
    assert written[0] == written[1]
    assert len(written[0]) == 2 + 3 + 4 + 6


def test_too_many_rejected_rows_fail_ingest_and_leave_the_reasons_but_no_examples(
    workplace: Path,
    params: SimpleNamespace,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    write_jsonl(workplace / "pool.jsonl", [*POOL, *[{"prompt": "no answer"}] * 10])
    with pytest.raises(SystemExit) as stopped:
        run_ingest(params, monkeypatch)
    assert stopped.value.code == 1
    (error,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error: ")]
    assert "10 of 60 rows rejected (0.167), more than data.max_rejected_fraction 0.1" in error
    assert "most often format (10), first pool:41 (pool.jsonl:41: no 'completion'" in error
    assert "in/rejected.jsonl" in error
    assert len(list(iterate_rejected(workplace / "in/rejected.jsonl"))) == 10
    assert not (workplace / "in/examples.jsonl").exists()
    assert not (workplace / "in.json").exists()


def test_no_row_left_fails_clean_whatever_the_limit(
    workplace: Path,
    params: SimpleNamespace,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    write_jsonl(workplace / "pool.jsonl", [{"prompt": "a", "completion": " ", "database": "x"}] * 2)
    params.data = params.data.model_copy(update={"sources": params.data.sources[:1]})
    run_ingest(params, monkeypatch)
    params.clean = params.clean.model_copy(update={"max_rejected_fraction": 1.0})
    with pytest.raises(SystemExit):
        run_clean(params, monkeypatch)
    error = capsys.readouterr().err.splitlines()[-1]
    assert error.startswith("error: 2 of 2 rows rejected (1), so no row is left; most often empties (2), first pool:1")
    assert len(list(iterate_rejected(workplace / "clean/rejected.jsonl"))) == 2
    assert not (workplace / "clean/examples.jsonl").exists()


def test_a_failed_split_leaves_the_earlier_splits_alone(
    workplace: Path, params: SimpleNamespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_ingest(params, monkeypatch)
    run_clean(params, monkeypatch)
    run_split(params, monkeypatch)
    before = {path: path.read_bytes() for path in (workplace / "splits").iterdir()}
    params.split = params.split.model_copy(
        update={"contamination": params.split.contamination.model_copy(update={"action": "fail"})}
    )
    with pytest.raises(SystemExit):
        run_split(params, monkeypatch)
    assert {path: path.read_bytes() for path in (workplace / "splits").iterdir()} == before
