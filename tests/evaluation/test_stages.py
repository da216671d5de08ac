"""The stages evaluate, evaluate_merged and harness from params.yaml to reports: a tiny random model, no network."""

import json
import math
import shutil
import socket
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from tests.pinning import pin
from tuneline.data.record_files import write_examples
from tuneline.data.records import Example
from tuneline.errors import TunelineError

pytestmark = [
    pytest.mark.slow,
    # PEFT 0.21.2 asks for a property of Transformers that is to be removed in its version 6
    pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning"),
]

CONF = Path("conf")
BASE = Path("models/base/sqlama")
TUNED = Path("models/phase/sft")
SCRIPT = "CREATE TABLE singer (name TEXT, age INTEGER); INSERT INTO singer VALUES ('Ann', 30), ('Bo', 41);"
OVERRIDES = ["eval.max_new_tokens=8", "hardware.eval_batch_size=2", "eval.harness_limit=3"]
EVALUATE = (
    "--params params.yaml --test test.jsonl --tuned models/phase/sft --resources databases "
    "--predictions predictions --metrics evaluate.json --speed speed.json --picture evaluate.png"
)
MERGE = "--params params.yaml --tuned models/phase/sft --test test.jsonl --out models/merged --metrics merge.json"
EVALUATE_MERGED = (
    "--params params.yaml --test test.jsonl --merged models/merged --reference predictions/tuned.jsonl "
    "--resources databases --predictions merged.jsonl --metrics evaluate_merged.json --speed speed_merged.json"
)
HARNESS = "--params params.yaml --task sql_next --tasks-folder conf/harness --tuned models/phase/sft --out harness.json"


