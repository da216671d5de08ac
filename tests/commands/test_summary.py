"""The table shows what was measured and a dash for what was not, at any width, without torch."""

import io
import json
import subprocess
import sys
from pathlib import Path

import pytest
from rich.console import Console

from tuneline.commands.summary import look_at, read_metrics, systems, table, try_next
from tuneline.config.schema import (
    DataConfig,
    EvalConfig,
    ExportConfig,
    LoraConfig,
    MethodConfig,
    ModelConfig,
    Params,
    RecipeConfig,
)
from tuneline.errors import TunelineError

EVALUATED = {
    "n_examples": 600,
    "base_execution_accuracy": 0.01,
    "base_execution_accuracy_ci95_low": 0.0046,
    "base_execution_accuracy_ci95_high": 0.0217,
    "base_exact_match": 0.0,
    "base_perplexity": 312.25,
    "tuned_execution_accuracy": 0.85,
    "tuned_execution_accuracy_ci95_low": 0.8192,
    "tuned_execution_accuracy_ci95_high": 0.8764,
    "tuned_exact_match": 0.8,
    "tuned_perplexity": 1.0432,
}
MERGED = {
    "n_examples": 600,
    "execution_accuracy": 0.848,
    "execution_accuracy_ci95_low": 0.8171,
    "execution_accuracy_ci95_high": 0.8746,
    "exact_match": 0.798,
    "perplexity": 1.0441,
}
VERIFIED = {
    "execution_accuracy": 0.845,
    "exact_match": 0.79,
    "perplexity": 1.05,
    "perplexity_ratio": 1.00194,
    "size_mib": 3.75,
    "kl_mean_nats": 1e-4,
}


@pytest.fixture
def params() -> Params:
    """Only what the summary reads: the rest of params.yaml is none of its business."""
    return Params.model_construct(
        model=ModelConfig.model_construct(name="sqlama"),
        method=MethodConfig.model_construct(name="lora"),
        data=DataConfig.model_construct(name="text_to_sql"),
        recipe=RecipeConfig.model_construct(final="sft"),
        lora=LoraConfig.model_construct(r=16),
        eval=EvalConfig.model_construct(task="text_to_sql", confidence=0.95),
        export=ExportConfig.model_construct(verified=("f16", "q8_0"), pick="q8_0", lora_bases=()),
    )


@pytest.fixture
def reports(tmp_path: Path) -> Path:
    write(tmp_path / "evaluate.json", EVALUATED)
    write(tmp_path / "merge.json", {"size_mib": 12.5, "max_logit_diff": 0.0})
    write(tmp_path / "evaluate_merged.json", MERGED)
    write(tmp_path / "speed/evaluate.json", {"tuned_generation_tokens_per_s": 2345.6})
    write(tmp_path / "speed/evaluate_merged.json", {"generation_tokens_per_s": 3456.7})
    write(tmp_path / "verify/q8_0.json", VERIFIED)
    return tmp_path


def write(path: Path, metrics: dict[str, float]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(metrics), encoding="utf-8")


def rendered(params: Params, reports: Path, width: int = 100) -> list[str]:
    page = io.StringIO()
    rows = list(systems(params, reports))
    n_examples = read_metrics(reports / "evaluate.json").get("n_examples")
    Console(file=page, width=width, color_system=None).print(table(params, rows, n_examples))
    return page.getvalue().splitlines()


def cells(line: str) -> list[str]:
    return [cell.strip() for cell in line.split("  ") if cell.strip()]


def row(lines: list[str], name: str) -> list[str]:
    (line,) = (line for line in lines if line.strip().startswith(name))
    return cells(line)


def test_every_figure_stands_in_its_row(params: Params, reports: Path) -> None:
    lines = rendered(params, reports)
    assert lines[0].strip() == "sqlama + lora on text_to_sql: 600 held-out examples, 95% intervals"
    assert row(lines, "base") == ["base", "1.0% (0.5-2.2)", "0.0%", "312.2", "-", "-"]
    assert row(lines, "tuned") == ["tuned", "85.0% (81.9-87.6)", "80.0%", "1.043", "-", "2,346"]
    assert row(lines, "merged") == ["merged", "84.8% (81.7-87.5)", "79.8%", "1.044", "12.5", "3,457"]
    assert row(lines, "GGUF q8_0") == ["GGUF q8_0", "84.5%", "79.0%", "1.002x merged", "3.8", "-"]


