"""The training loop: its loss, its accounts, and how it stops."""

import math
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from tuneline.errors import DataError, EnvironmentProblem, ModelError

pytestmark = pytest.mark.slow

Train = Callable[..., tuple[Any, Any]]


def rows(n: int, first: int = 0) -> list[Any]:
    """Rows of 6 to 12 tokens that count upwards; the last 1 to 5 are targets, so that rows weigh differently."""
    from tuneline.training.tokens import IGNORED, TokenRow

    made = []
    for i in range(first, first + n):
        ids = [10 + (i + t) % 50 for t in range(6 + i % 7)]
        n_targets = 1 + i % 5
        made.append(TokenRow(str(i), ids, [IGNORED] * (len(ids) - n_targets) + ids[-n_targets:]))
    return made


@pytest.fixture(scope="module")
def fit(tiny: ModuleType, base: Path, tmp_path_factory: pytest.TempPathFactory) -> Train:
    """Train a fresh model; returns it and the outcome."""
    from tuneline.model.methods import initial_model
    from tuneline.model.tokenizers import load_tokenizer
    from tuneline.training.loop import train

    config = tiny.model_config(base)

    def run(
        train_rows: list[Any],
        val_rows: list[Any] | None = None,
        *,
        method: Any = tiny.FULL,
        quantization: Any = None,
        hardware: dict[str, Any] | None = None,
        settings: dict[str, Any] | None = None,
        **phase: Any,
    ) -> tuple[Any, Any]:
        machine = tiny.hardware(**(hardware or {}))
        model = initial_model(base, config, method, tiny.lora(), quantization, machine, seed=0)
        outcome = train(
            model,
            load_tokenizer(config),
            train_rows,
            val_rows or [],
            tiny.phase(**phase),
            tiny.settings(**(settings or {})),
            machine,
            0,
            [],
            tmp_path_factory.mktemp("checkpoints"),
        )
        return model, outcome

    return run


def layers_checkpoint(model: Any) -> set[bool]:
    """Whether the decoder's layers recompute their activations."""
    from transformers.modeling_layers import GradientCheckpointingLayer

    return {m.gradient_checkpointing for m in model.modules() if isinstance(m, GradientCheckpointingLayer)}


def nll_by_hand(model: Any, some_rows: list[Any]) -> float:
    """Mean negative log-likelihood per target, row by row."""
    import torch

    total, count = 0.0, 0
    for row in some_rows:
        logits = model.eval()(torch.tensor([row.input_ids])).logits[0].detach()
        for t in range(1, len(row.labels)):
            if row.labels[t] != -100:
                total -= float(torch.log_softmax(logits[t - 1], -1)[row.labels[t]])
                count += 1
    return total / count


def test_two_micro_batches_equal_one_batch(fit: Train) -> None:
    """Three steps, the last of 5 rows: losses and gradient norms agree, so the weights in between did."""
    curves = []
    for micro in (8, 4, 2):
        settings = {"global_batch_size": 8, "max_grad_norm": 0.5}
        _, outcome = fit(rows(21), settings=settings, hardware={"micro_batch_size": micro})
        curves.append([point[key] for point in outcome.log["log_history"] for key in ("loss", "grad_norm")])
    assert len(curves[0]) == 6
    assert curves[1] == pytest.approx(curves[0], rel=1e-4)
    assert curves[2] == pytest.approx(curves[0], rel=1e-4)


def test_the_logged_loss_is_the_mean_over_the_targets_of_the_step(fit: Train, tiny: ModuleType, base: Path) -> None:
    from tuneline.model.loading import load_base

    untrained = load_base(tiny.model_config(base), tiny.hardware(), None)
    for micro in (2, 8):
        _, outcome = fit(rows(8), settings={"global_batch_size": 8}, hardware={"micro_batch_size": micro})
        assert outcome.log["log_history"][0]["loss"] == pytest.approx(nll_by_hand(untrained, rows(8)), rel=1e-4)


def test_packed_and_padded_training_take_the_same_step(fit: Train) -> None:
    """One step over all rows: in packs the batch holds fewer sequences, of the same documents."""
    _, padded = fit(rows(8), settings={"global_batch_size": 8}, hardware={"micro_batch_size": 8})
    _, packed = fit(rows(8), settings={"global_batch_size": 8}, hardware={"micro_batch_size": 8}, packing=True)
    assert packed.log["n_train_sequences"] == 2
    for key in ("loss", "grad_norm"):
        first, second = (run.log["log_history"][0][key] for run in (padded, packed))
        assert first == pytest.approx(second, rel=1e-4)


def test_the_validation_loss_is_that_of_the_saved_weights_whatever_the_batches(fit: Train) -> None:
    for batch, packing in ((1, False), (3, False), (4, True)):
        model, outcome = fit(rows(8), rows(5, 20), hardware={"eval_batch_size": batch}, packing=packing)
        last = outcome.log["log_history"][-1]
        by_hand = nll_by_hand(model, rows(5, 20))
        assert last["eval_loss"] == pytest.approx(by_hand, rel=1e-4)
        assert last["perplexity"] == pytest.approx(math.exp(by_hand), rel=1e-4)