@pytest.fixture
def workspace(tmp_path: Path, model_folder: Path, examples: Sequence[Example], monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder laid out like the repository, with params.yaml, a base model and an adapter for it."""
    from tuneline.config.compose import compose

    compose(CONF.resolve(), tmp_path / "params.yaml", OVERRIDES)
    shutil.copytree(CONF / "harness", tmp_path / "conf/harness")
    monkeypatch.chdir(tmp_path)
    shutil.copytree(model_folder, BASE)
    pin(Path("params.yaml"), BASE)
    _save_adapter()
    write_examples(Path("test.jsonl"), examples)
    Path("databases").mkdir()
    Path("databases/concerts.sql").write_text(SCRIPT, encoding="utf-8")
    return tmp_path


@pytest.fixture
def no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise AssertionError("the network was used")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)


def stage(main: Callable[[], None], arguments: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["stage", *arguments.split()])
    main()


def test_evaluate_writes_consistent_reports_twice_the_same(
    workspace: Path, examples: Sequence[Example], no_network: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    from tuneline.stages.evaluate import main

    stage(main, EVALUATE, monkeypatch)
    outputs = [workspace / "evaluate.json", *sorted((workspace / "predictions").iterdir())]
    first = [path.read_bytes() for path in outputs]
    metrics = json.loads(first[0])
    tuned = [json.loads(line) for line in (workspace / "predictions/tuned.jsonl").read_text().splitlines()]
    base = [json.loads(line) for line in (workspace / "predictions/base.jsonl").read_text().splitlines()]

    assert metrics["n_examples"] == len(tuned) == len(base) == len(examples)
    assert [row["id"] for row in tuned] == [example.id for example in examples]
    assert [row["predicted"] for row in tuned] != [row["predicted"] for row in base]
    nats_per_token = sum(r["nll_nats"] for r in tuned) / sum(r["n_target_tokens"] for r in tuned)
    assert metrics["tuned_perplexity"] == pytest.approx(math.exp(nats_per_token), rel=1e-4)
    right = sum(row["execution_match"] for row in tuned) / len(tuned)
    assert metrics["tuned_execution_accuracy"] == pytest.approx(right)
    low, high = metrics["tuned_execution_accuracy_ci95_low"], metrics["tuned_execution_accuracy_ci95_high"]
    assert low <= right <= high
    assert (workspace / "evaluate.png").read_bytes().startswith(b"\x89PNG")
    assert json.loads((workspace / "speed.json").read_text())["tuned_generation_tokens_per_s"] > 0

    stage(main, EVALUATE, monkeypatch)
    assert [path.read_bytes() for path in outputs] == first


def read_rows(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def test_merged_model_is_asked_as_evaluate_asks_and_paired_with_the_tuned_models_answers(
    workspace: Path, examples: Sequence[Example], no_network: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    from tuneline.stages import evaluate, evaluate_merged, merge

    stage(evaluate.main, EVALUATE, monkeypatch)
    stage(merge.main, MERGE, monkeypatch)
    stage(evaluate_merged.main, EVALUATE_MERGED, monkeypatch)
    tuned, merged = read_rows(workspace / "predictions/tuned.jsonl"), read_rows(workspace / "merged.jsonl")
    assert [(row["id"], row["predicted"], row["outcome"]) for row in merged] == [
        (row["id"], row["predicted"], row["outcome"]) for row in tuned
    ]
    metrics, evaluated = (json.loads(Path(name).read_text()) for name in ("evaluate_merged.json", "evaluate.json"))
    assert metrics["n_examples"] == len(examples)
    assert metrics["perplexity"] == pytest.approx(evaluated["tuned_perplexity"], rel=1e-4)
    assert (metrics["execution_accuracy_drop"], metrics["execution_accuracy_drop_p_value"]) == (0, 1)

    right = [row | {"execution_match": True, "error": None} for row in tuned]
    (workspace / "predictions/tuned.jsonl").write_text("".join(json.dumps(row) + "\n" for row in right))
    stage(evaluate_merged.main, EVALUATE_MERGED, monkeypatch)
    paired = json.loads(Path("evaluate_merged.json").read_text())
    n_lost = sum(not row["execution_match"] for row in merged)
    assert n_lost > 1
    assert paired["n_answers_lost"] == n_lost
    assert paired["execution_accuracy_drop"] == pytest.approx(n_lost / len(examples), rel=1e-5)
    assert paired["execution_accuracy_drop_p_value"] == pytest.approx(2 * 0.5**n_lost, rel=1e-5)


@pytest.mark.parametrize(
    ("break_it", "message"),
    [
        (lambda: Path("databases/concerts.sql").unlink(), "has no script databases/concerts.sql"),
        (lambda: Path("databases/concerts.sql").write_text("CREATE TABLE t (a)"), "test:1 .*no such table: singer"),
        (lambda: Path("test.jsonl").write_text(""), "test.jsonl: no conversation that ends with an answer"),
        (lambda: shutil.rmtree(TUNED), "models/phase/sft: no such model folder"),
    ],
)  # fmt: skip
def test_evaluate_refuses_bad_input_before_it_loads_a_model(
    workspace: Path, break_it: Callable[[], object], message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from tuneline.stages import evaluate

    def load(*_: object) -> None:
        raise AssertionError("a model was loaded")

    monkeypatch.setattr("tuneline.model.loading.load_base", load)
    break_it()
    with pytest.raises(TunelineError, match=message):
        stage(evaluate.main, EVALUATE, monkeypatch)
    assert not (workspace / "predictions").exists()
    assert not (workspace / "evaluate.json").exists()


def test_evaluate_refuses_a_prompt_without_room_for_an_answer(workspace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Room in llama.cpp's context: the base could address four times as many tokens."""
    from tuneline.stages.evaluate import main

    text = Path("params.yaml").read_text().replace("max_new_tokens: 8", "max_new_tokens: 100")
    Path("params.yaml").write_text(text.replace("n_ctx: 512", "n_ctx: 128"))
    with pytest.raises(TunelineError, match=r"test:1 .*exceed export\.n_ctx=128; raise export\.n_ctx"):
        stage(main, EVALUATE, monkeypatch)


def test_harness_runs_the_repositorys_own_task_without_network(
    workspace: Path, no_network: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    from tuneline.stages.harness import main

    monkeypatch.setenv("HF_HUB_OFFLINE", "0")  # what the stage sets is undone after the test
    monkeypatch.setenv("HF_DATASETS_OFFLINE", "0")
    rows = [{"question": "How many?", "choices": ["a", "b b", "c", "d"], "answer": i % 4} for i in range(5)]
    choices = workspace / "data/raw/text_to_sql/choices.jsonl"
    choices.parent.mkdir(parents=True)
    choices.write_text("".join(json.dumps(row) + "\n" for row in rows))
    stage(main, HARNESS, monkeypatch)
    metrics = json.loads((workspace / "harness.json").read_text())
    assert sorted(metrics) == ["acc", "acc_norm", "acc_norm_stderr", "acc_stderr", "n_examples"]
    assert metrics["n_examples"] == 3  # eval.harness_limit
    # rows differ in the answer only, so the model chooses one for all: right once in 0, 1, 2, or never
    assert metrics["acc"] in (0.0, pytest.approx(1 / 3, abs=1e-6))


@pytest.mark.parametrize("broken", ["choices.jsonl is missing", "choices.jsonl is no JSON"])
def test_harness_names_the_task_whose_data_cannot_be_read(
    workspace: Path, no_network: None, broken: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from tuneline.stages.harness import main

    monkeypatch.setenv("HF_HUB_OFFLINE", "0")
    monkeypatch.setenv("HF_DATASETS_OFFLINE", "0")
    if broken.endswith("no JSON"):
        choices = workspace / "data/raw/text_to_sql/choices.jsonl"
        choices.parent.mkdir(parents=True)
        choices.write_text("question,choices\n")
    with pytest.raises(TunelineError, match="lm-eval task 'sql_next': cannot read its data: "):
        stage(main, HARNESS, monkeypatch)
    assert not (workspace / "harness.json").exists()


def _save_adapter() -> None:
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM, AutoTokenizer

    torch.manual_seed(7)
    base = AutoModelForCausalLM.from_pretrained(str(BASE))
    adapter = LoraConfig(r=4, target_modules=["q_proj", "v_proj"], init_lora_weights=False, task_type="CAUSAL_LM")
    get_peft_model(base, adapter).save_pretrained(str(TUNED))
    AutoTokenizer.from_pretrained(str(BASE)).save_pretrained(TUNED)
