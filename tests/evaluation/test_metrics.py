"""Every score has its interval, and the gain is paired."""

from pathlib import Path

import pytest

from tuneline.evaluation.likelihood import Likelihood
from tuneline.evaluation.metrics import gain_metrics, likelihood_metrics, prefixed, score_metrics
from tuneline.evaluation.picture import draw_scores
from tuneline.evaluation.tasks.scoring import Score

RIGHT, LIKE = Score(True, True, None), Score(False, True, None)
WRONG, BROKEN = Score(False, False, None), Score(False, False, "syntax error: near FRM")


def test_scores_are_fractions_with_wilson_intervals() -> None:
    # Newcombe 1998, table I, method 3: 15 of 148
    metrics = score_metrics([RIGHT] * 10 + [LIKE] * 5 + [WRONG] * 96 + [BROKEN] * 37, 0.95)
    assert metrics["execution_accuracy"] == pytest.approx(15 / 148)
    assert metrics["execution_accuracy_ci95_low"] == pytest.approx(0.0624, abs=5e-5)
    assert metrics["execution_accuracy_ci95_high"] == pytest.approx(0.1605, abs=5e-5)
    assert metrics["exact_match"] == pytest.approx(10 / 148)
    assert metrics["error_fraction"] == 0.25


def test_a_task_that_executes_nothing_has_no_execution_accuracy() -> None:
    metrics = score_metrics([Score(True, None, None), Score(False, None, None)], 0.9)
    assert sorted(metrics) == ["exact_match", "exact_match_ci90_high", "exact_match_ci90_low"]


def test_gain_is_paired_by_example() -> None:
    # 7 examples only the tuned model has right, 1 only the base: p = 2 (C(8,0) + C(8,1)) / 2^8
    tuned = [RIGHT] * 7 + [WRONG] + [RIGHT] * 12
    base = [WRONG] * 7 + [RIGHT] + [RIGHT] * 12
    metrics = gain_metrics(tuned, base, 0.95, seed=1)
    assert metrics["execution_accuracy_gain"] == pytest.approx(6 / 20)
    assert metrics["execution_accuracy_gain_p_value"] == pytest.approx(18 / 256)
    assert metrics["execution_accuracy_gain_ci95_low"] < 0.3 < metrics["execution_accuracy_gain_ci95_high"]


def test_perplexity_lies_in_its_interval() -> None:
    metrics = likelihood_metrics([Likelihood(nll, 4, 8) for nll in (1.0, 2.0, 3.0, 6.0)], 0.95, seed=1)
    assert metrics["perplexity_ci95_low"] < metrics["perplexity"] < metrics["perplexity_ci95_high"]


def test_prefixes_keep_two_systems_apart() -> None:
    assert prefixed("base_", {"exact_match": 0.5}) == {"base_exact_match": 0.5}


@pytest.mark.slow
@pytest.mark.parametrize("tuned", [[RIGHT, LIKE, WRONG], [Score(True, None, None)] * 3])
def test_the_picture_is_drawn_for_every_task_and_the_same_each_time(tmp_path: Path, tuned: list[Score]) -> None:
    base = [Score(False, score.execution_match and False, None) for score in tuned]
    for name in ("one.png", "two.png"):
        draw_scores(tmp_path / name, {"base": base, "tuned": tuned}, 0.95)
    assert (tmp_path / "one.png").read_bytes() == (tmp_path / "two.png").read_bytes()
