"""Stages inspect, train and curves as DVC calls them, over a chain of two phases."""

import hashlib
import json
import shutil
import sys
from collections import namedtuple
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from tuneline.data.record_files import write_examples
from tuneline.data.records import Message, make_example
from tuneline.errors import EnvironmentProblem
from tuneline.model.pinned import folder_digests

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]


@pytest.fixture
def project(tiny: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working directory like a repository's: params.yaml, a base model and splits."""
    monkeypatch.chdir(tmp_path)
    tiny.save_base(Path("models/base/tiny"))
    write_params()
    for split, numbers in (("train", range(24)), ("val", range(24, 28))):
        conversations = [
            make_example("pool", i, (Message("user", f"{i}?"), Message("assistant", f"It is {i}.")), None, {})
            for i in numbers
        ]
        documents = [make_example("documents", i, (), f"Number {i} follows {i - 1}. " * 4, {}) for i in numbers]
        write_examples(Path(f"data/splits/{split}.jsonl"), [*conversations, *documents])
    return tmp_path


def write_params(**changed: Any) -> None:
    """The repository's params.yaml with the tiny model and two short phases."""
    from omegaconf import OmegaConf

    params: Any = OmegaConf.load(ROOT / "params.yaml")
    folder = "models/base/tiny"
    params.model.update(name="tiny", name_or_path=folder, tracked_path=folder, max_position_embeddings=512)
    params.model.sha256 = dict(folder_digests(Path(folder)))
    params.model.chat_template_kwargs = {}
    short = {"num_train_epochs": 1.0, "max_steps": -1, "learning_rate": 3e-3, "max_length": 64, "packing": True}
    params.recipe = {
        "name": "pretrain_then_sft",
        "final": "sft",
        "phases": {
            "pretrain": {"objective": "pretrain", "init": folder, **short},
            "sft": {"objective": "sft", "init": "models/phase/pretrain", **short},
        },
    }
    params.train.update(global_batch_size=4, logging_steps=1, eval_steps=2)
    params.hardware.update(micro_batch_size=2, eval_batch_size=4)
    for key, value in changed.items():
        OmegaConf.update(params, key.replace("__", "."), value)
    OmegaConf.save(params, "params.yaml")


def call(monkeypatch: pytest.MonkeyPatch, stage: str, **arguments: str) -> None:
    import importlib

    module = importlib.import_module(f"tuneline.stages.{stage}")
    words = [word for name, value in arguments.items() for word in (f"--{name}", value)]
    monkeypatch.setattr(sys, "argv", [stage, "--params", "params.yaml", *words])
    module.main()


def inspect(monkeypatch: pytest.MonkeyPatch, phase: str) -> None:
    call(
        monkeypatch,
        "inspect",
        phase=phase,
        splits="data/splits",
        out=f"data/tokens/{phase}",
        metrics=f"reports/inspect/{phase}.json",
        preview=f"reports/inspect/{phase}.md",
    )


def train(monkeypatch: pytest.MonkeyPatch, phase: str, init: str, out: str | None = None) -> None:
    call(
        monkeypatch,
        "train",
        phase=phase,
        tokens=f"data/tokens/{phase}",
        init=init,
        checkpoints=".checkpoints",
        out=out or f"models/phase/{phase}",
        log=f"data/logs/{phase}.json",
        speed=f"reports/speed/train-{phase}.json",
    )


def digests(folder: Path) -> dict[str, str]:
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in sorted(folder.iterdir())}


