"""The stages verify and verify_adapter, as DVC runs them, on a tiny base: what is paired, and what is written."""

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.export.conftest import PEFT_WARNING, model_config
from tuneline.config.params import read_params
from tuneline.data.record_files import write_examples
from tuneline.data.records import Example
from tuneline.errors import BudgetError, DataError
from tuneline.evaluation.tasks.scoring import Score
from tuneline.export.answers import Judged, write_answers

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings(PEFT_WARNING)]

N_ASKED = 8  # of the examples
FILES = "--predictions answers.jsonl --metrics metrics.json --speed speed.json --resources databases"


@pytest.fixture
def workspace(tmp_path: Path, examples: list[Example], monkeypatch: pytest.MonkeyPatch) -> Path:
    """Test rows, and a reference that answered some of them, every second one rightly; a task scored by the text."""
    from tuneline.config.compose import compose

    overrides = ["eval=exact_match", "eval.max_new_tokens=8", "export.n_ctx=256", "export.verify_examples=4"]
    compose(Path("conf").resolve(), tmp_path / "params.yaml", overrides)
    monkeypatch.chdir(tmp_path)
    write_examples(Path("test.jsonl"), examples)
    judged = [Judged(Score(i % 2 == 0, None, None), ended=True) for i in range(N_ASKED)]
    write_answers(Path("reference.jsonl"), examples[:N_ASKED], [""] * N_ASKED, judged)
    return tmp_path


def stage(main: Callable[[], None], arguments: str, monkeypatch: pytest.MonkeyPatch) -> None:
    shared = f"--params params.yaml --type f16 --test test.jsonl --reference reference.jsonl {FILES}"
    monkeypatch.setattr(sys, "argv", ["stage", *shared.split(), *arguments.split()])
    main()


def check_what_was_written() -> None:
    """Against the answers themselves: this model, of random weights, is never right."""
    rows = [json.loads(line) for line in Path("answers.jsonl").read_text(encoding="utf-8").splitlines()]
    metrics: dict[str, Any] = json.loads(Path("metrics.json").read_text(encoding="utf-8"))
    assert len(rows) == metrics["n_examples"] == N_ASKED
    assert not any(row["exact_match"] for row in rows)
    assert (metrics["n_answers_lost"], metrics["n_answers_won"]) == (N_ASKED / 2, 0)
    assert metrics["exact_match_drop"] == 0.5
    assert metrics["exact_match_drop_p_value"] == 2 * 0.5 ** (N_ASKED / 2)
    assert metrics["ended_fraction"] == sum(row["ended"] for row in rows) / N_ASKED
    assert metrics["within_budget"] == 0
    assert metrics["n_compared_examples"] == 4
    assert json.loads(Path("speed.json").read_text(encoding="utf-8"))["load_s"] > 0


def test_verify_pairs_with_the_reference_and_writes_all_before_it_fails(
    workspace: Path, merged: Path, f16: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from tuneline.stages import verify

    with pytest.raises(BudgetError, match=r"verify \(merged -> f16\).*exact_match_drop is 0\.5"):
        stage(verify.main, f"--gguf {f16} --merged {merged}", monkeypatch)
    check_what_was_written()


def test_verify_adapter_pairs_with_the_reference_and_writes_all_before_it_fails(
    workspace: Path, base: Path, adapter: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from tuneline.export.adapter_gguf import convert_adapter
    from tuneline.export.base_gguf import convert_base
    from tuneline.export.llama_cpp import llama_cpp_folder
    from tuneline.stages import verify_adapter

    config, converter = model_config(base), llama_cpp_folder()
    convert_base(config, Path("base.gguf"), "f16", outtype="f16", converter=converter)
    convert_adapter(adapter, config, Path("adapter.gguf"), converter=converter)
    params = read_params(Path("params.yaml")).model_copy(update={"model": config})
    monkeypatch.setattr(verify_adapter, "read_params", lambda path: params)
    with pytest.raises(BudgetError, match=r"verify_adapter \(adapter -> its GGUF.*exact_match_drop is 0\.5"):
        stage(verify_adapter.main, f"--gguf base.gguf --adapter-gguf adapter.gguf --adapter {adapter}", monkeypatch)
    check_what_was_written()


def test_rows_that_cannot_be_judged_are_told_before_a_model_is_loaded(
    workspace: Path, merged: Path, f16: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from tuneline.export import verified
    from tuneline.stages import verify

    def measure(*_: object) -> None:
        raise AssertionError("a model was loaded")

    monkeypatch.setattr(verified, "measure", measure)
    text = Path("params.yaml").read_text(encoding="utf-8")
    Path("params.yaml").write_text(text.replace("task: exact_match", "task: text_to_sql"), encoding="utf-8")
    with pytest.raises(DataError, match="no `database` to run SQL on"):
        stage(verify.main, f"--gguf {f16} --merged {merged}", monkeypatch)
