"""`dvc repro` of the embedded default, from raw data to a deployable GGUF, and what a user does next."""

import json
import shutil
import statistics
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file

from tests.end_to_end.conftest import Run, clone, commit, runner

pytestmark = [pytest.mark.slow, pytest.mark.timeout(2400)]


def metrics(experiment: Path, name: str) -> dict[str, float]:
    read: dict[str, float] = json.loads((experiment / "reports" / name).read_text(encoding="utf-8"))
    return read


def test_tuning_teaches_the_task_that_the_base_cannot_do(experiment: Path) -> None:
    scores = metrics(experiment, "evaluate.json")
    assert scores["n_examples"] >= 500
    assert scores["base_execution_accuracy"] <= 0.05
    assert scores["tuned_execution_accuracy"] >= 0.80
    assert scores["tuned_execution_accuracy_ci95_low"] > scores["base_execution_accuracy_ci95_high"]


def test_quantised_models_keep_the_score(experiment: Path) -> None:
    assert metrics(experiment, "verify/q8_0.json")["execution_accuracy_drop"] <= 0.01
    assert metrics(experiment, "verify/q4_k_m.json")["execution_accuracy_drop"] <= 0.03


def test_every_row_is_accounted_for(experiment: Path) -> None:
    raw = experiment / "data/raw/text_to_sql"
    n_lines = sum(len((raw / f"{name}.jsonl").read_bytes().splitlines()) for name in ("pool", "test", "documents"))
    ingested, cleaned, split = (metrics(experiment, f"{stage}.json") for stage in ("ingest", "clean", "split"))
    assert ingested["n_read"] == n_lines == ingested["n_kept"] + ingested["n_rejected"]
    assert cleaned["n_read"] == ingested["n_kept"] == cleaned["n_kept"] + cleaned["n_rejected"]
    sides = split["n_train"] + split["n_val"] + split["n_test"]
    assert split["n_read"] == cleaned["n_kept"] == sides + split["n_rejected_by_contamination"]


def test_the_deployable_folder_is_complete(experiment: Path) -> None:
    deploy = experiment / "models/deploy"
    assert sorted(path.suffix for path in deploy.iterdir() if path.suffix == ".gguf") == [".gguf"]
    assert (deploy / "Modelfile").exists()
    assert (deploy / "README.md").exists()


def test_the_package_names_the_commit_of_its_inputs(experiment: Path, run: Run) -> None:
    record = json.loads((experiment / "models/deploy/provenance.json").read_text(encoding="utf-8"))
    (first,) = run("git", "rev-list", "--max-parents=0", "HEAD").stdout.split()  # which holds every input
    assert record["git"] == {"commit": first, "dirty": False}


_PARSE = """
import time
from dvc.utils.serialize import load_yaml
started = time.perf_counter()
load_yaml("dvc.lock")
print(time.perf_counter() - started)
"""


def test_repeating_does_nothing_and_is_quick(run: Run) -> None:
    """Beside what DVC needs to read dvc.lock once, on the same machine: it spends its time reading YAML."""
    seconds, parsing = [], []
    for _ in range(3):
        parsing.append(float(run(sys.executable, "-c", _PARSE).stdout))
        start = time.perf_counter()
        result = run("dvc", "repro")
        seconds.append(time.perf_counter() - start)
        assert "up to date" in result.stdout
    assert statistics.median(seconds) < 20 * statistics.median(parsing)  # 8 to 10; seconds are in reports/benchmarks.md


def test_summary_shows_every_model(run: Run) -> None:
    shown = run("tuneline", "summary").stdout
    assert all(name in shown for name in ("base", "tuned", "f16", "q8_0", "q4_k_m"))


