"""Budgets: what is outside fails, with everything a reader needs in one line."""

import math

import pytest

from tuneline.config.schema import BudgetConfig
from tuneline.errors import BudgetError
from tuneline.export.budget import check_budget

BUDGET = BudgetConfig(kl_mean_nats=0.01, top1_agreement=0.95, execution_accuracy_drop=0.02)
GOOD = {"kl_mean_nats": 0.01, "top1_agreement": 0.95, "execution_accuracy_drop": 0.02, "ended_drop": 0.02}


def test_figures_on_the_edge_pass() -> None:
    check_budget("q8_0", GOOD, BUDGET)


@pytest.mark.parametrize(
    ("figure", "value"),
    [("kl_mean_nats", 0.011), ("top1_agreement", 0.949), ("execution_accuracy_drop", 0.03), ("ended_drop", 0.03)],
)
@pytest.mark.parametrize("broken", ["value", "nan"])
def test_error_names_link_key_figure_budget_and_cause(figure: str, value: float, broken: str) -> None:
    metrics = GOOD | {figure: value if broken == "value" else math.nan}
    with pytest.raises(BudgetError) as caught:
        check_budget("q4_k_m", metrics, BUDGET)
    message = str(caught.value)
    expected = ["merged -> q4_k_m", "export.budgets.q4_k_m", figure, f"{metrics[figure]:.3g}", "usual causes"]
    assert [part for part in expected if part not in message] == []
    assert "\n" not in message


def test_all_figures_outside_are_named_at_once() -> None:
    with pytest.raises(BudgetError, match=r"kl_mean_nats is 1.*; top1_agreement is 0.*; execution_accuracy_drop is 1"):
        check_budget("q2_k", GOOD | {"kl_mean_nats": 1, "top1_agreement": 0, "execution_accuracy_drop": 1}, BUDGET)


def test_task_without_execution_is_held_to_exact_match() -> None:
    metrics = {"kl_mean_nats": 0, "top1_agreement": 1, "exact_match_drop": 0.5, "ended_drop": 0}
    with pytest.raises(BudgetError, match=r"exact_match_drop is 0\.5"):
        check_budget("q8_0", metrics, BUDGET)


def test_gain_of_score_is_no_loss() -> None:
    check_budget("q8_0", GOOD | {"execution_accuracy_drop": -0.1}, BUDGET)
