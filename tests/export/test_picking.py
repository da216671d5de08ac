"""What is packaged: the named type, or the smallest that measured well enough. Imports no torch."""

import subprocess
import sys

import pytest

from tuneline.config.schema import BudgetConfig, GgufType
from tuneline.errors import BudgetError
from tuneline.export.budget import check_link
from tuneline.export.picking import pick

BUDGET = BudgetConfig(kl_mean_nats=0.01, top1_agreement=0.95, execution_accuracy_drop=0.02)
VERIFIED: tuple[GgufType, ...] = ("f16", "q8_0", "q4_k_m")
BUDGETS: dict[GgufType, BudgetConfig] = {"f16": BUDGET, "q8_0": BUDGET, "q4_k_m": BUDGET, "q2_k": BUDGET}


def figures(size_mib: float, kl: float = 0.0) -> dict[str, float]:
    losses = {"execution_accuracy_drop": 0.0, "ended_drop": 0.0}
    return {"size_mib": size_mib, "kl_mean_nats": kl, "top1_agreement": 1.0, **losses}


FIGURES = {"f16": figures(16), "q8_0": figures(8), "q4_k_m": figures(4, kl=0.02), "q2_k": figures(2)}


def test_the_smallest_within_its_budget_is_picked_and_a_stale_smaller_one_is_not() -> None:
    assert pick("smallest_within_budget", VERIFIED, FIGURES, BUDGETS) == "q8_0"
    assert pick("smallest_within_budget", VERIFIED, FIGURES | {"q4_k_m": figures(4)}, BUDGETS) == "q4_k_m"


def test_size_decides_and_not_the_order_of_the_list() -> None:
    assert pick("smallest_within_budget", ("q8_0", "f16"), FIGURES, BUDGETS) == "q8_0"


def test_a_named_type_is_what_is_picked() -> None:
    assert pick("f16", VERIFIED, FIGURES, BUDGETS) == "f16"


def test_none_within_its_budget_says_for_each_type_what_is_outside() -> None:
    off: dict[str, dict[str, float]] = {name: figures(1, kl=0.5) for name in VERIFIED}
    with pytest.raises(BudgetError, match=r"f16: kl_mean_nats is 0\.5.*; q8_0: kl.*; q4_k_m: kl.*; add") as caught:
        pick("smallest_within_budget", VERIFIED, off, BUDGETS)
    assert "\n" not in str(caught.value)


def test_with_a_choice_by_figures_only_the_outtype_must_hold() -> None:
    off = figures(4, kl=0.5)
    check_link("q4_k_m", off, BUDGET, outtype="f16", all_within_budget=False)
    with pytest.raises(BudgetError, match=r"merged -> f16"):
        check_link("f16", off, BUDGET, outtype="f16", all_within_budget=False)
    with pytest.raises(BudgetError, match=r"merged -> q4_k_m"):
        check_link("q4_k_m", off, BUDGET, outtype="f16", all_within_budget=True)


def test_choosing_imports_no_torch_and_no_llama_cpp() -> None:
    program = "import sys, tuneline.export.picking, tuneline.export.llama_cpp as own; " + (
        "print([name for name in ('torch', 'transformers', 'llama_cpp') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
