"""How far a GGUF may be from the merged model: the figures of one link against export.budgets."""

from collections.abc import Mapping

from tuneline.config.schema import BudgetConfig, GgufType
from tuneline.errors import BudgetError

Figures = Mapping[str, float | int]
_LORA = "lora_on_"


def lora_link(base_type: GgufType) -> str:
    """What the link from the adapter to its own GGUF is called, on a base of this type."""
    return f"{_LORA}{base_type}"


def check_budget(gguf_type: str, metrics: Figures, budget: BudgetConfig) -> None:
    """Raise one `BudgetError` with every figure that is outside: link, figure, budget, usual cause."""
    problems = outside_budget(metrics, budget)
    if problems:
        raise BudgetError(
            f"verify (merged -> {gguf_type}): export.budgets.{gguf_type}: {'; '.join(problems)}; "
            f"{usual_cause(gguf_type)}"
        )


def outside_budget(metrics: Figures, budget: BudgetConfig) -> list[str]:
    """Every figure that is outside, with its limit; empty when all are within."""
    drop = "execution_accuracy_drop" if "execution_accuracy_drop" in metrics else "exact_match_drop"
    return [
        *_far(metrics, budget),
        *_over(drop, "execution_accuracy_drop", metrics, budget.execution_accuracy_drop),
        # an answer that runs on is lost to whoever waits for it, also where the task's score forgives it
        *_over("ended_drop", "execution_accuracy_drop", metrics, budget.execution_accuracy_drop),
    ]


def is_near(metrics: Figures, budget: BudgetConfig) -> bool:
    """Whether the predictions are within the budget, whatever the scores are."""
    return not _far(metrics, budget)


def check_link(
    gguf_type: str, metrics: Figures, budget: BudgetConfig, *, outtype: str, all_within_budget: bool
) -> None:
    """`check_budget` for each type, or for `outtype` only, where the choice among the others is left to figures.

    A 16-bit file that is off means a broken conversion, which no choice of type mends.
    """
    if is_held(gguf_type, outtype, all_within_budget):
        check_budget(gguf_type, metrics, budget)


def is_held(gguf_type: str, outtype: str, all_within_budget: bool) -> bool:
    """Whether a file of this type has to be within its budget: see `check_link`."""
    return all_within_budget or gguf_type == outtype


def _far(metrics: Figures, budget: BudgetConfig) -> list[str]:
    return [
        *_over("kl_mean_nats", "kl_mean_nats", metrics, budget.kl_mean_nats),
        *_under("top1_agreement", metrics, budget.top1_agreement),
    ]


def _over(figure: str, key: str, metrics: Figures, allowed: float) -> list[str]:
    # `not <=`: NaN is outside every budget
    return [] if metrics[figure] <= allowed else [f"{figure} is {metrics[figure]:.3g}, {key} allows {allowed:g}"]


def _under(figure: str, metrics: Figures, needed: float) -> list[str]:
    return [] if metrics[figure] >= needed else [f"{figure} is {metrics[figure]:.3g}, at least {needed:g} is asked"]


def usual_cause(link: str) -> str:
    """What most often puts a file of this type (or the adapter's own GGUF, see `lora_link`) outside its budget."""
    if link.startswith(_LORA):
        return (
            "usual causes: an adapter GGUF with another scale (adapter.lora.alpha / rank) or of an earlier training, a "
            "base GGUF of another model, or a type of the base that is too coarse: set export.lora_base to f16"
        )
    if link in ("f32", "f16", "bf16"):
        return (
            "usual causes: a converter that does not support this architecture fully (it permutes or drops weights), "
            "values beyond float16 (set export.outtype to bf16), or a file that was changed after it was made: `dvc "
            "repro` makes it again"
        )
    return (
        "usual causes: the type is too coarse for so small a model (choose one with more bits), or the f16 file is "
        "already off: see its report first; or this file was changed after it was made, and `dvc repro` makes it again"
    )
