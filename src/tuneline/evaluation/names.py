"""Names of metrics that more than one room uses."""

from collections.abc import Container


def interval_names(score: str, confidence: float) -> tuple[str, str]:
    """Metric names that say the level: `exact_match` at 0.95 gives `exact_match_ci95_low` and `..._high`."""
    level = f"{100 * confidence:g}".replace(".", "_")  # a dot in a metric's name would nest it for DVC
    return f"{score}_ci{level}_low", f"{score}_ci{level}_high"


def score_name(measured: Container[str]) -> str:
    """The metric that the task is held to, of those measured: execution where it executes answers, else the text."""
    return "execution_accuracy" if "execution_accuracy" in measured else "exact_match"