def test_a_chain_of_phases_goes_from_splits_to_an_adapter_and_its_curves(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for phase, init in (("pretrain", "models/base/tiny"), ("sft", "models/phase/pretrain")):
        inspect(monkeypatch, phase)
        train(monkeypatch, phase, init)
        call(
            monkeypatch,
            "curves",
            phase=phase,
            log=f"data/logs/{phase}.json",
            curve=f"reports/train/{phase}.csv",
            picture=f"reports/train/{phase}.png",
            metrics=f"reports/train/{phase}.json",
        )
    metrics = json.loads((project / "reports/inspect/sft.json").read_text())
    assert (metrics["n_train_rows"], metrics["n_val_rows"]) == (24, 4)
    assert (project / "models/phase/sft/adapter_model.safetensors").is_file()
    config = json.loads((project / "models/phase/sft/adapter_config.json").read_text())
    assert config["base_model_name_or_path"] == "models/base/tiny"
    pretrained, tuned = digests(Path("models/phase/pretrain")), digests(Path("models/phase/sft"))
    assert pretrained["adapter_config.json"] == tuned["adapter_config.json"]
    assert pretrained["adapter_model.safetensors"] != tuned["adapter_model.safetensors"]
    final = json.loads((project / "reports/train/sft.json").read_text())
    assert final["val_loss_nats"] > 0
    speed = json.loads((project / "reports/speed/train-sft.json").read_text())
    assert set(speed) >= {"train_seconds", "tokens_per_second", "peak_memory_mib", "stage_seconds"}
    written = {path.relative_to(project).parts[0] for path in project.rglob("*") if path.is_file()}
    assert written == {"params.yaml", "models", "data", "reports"}


def test_two_runs_give_the_same_bytes(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    inspect(monkeypatch, "pretrain")
    for out in ("models/one", "models/two"):
        train(monkeypatch, "pretrain", "models/base/tiny", out)
    assert digests(Path("models/one")) == digests(Path("models/two"))


def test_a_full_model_goes_through_the_same_chain(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_params(method={"name": "full", "family": "full"}, lora=None)
    for phase, init in (("pretrain", "models/base/tiny"), ("sft", "models/phase/pretrain")):
        inspect(monkeypatch, phase)
        train(monkeypatch, phase, init)
    from tuneline.config.params import read_params
    from tuneline.model.loading import load_merged
    from tuneline.model.tokenizers import load_tokenizer_from

    params = read_params(Path("params.yaml"))
    model = load_merged(Path("models/phase/sft"), params.hardware)
    assert str(model.dtype) == "torch.float32"
    assert load_tokenizer_from(Path("models/phase/sft")).chat_template is not None
    assert "models/" not in (project / "models/phase/sft/config.json").read_text()


def test_a_run_that_diverges_leaves_no_adapter_and_no_log(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from tuneline.errors import ModelError

    inspect(monkeypatch, "pretrain")
    write_params(recipe__phases__pretrain__learning_rate=1e30, train__max_grad_norm=1e30)
    with pytest.raises(ModelError, match="nothing is saved"):
        train(monkeypatch, "pretrain", "models/base/tiny")
    assert not (project / "models/phase").exists()
    assert not (project / "data/logs").exists()


def test_a_training_whose_checkpoints_do_not_fit_the_disk_is_refused_before_its_first_step(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    inspect(monkeypatch, "pretrain")
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage(10**9, 10**9 - 1000, 1000))
    monkeypatch.setattr("tuneline.training.loop.train", None)
    with pytest.raises(EnvironmentProblem, match=r"needs up to [\d,]+ bytes, 1,000 are free"):
        train(monkeypatch, "pretrain", "models/base/tiny")


def test_trainings_that_never_ended_are_bounded_when_another_starts(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_params(train__unfinished_kept=1)
    inspect(monkeypatch, "pretrain")
    for number in range(3):
        Path(f".checkpoints/{number}/checkpoint-1").mkdir(parents=True)
    train(monkeypatch, "pretrain", "models/base/tiny")
    assert len(list(Path(".checkpoints").iterdir())) == 1


def test_a_log_that_cannot_be_written_leaves_no_adapter(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import tuneline.training.loop
    from tuneline.training.loop import Outcome

    def broken(*args: Any) -> Outcome:
        return Outcome({"log_history": [{"step": 1, "loss": float("nan")}]}, {})

    inspect(monkeypatch, "pretrain")
    monkeypatch.setattr(tuneline.training.loop, "train", broken)
    with pytest.raises(ValueError, match="not JSON compliant"):
        train(monkeypatch, "pretrain", "models/base/tiny")
    assert not (project / "models/phase").exists()


def test_the_benchmarks_loops_reach_the_same_loss(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from tuneline.config.params import read_params
    from tuneline.errors import BudgetError, ConfigError
    from tuneline.training.benchmark import Comparison, Timing, compare

    inspect(monkeypatch, "pretrain")
    params, tokens = read_params(Path("params.yaml")), Path("data/tokens/pretrain")
    for n_steps in (1, 3):
        result = compare(params, "pretrain", tokens, n_steps, 1)
        assert result.plain[0].mean_loss_nats == pytest.approx(result.trainer[0].mean_loss_nats, rel=1e-3)
    with pytest.raises(ConfigError, match=r"--phase: 'dpo' is not in the recipe; choose from pretrain, sft"):
        compare(params, "dpo", tokens, 1, 1)
    assert Comparison([Timing(1.0, 2.0)], [Timing(1.0, 2.01)]).ratio == 1.0
    with pytest.raises(BudgetError, match=r"mean loss of 2.0000 nats, the plain loop 2.0500; more than 1% apart"):
        Comparison([Timing(1.0, 2.0)], [Timing(1.0, 2.05)])


def test_what_checkpoints_cost_is_measured_on_a_real_one_and_nothing_is_left(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from tuneline.config.params import read_params
    from tuneline.errors import ConfigError
    from tuneline.training.keeping_cost import KeepingCost, measure

    inspect(monkeypatch, "pretrain")
    params, tokens = read_params(Path("params.yaml")), Path("data/tokens/pretrain")
    before = set(project.rglob("*"))
    cost = measure(params, "pretrain", tokens, 1)
    assert set(project.rglob("*")) == before
    assert cost.checkpoint_bytes > 1000
    assert min(cost.once_seconds, cost.seal_seconds) > 0
    with pytest.raises(ConfigError, match=r"--phase: 'dpo' is not in the recipe; choose from pretrain, sft"):
        measure(params, "dpo", tokens, 1)
    assert KeepingCost(once_seconds=6, seal_seconds=0.6, checkpoint_bytes=1).share(2) == pytest.approx(7.2 / 120)


def test_wandb_works_offline_without_a_question(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    inspect(monkeypatch, "pretrain")
    write_params(tracking__wandb="offline", tracking__project="tiny")
    train(monkeypatch, "pretrain", "models/base/tiny")
    assert list((project / "wandb").glob("offline-run-*"))


def test_wandb_online_without_a_login_is_an_error(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    import wandb

    from tuneline.config.schema import TrackingConfig
    from tuneline.errors import EnvironmentProblem
    from tuneline.training.tracking import tracked_run

    class LoggedOut:
        api_key = None

    monkeypatch.setattr(wandb, "api", LoggedOut())
    with (
        pytest.raises(EnvironmentProblem, match=r"tracking.wandb: 'online', but this machine is not logged in"),
        tracked_run(TrackingConfig(wandb="online", project="tiny"), "sft", {}),
    ):
        pass