def test_models_stand_in_the_order_in_which_they_are_made(params: Params, reports: Path) -> None:
    assert [system.name for system in systems(params, reports)] == ["base", "tuned", "merged", "GGUF f16", "GGUF q8_0"]


def test_the_adapter_alone_has_a_row_when_it_is_asked_for(params: Params, reports: Path) -> None:
    write(reports / "verify/lora_on_f16.json", VERIFIED)
    asked = params.export.model_copy(update={"lora_bases": ("f16",)})
    lines = rendered(params.model_copy(update={"export": asked}), reports)
    assert row(lines, "LoRA on f16") == ["LoRA on f16", "84.5%", "79.0%", "-", "3.8", "-"]
    assert not [line for line in rendered(params, reports) if "LoRA" in line]


def test_perplexities_over_different_rows_are_not_shown_as_if_they_compared(params: Params, reports: Path) -> None:
    gguf = row(rendered(params, reports), "GGUF q8_0")
    assert "1.05" not in gguf  # of 64 rows, where base and tuned have all
    assert "1.002x merged" in gguf


def test_a_report_that_is_missing_is_a_dash(params: Params, reports: Path, tmp_path: Path) -> None:
    assert row(rendered(params, reports), "GGUF f16") == ["GGUF f16", "-", "-", "-", "-", "-"]
    nothing = rendered(params, tmp_path / "nothing")
    assert nothing[0].strip().endswith(": - held-out examples, 95% intervals")
    assert row(nothing, "tuned") == ["tuned", "-", "-", "-", "-", "-"]


def test_the_table_fits_80_columns(params: Params, reports: Path) -> None:
    wide, narrow = rendered(params, reports, 100), rendered(params, reports, 80)
    assert len(narrow) == len(wide)
    assert all(len(line) <= 80 for line in narrow)


def test_a_task_that_executes_nothing_has_one_score(params: Params, tmp_path: Path) -> None:
    exact = params.model_copy(update={"eval": params.eval.model_copy(update={"task": "exact_match"})})
    measured = {"tuned_exact_match": 0.5, "tuned_exact_match_ci95_low": 0.4, "tuned_exact_match_ci95_high": 0.6}
    write(tmp_path / "evaluate.json", {"n_examples": 100, **measured})
    lines = rendered(exact, tmp_path)
    assert not any("execution" in line for line in lines)
    assert row(lines, "tuned") == ["tuned", "50.0% (40.0-60.0)", "-", "-", "-"]


def test_files_to_look_at_exist(params: Params, reports: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(reports)  # where no experiment has run
    assert look_at(params, reports) == []
    (reports / "evaluate.png").touch()
    assert [line.split()[0] for line in look_at(params, reports)] == ["Look", f"{reports}/evaluate.png"]


def test_the_packaged_model_comes_with_a_command_that_serves_it(
    params: Params, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "models/deploy").mkdir(parents=True)
    line = look_at(params, tmp_path)[-1]
    assert line.endswith("tuneline serve models/deploy")


def test_the_suggested_experiment_is_a_change_of_this_one(params: Params) -> None:
    assert any("dvc exp run -S lora.r=32 " in line for line in try_next(params))
    full = params.model_copy(update={"lora": None})
    assert not any("lora" in line for line in try_next(full))


@pytest.mark.parametrize("text", ["{", "[1]"])
def test_a_broken_report_is_named(tmp_path: Path, text: str) -> None:
    path = tmp_path / "evaluate.json"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(TunelineError, match=r"evaluate\.json: no(t one flat object| readable report).*dvc repro"):
        read_metrics(path)


def test_the_command_imports_no_torch() -> None:
    code = "import sys, tuneline.commands.summary; sys.exit('torch' in sys.modules or 'numpy' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True, env={"PYTHONPATH": "src"})
