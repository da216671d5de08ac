"""A training that is killed and started again is the very training that was never killed."""

import os
import signal
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from tuneline.training.checkpoints import newest_whole, seal
from tuneline.training.interruption import Interrupted

pytestmark = pytest.mark.slow

N_ROWS, N_EPOCHS = 22, 3.0  # 6 steps an epoch, the last of 2 rows
DIES_AT = 9  # micro batches are counted: in the middle of the second epoch
KINDS: dict[str, dict[str, Any]] = {
    "full": {},
    "lora": {"method": "lora"},
    "lora with dropout": {"method": "lora", "lora": {"lora_dropout": 0.5}},
    "dora": {"method": "lora", "lora": {"use_dora": True}},
    "packing": {"packing": True, "global_batch_size": 2, "micro_batch_size": 1},
    "gradient accumulation": {"micro_batch_size": 2, "dies_at": 19},
    "between two points of the curve": {"logging_steps": 4},
    "early stopping": {"early_stopping_patience": 20},
}


class Killed(BaseException):
    """What no code catches, as SIGKILL."""


Train = Callable[..., tuple[dict[str, Any], Any]]


@pytest.fixture
def train_kind(tiny: ModuleType, base: Path) -> Train:
    """Train one of KINDS in a checkpoint folder; returns the weights that were trained, and the log."""
    from tests.training.test_loop import rows
    from tuneline.model.methods import initial_model
    from tuneline.model.tokenizers import load_tokenizer
    from tuneline.training.loop import train

    config = tiny.model_config(base)

    def run(kind: str, folder: Path, **settings: Any) -> tuple[dict[str, Any], Any]:
        given = {**KINDS[kind]}
        given.pop("dies_at", None)
        method = tiny.LORA if given.pop("method", "full") == "lora" else tiny.FULL
        hardware = tiny.hardware(micro_batch_size=given.pop("micro_batch_size", 4))
        adapter = tiny.lora(**given.pop("lora", {}))
        phase = tiny.phase(num_train_epochs=N_EPOCHS, packing=given.pop("packing", False), learning_rate=1e-2)
        model = initial_model(base, config, method, adapter, None, hardware, seed=0)
        folder.mkdir(exist_ok=True)
        outcome = train(
            model,
            load_tokenizer(config),
            rows(N_ROWS),
            rows(4, 30),
            phase,
            tiny.settings(**{"lr_scheduler_type": "cosine", "save_steps": 3, "eval_steps": 2, **given, **settings}),
            hardware,
            0,
            [],
            folder,
        )
        weights = {name: p.detach().clone() for name, p in model.named_parameters() if p.requires_grad}
        return weights, outcome.log

    return run


def die_after(monkeypatch: pytest.MonkeyPatch, n_micro_batches: int, die: Callable[[], None]) -> None:
    from tuneline.training.objectives import TokenTrainer

    count, step = 0, TokenTrainer.training_step

    def training_step(self: Any, *args: Any, **kwargs: Any) -> Any:
        nonlocal count
        count += 1
        if count == n_micro_batches:
            die()
        return step(self, *args, **kwargs)

    monkeypatch.setattr(TokenTrainer, "training_step", training_step)


def kill() -> None:
    raise Killed


def assert_equal(found: tuple[dict[str, Any], Any], wanted: tuple[dict[str, Any], Any]) -> None:
    import torch

    assert found[1] == wanted[1], "the curve"
    assert all(torch.equal(found[0][name], wanted[0][name]) for name in wanted[0]), "the weights"


@pytest.mark.parametrize("kind", KINDS)
def test_a_killed_training_goes_on_to_the_same_bits(
    kind: str, train_kind: Train, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = train_kind(kind, tmp_path / "whole")
    with monkeypatch.context() as patch:
        die_after(patch, KINDS[kind].get("dies_at", DIES_AT), kill)
        with pytest.raises(Killed):
            train_kind(kind, tmp_path / "killed")
    assert newest_whole(tmp_path / "killed")[0] is not None
    assert_equal(train_kind(kind, tmp_path / "killed"), whole)


def test_a_training_killed_while_a_checkpoint_is_written_uses_the_one_before(
    train_kind: Train, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    whole = train_kind("lora", tmp_path / "whole")
    sealed: list[Path] = []

    def seal_once(checkpoint: Path) -> None:
        if sealed:
            kill()
        sealed.append(checkpoint)
        seal(checkpoint)

    with monkeypatch.context() as patch, suppress(Killed):
        patch.setattr("tuneline.training.resuming.seal", seal_once)
        train_kind("lora", tmp_path / "killed")
    assert_equal(train_kind("lora", tmp_path / "killed"), whole)
    assert f"not used: {tmp_path / 'killed' / 'checkpoint-6'}: no readable manifest.json" in capsys.readouterr().err


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_saves_at_the_step_at_hand_and_nothing_is_lost(
    number: signal.Signals, train_kind: Train, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = train_kind("between two points of the curve", tmp_path / "whole")
    with monkeypatch.context() as patch:
        die_after(patch, 11, lambda: os.kill(os.getpid(), number))
        with pytest.raises(Interrupted, match=rf"{number.name} at step 11 of 18; the checkpoint is in .*continues"):
            train_kind("between two points of the curve", tmp_path / "stopped")
    assert newest_whole(tmp_path / "stopped")[0] == tmp_path / "stopped" / "checkpoint-11"
    assert_equal(train_kind("between two points of the curve", tmp_path / "stopped"), whole)


def test_checkpoints_do_not_change_what_is_trained_and_no_more_are_kept_than_allowed(
    train_kind: Train, tmp_path: Path
) -> None:
    assert_equal(train_kind("full", tmp_path / "often", save_steps=1), train_kind("full", tmp_path / "once"))
    assert len(list((tmp_path / "often").glob("checkpoint-*"))) == 2
