"""Curves, by hand. No torch; only the picture is slow (matplotlib)."""

import json
import math
from pathlib import Path
from typing import Any

import pytest

from tuneline.errors import DataError
from tuneline.training.curves import curve, curve_csv, curve_metrics, draw_curve, read_log

HISTORY = [
    {"step": 1, "epoch": 0.1, "loss": 3.0, "grad_norm": 2.0, "learning_rate": 0.001},
    {"step": 2, "epoch": 0.2, "loss": 2.5, "grad_norm": 1.5, "learning_rate": 0.002},
    {"step": 2, "epoch": 0.2, "eval_loss": 2.0, "perplexity": 7.38906},
    {"step": 4, "epoch": 0.4, "eval_loss": 2.25, "perplexity": 9.48774},
]


def log(**changed: Any) -> dict[str, Any]:
    return {"log_history": HISTORY, "kept_step": 4, "n_steps": 4, "n_train_tokens": 100, **changed}


def test_what_is_logged_and_validated_at_one_step_is_one_row() -> None:
    assert curve_csv(curve(HISTORY)) == (
        "step,loss,eval_loss,perplexity,learning_rate,grad_norm\n"
        "1,3.0,,,0.001,2.0\n"
        "2,2.5,2.0,7.38906,0.002,1.5\n"
        "4,,2.25,9.48774,,\n"
    )


def test_metrics_are_those_of_the_weights_that_were_kept() -> None:
    assert curve_metrics(log()) == {
        "kept_step": 4,
        "n_steps": 4,
        "n_train_tokens": 100,
        "train_loss_nats": 2.5,
        "val_loss_nats": 2.25,
        "val_perplexity": math.exp(2.25),
        "best_step": 2,
    }
    assert curve_metrics(log(kept_step=2))["val_loss_nats"] == 2.0


def test_a_loss_whose_exponential_overflows_still_gives_a_finite_perplexity() -> None:
    history = [{"step": 1, "loss": 900.0}, {"step": 1, "eval_loss": 900.0}]
    metrics = curve_metrics(log(log_history=history, kept_step=1))
    assert metrics["val_loss_nats"] == 900.0
    assert metrics["val_perplexity"] == pytest.approx(1.014e304, rel=1e-3)


def test_without_validation_there_are_no_val_metrics() -> None:
    metrics = curve_metrics(log(log_history=HISTORY[:2]))
    assert [key for key in metrics if key.startswith("val_") or key == "best_step"] == []


@pytest.mark.slow
def test_the_picture_is_the_same_bytes_for_the_same_curve(tmp_path: Path) -> None:
    for name in ("a.png", "b.png"):
        draw_curve(curve(HISTORY), tmp_path / name, "Phase sft")
    pictures = [(tmp_path / name).read_bytes() for name in ("a.png", "b.png")]
    assert pictures[0] == pictures[1]
    assert pictures[0].startswith(b"\x89PNG")
    assert b"Software" not in pictures[0]


@pytest.mark.parametrize("text", ["", "[]", "{}", json.dumps({"log_history": 3})])
def test_a_file_that_is_no_log_is_named(tmp_path: Path, text: str) -> None:
    path = tmp_path / "sft.json"
    path.write_text(text)
    with pytest.raises(DataError, match=r"sft.json: not a training log"):
        read_log(path)