def test_trls_fused_loss_is_the_same_number(fit: Train, tiny: ModuleType, base: Path) -> None:
    """Accelerators take TRL's fused head, CPUs the plain loss."""
    import torch
    from trl.trainer.utils import add_fused_lm_head

    from tuneline.model.loading import load_base
    from tuneline.training.packing import collate

    model = load_base(tiny.model_config(base), tiny.hardware(), None)
    batch = collate([[row] for row in rows(6)], "padded", 0)
    n_targets = torch.tensor(1 + 2 + 3 + 4 + 5 + 1)
    plain = model(**batch, num_items_in_batch=n_targets, use_cache=False).loss
    add_fused_lm_head(model)
    fused = model(**batch, num_items_in_batch=n_targets, fused_lm_head=True).loss
    assert float(fused.detach()) == pytest.approx(float(plain.detach()), rel=1e-5)


def test_the_curve_begins_with_the_first_step_and_ends_with_the_last(fit: Train) -> None:
    _, outcome = fit(rows(28), rows(2, 30), settings={"logging_steps": 5, "eval_steps": 5})
    history = outcome.log["log_history"]
    assert [point["step"] for point in history if "loss" in point] == [1, 5, 7]
    assert [point["step"] for point in history if "eval_loss" in point] == [5, 7]
    assert (outcome.log["n_steps"], outcome.log["kept_step"]) == (7, 7)
    assert set().union(*history) == {"step", "epoch", "loss", "eval_loss", "perplexity", "learning_rate", "grad_norm"}


def test_tokens_are_counted_without_padding(fit: Train) -> None:
    _, outcome = fit(rows(10), num_train_epochs=3.0)
    n_tokens = sum(6 + i % 7 for i in range(10))
    assert (outcome.log["n_train_tokens"], outcome.log["n_trained_tokens"]) == (n_tokens, 30)
    assert outcome.speed["n_tokens_seen"] == 3 * n_tokens
    assert outcome.speed["tokens_per_second"] > 0
    assert outcome.speed["peak_memory_mib"] > 100


def test_max_steps_wins_over_epochs(fit: Train) -> None:
    assert fit(rows(40), max_steps=3)[1].log["n_steps"] == 3


@pytest.mark.parametrize(
    ("scheduler", "warmup", "expected"),
    [
        ("constant", 0.0, [1.0, 1.0, 1.0, 1.0]),
        ("linear", 0.0, [1.0, 0.75, 0.5, 0.25]),
        ("cosine", 0.0, [(1 + math.cos(math.pi * k / 4)) / 2 for k in range(4)]),
        ("constant_with_warmup", 0.5, [0.0, 0.5, 1.0, 1.0]),
    ],
)
def test_schedules_are_what_their_names_say(fit: Train, scheduler: str, warmup: float, expected: list[float]) -> None:
    settings = {"lr_scheduler_type": scheduler, "warmup_ratio": warmup}
    _, outcome = fit(rows(16), settings=settings, learning_rate=0.5e-3)
    rates = [point["learning_rate"] for point in outcome.log["log_history"]]
    assert rates == pytest.approx([0.5e-3 * share for share in expected], rel=1e-4)


def test_training_learns(fit: Train, tiny: ModuleType) -> None:
    for method in (tiny.FULL, tiny.LORA):
        _, outcome = fit(rows(32), method=method, num_train_epochs=6.0, learning_rate=1e-2)
        losses = [point["loss"] for point in outcome.log["log_history"]]
        assert losses[-1] < 0.7 * losses[0]


def test_an_adapter_on_a_four_bit_base_is_trained_in_fp32(fit: Train) -> None:
    from tuneline.config.schema import MethodConfig, QuantizationConfig

    nf4 = QuantizationConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype="float32",
    )
    qlora = MethodConfig(name="qlora", family="adapter")
    model, outcome = fit(rows(16), method=qlora, quantization=nf4, num_train_epochs=6.0, learning_rate=1e-2)
    losses = [point["loss"] for point in outcome.log["log_history"]]
    assert losses[-1] < 0.8 * losses[0]
    assert {str(p.dtype) for p in model.parameters() if p.requires_grad} == {"torch.float32"}


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("checkpointing", [False, True])
@pytest.mark.parametrize("method", ["FULL", "LORA"])
def test_checkpointing_and_precision_change_rounding_only(
    fit: Train, tiny: ModuleType, precision: str, checkpointing: bool, method: str
) -> None:
    chosen = {"FULL": tiny.FULL, "LORA": tiny.LORA}[method]
    _, plain = fit(rows(8), method=chosen)
    machine = {"precision": precision, "gradient_checkpointing": checkpointing}
    model, outcome = fit(rows(8), method=chosen, hardware=machine)
    assert layers_checkpoint(model) == {checkpointing}
    losses = [[point["loss"] for point in run.log["log_history"]] for run in (plain, outcome)]
    assert losses[1] == pytest.approx(losses[0], rel=1e-4 if precision == "fp32" else 2e-2)


