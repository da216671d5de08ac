"""Which of the verified types is packaged."""

from collections.abc import Mapping, Sequence

from tuneline.config.schema import BudgetConfig, GgufType, Pick
from tuneline.errors import BudgetError
from tuneline.export.budget import Figures, outside_budget


def pick(
    wanted: Pick,
    verified: Sequence[GgufType],
    figures: Mapping[str, Figures],
    budgets: Mapping[GgufType, BudgetConfig],
) -> GgufType:
    """`wanted`, or the smallest file of `verified` whose figures are within its budget; of equal ones the first.

    Only `verified` counts, whatever other files and reports an earlier list left behind. Raises `BudgetError` saying
    for each type what is outside when none is within.
    """
    match wanted:
        case "smallest_within_budget":
            return _smallest(verified, figures, budgets)
        case named:
            return named


def _smallest(
    verified: Sequence[GgufType], figures: Mapping[str, Figures], budgets: Mapping[GgufType, BudgetConfig]
) -> GgufType:
    problems = {name: outside_budget(figures[name], budgets[name]) for name in verified}
    within = [name for name in verified if not problems[name]]
    if not within:
        told = "; ".join(f"{name}: {', '.join(found)}" for name, found in problems.items())
        raise BudgetError(f"export.pick: no type is within export.budgets: {told}; add a type with more bits")
    return min(within, key=lambda name: figures[name]["size_mib"])
