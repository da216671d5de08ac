"""Divergence, against numbers worked out by hand."""

import math

import numpy as np
import pytest

from tuneline.export.divergence import Divergence, kl_divergence, log_softmax


def logits(*rows: list[float]) -> "np.typing.NDArray[np.float32]":
    return np.array(rows, dtype=np.float32)


def test_kl_of_two_coins_is_the_textbook_value() -> None:
    """p = (1/2, 1/2), q = (1/4, 3/4): KL = 1/2 ln 2 + 1/2 ln(2/3)."""
    p, q = np.log([[0.5, 0.5]]), np.log([[0.25, 0.75]])
    assert kl_divergence(p, q)[0] == pytest.approx(0.5 * math.log(2) + 0.5 * math.log(2 / 3))
    assert kl_divergence(q, p)[0] == pytest.approx(0.25 * math.log(0.5) + 0.75 * math.log(1.5))


def test_shifting_all_logits_changes_no_probability() -> None:
    values = np.array([[1.0, 2.0, 3.0]])
    assert kl_divergence(values, values + 100)[0] == pytest.approx(0, abs=1e-12)


def test_large_logits_do_not_overflow() -> None:
    assert np.isfinite(log_softmax(np.array([[1e4, -1e4, 0.0]]))).all()


def test_rows_add_up_to_one_figure() -> None:
    divergence = Divergence()
    divergence.add(logits([0, 1], [2, 0]), logits([0, 1], [2, 0]))
    divergence.add(logits([0, 4]), logits([1, 0]))
    metrics = divergence.metrics()
    assert metrics["n_tokens"] == 3
    assert metrics["top1_agreement"] == pytest.approx(2 / 3)
    assert metrics["max_abs_logit_diff"] == 4
    assert metrics["relative_logit_diff"] == 1
    assert metrics["kl_median_nats"] == 0
    assert metrics["kl_mean_nats"] > 0


def test_nan_in_the_logits_is_not_taken_for_agreement() -> None:
    divergence = Divergence()
    divergence.add(logits([0, 1]), logits([math.nan, 1]))
    assert math.isnan(divergence.metrics()["kl_mean_nats"])
    assert math.isnan(divergence.metrics()["max_abs_logit_diff"])


def test_mean_difference_is_over_every_logit() -> None:
    divergence = Divergence()
    divergence.add(logits([0, 1], [2, 0]), logits([0, 2], [5, 0]))
    divergence.add(logits([0, 4]), logits([0, 4]))
    assert divergence.metrics()["mean_abs_logit_diff"] == pytest.approx(4 / 6)