def test_an_edit_in_conf_makes_params_stale_and_deletes_nothing(experiment: Path, run: Run) -> None:
    conf = experiment / "conf/clean/basic.yaml"
    before = conf.read_text(encoding="utf-8")
    conf.write_text(before.replace("4000", "3000"), encoding="utf-8")
    refused = run("dvc", "repro", check=False)
    conf.write_text(before, encoding="utf-8")
    assert refused.returncode != 0
    assert "make params" in refused.stdout + refused.stderr
    assert (experiment / "data/ingested/examples.jsonl").exists()
    assert "Running stage" not in run("dvc", "repro").stdout  # the guard's result comes back from the run cache


def test_a_bad_value_is_refused_before_any_output_is_deleted(experiment: Path, run: Run) -> None:
    refused = run("dvc", "exp", "run", "-S", "lora.r=abc", check=False)
    run("git", "checkout", "--", "params.yaml")
    assert refused.returncode != 0
    assert "lora.r" in refused.stdout + refused.stderr
    assert (experiment / "models/phase/sft/adapter_model.safetensors").exists()


def test_a_variation_of_training_reruns_no_data_stage(experiment: Path, tmp_path: Path) -> None:
    shutil.copytree(experiment, tmp_path / "variation", symlinks=True)
    run = runner(tmp_path / "variation")
    result = run("dvc", "exp", "run", "-S", "lora.r=32", "-S", "recipe.phases.sft.max_steps=4", "train@sft")
    ran = {line.split("'")[1] for line in result.stdout.splitlines() if line.startswith("Running stage")}
    assert ran == {"guard", "inspect@sft", "train@sft"}  # inspect reads the phase, whose max_steps is small here
    changed = json.loads(run("dvc", "params", "diff", "--json").stdout)["params.yaml"]
    assert changed["lora.r"] == {"old": 16, "new": 32, "diff": 16}


def test_a_colleague_pulls_every_result_and_has_nothing_to_run(experiment: Path, tmp_path: Path) -> None:
    shutil.copytree(experiment, tmp_path / "mine", symlinks=True)
    mine, theirs = runner(tmp_path / "mine"), runner(tmp_path / "theirs")
    mine("dvc", "remote", "add", "-d", "store", str(tmp_path / "store"))
    mine("dvc", "push")
    commit(tmp_path / "mine", "results")
    mine("git", "clone", "-q", str(tmp_path / "mine"), str(tmp_path / "theirs"))
    theirs("dvc", "pull")
    assert "Running stage" not in theirs("dvc", "repro").stdout
    deploy = experiment / "models/deploy"
    shipped = [path.relative_to(deploy) for path in sorted(deploy.rglob("*")) if path.is_file()]
    assert len(shipped) > 3
    assert [(deploy / name).read_bytes() for name in shipped] == [
        (tmp_path / "theirs/models/deploy" / name).read_bytes() for name in shipped
    ]


def test_two_fresh_clones_give_the_same_adapter(tmp_path: Path) -> None:
    adapters = []
    for name in ("one", "two"):
        folder = clone(tmp_path / name)
        runner(folder)("dvc", "exp", "run", "-S", "recipe.phases.sft.max_steps=4", "train@sft")
        adapters.append((folder / "models/phase/sft/adapter_model.safetensors").read_bytes())
    assert adapters[0] == adapters[1]


def test_a_chain_of_phases_continues_the_first_phase(tmp_path: Path) -> None:
    """At a rate of almost nothing the second phase hands on what the first one trained."""
    run = runner(clone(tmp_path / "chain"))
    short = [f"recipe.phases.{phase}.max_steps=2" for phase in ("pretrain", "sft")]
    values = ("recipe=pretrain_then_sft", *short, "recipe.phases.sft.learning_rate=1.0e-12")
    result = run("dvc", "exp", "run", *(word for value in values for word in ("-S", value)), "train@sft")
    assert "train@pretrain" in result.stdout
    phases = tmp_path / "chain/models/phase"
    first, second = (load_file(phases / phase / "adapter_model.safetensors") for phase in ("pretrain", "sft"))
    assert any(tensor.any() for name, tensor in first.items() if "lora_B" in name), "an untrained B is all zeros"
    assert first.keys() == second.keys()
    assert all(np.allclose(first[name], second[name], atol=1e-9) for name in first)