def test_early_stopping_stops_and_puts_the_best_weights_back(fit: Train) -> None:
    val = rows(4, 100)
    model, outcome = fit(
        rows(8),
        val,
        num_train_epochs=40.0,
        learning_rate=0.5,  # far too large: it only gets worse
        settings={"early_stopping_patience": 2, "eval_steps": 1},
    )
    evals = {point["step"]: point["eval_loss"] for point in outcome.log["log_history"] if "eval_loss" in point}
    best = min(evals, key=lambda step: evals[step])
    assert outcome.log["kept_step"] == best
    assert outcome.log["n_steps"] == best + 2
    assert nll_by_hand(model, val) == pytest.approx(evals[best], rel=1e-3)


def test_max_steps_stops_although_patience_is_left(fit: Train) -> None:
    _, outcome = fit(
        rows(40),
        rows(2, 50),
        max_steps=2,
        settings={"early_stopping_patience": 100, "eval_steps": 1},
        learning_rate=0.5,
    )
    assert outcome.log["n_steps"] == 2


def test_a_validation_without_improvement_leaves_a_stop_alone(tmp_path: Path) -> None:
    from torch import nn
    from transformers import TrainerControl, TrainerState, TrainingArguments

    from tuneline.training.callbacks import BestWeights

    best, state, arguments = BestWeights(patience=2), TrainerState(), TrainingArguments(output_dir=str(tmp_path))
    seen = []
    for loss, was_stopping in ((1.0, False), (2.0, True), (2.0, False)):
        control = TrainerControl(should_training_stop=was_stopping)
        best.on_evaluate(arguments, state, control, metrics={"eval_loss": loss}, model=nn.Linear(1, 1))
        seen.append(control.should_training_stop)
    assert seen == [False, True, True]


def test_early_stopping_without_validation_rows_is_an_error(fit: Train) -> None:
    with pytest.raises(DataError, match=r"train.early_stopping_patience: 2, but there are no validation rows"):
        fit(rows(8), settings={"early_stopping_patience": 2})


def test_a_loss_that_is_not_finite_stops_at_its_step(fit: Train) -> None:
    with pytest.raises(ModelError, match=r"the (loss|gradient norm) is (nan|inf) at step [234]; nothing is saved"):
        fit(rows(40), learning_rate=1e30, settings={"max_grad_norm": 1e30})


def test_a_gradient_that_is_not_finite_stops_before_the_weights_move(
    fit: Train, tiny: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    import torch
    from transformers import Trainer

    def broken(self: Any, model: Any) -> Any:
        return torch.tensor(float("inf"))

    monkeypatch.setattr(Trainer, "_clip_grad_norm", broken)
    with pytest.raises(ModelError, match="the gradient norm is inf at step 1; nothing is saved"):
        fit(rows(8))


def test_a_gradient_norm_that_fp16_skips_is_left_out_of_the_log(fit: Train, monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    from tuneline.training.objectives import TokenTrainer

    # what the trainer gets under fp16, whose steps with an infinite gradient the scaler skips
    monkeypatch.setattr(TokenTrainer, "_clip_grad_norm", lambda self, model: torch.tensor(float("inf")))
    _, outcome = fit(rows(8))
    assert [set(point) for point in outcome.log["log_history"]] == 2 * [{"step", "epoch", "loss", "learning_rate"}]


def test_nothing_is_reported_to_anybody(fit: Train, monkeypatch: pytest.MonkeyPatch) -> None:
    import trl.trainer.base_trainer

    def refuse(*args: Any, **kwargs: Any) -> None:
        raise AssertionError("telemetry")

    monkeypatch.delenv("CI", raising=False)
    monkeypatch.setattr(trl.trainer.base_trainer, "send_telemetry", refuse)
    fit(rows(4))


def test_another_number_of_devices_than_configured_is_an_error(fit: Train) -> None:
    with pytest.raises(EnvironmentProblem, match=r"hardware.num_devices: 2, but 1 processes"):
        fit(rows(8), hardware={"num_devices": 2, "micro_batch_size": 2})


def test_a_pipe_gets_a_line_per_logged_point(fit: Train, capsys: pytest.CaptureFixture[str]) -> None:
    fit(rows(8), rows(2, 50), settings={"eval_steps": 2})
    out, err = capsys.readouterr()
    assert out == ""
    lines = [line for line in err.splitlines() if line]
    assert lines[0] == "train: 2 steps of 4 rows"
    assert all(line.startswith("train: ") for line in lines), err
    assert len(lines) == 4
