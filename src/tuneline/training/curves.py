"""The loss curve of a phase: as CSV, as a picture, and its last word as metrics."""

import csv
import io
import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tuneline.errors import DataError

COLUMNS = ("step", "loss", "eval_loss", "perplexity", "learning_rate", "grad_norm")
MAX_EXPONENT_NATS = 700.0  # math.exp overflows a little above
Curve = list[dict[str, float | int]]


def read_log(path: Path) -> dict[str, Any]:
    """Read what the train stage wrote to --log. Raises `DataError` when it is no such file."""
    try:
        log = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise DataError(f"{path}: not a training log ({error}); make it with the train stage") from error
    if not isinstance(log, dict) or not isinstance(log.get("log_history"), list):
        raise DataError(f"{path}: not a training log (no log_history); make it with the train stage")
    return log


def curve(log_history: Sequence[Mapping[str, float | int]]) -> Curve:
    """One point per step, in order: what was logged and validated at the same step is put together."""
    points: dict[int, dict[str, float | int]] = {}
    for entry in log_history:
        point = points.setdefault(int(entry["step"]), {})
        point.update({key: entry[key] for key in COLUMNS if key in entry})
    return [points[step] for step in sorted(points)]


def curve_csv(points: Curve) -> str:
    """CSV with `COLUMNS`; a cell is empty where nothing was measured at that step."""
    text = io.StringIO()
    writer = csv.DictWriter(text, COLUMNS, restval="", lineterminator="\n")
    writer.writeheader()
    writer.writerows(points)
    return text.getvalue()


def curve_metrics(log: Mapping[str, Any]) -> dict[str, float | int]:
    """The last training loss, the validation loss of the weights that were kept, and what was trained.

    No `val_*` where there were no validation rows. The perplexity of a loss beyond 700 nats is that of 700.
    """
    points = curve(log["log_history"])
    train_losses = [point["loss"] for point in points if "loss" in point]
    val_losses = {point["step"]: point["eval_loss"] for point in points if "eval_loss" in point}
    metrics = {key: value for key, value in log.items() if key != "log_history"}
    metrics["train_loss_nats"] = train_losses[-1]
    if val_losses:
        kept = val_losses[log["kept_step"]]
        metrics |= {
            "val_loss_nats": kept,
            "val_perplexity": math.exp(min(kept, MAX_EXPONENT_NATS)),
            "best_step": min(val_losses, key=lambda step: (val_losses[step], step)),
        }
    return metrics


def draw_curve(points: Curve, path: Path, title: str) -> None:
    """Loss over steps on the left, learning rate and gradient norm on the right, as PNG."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10, 4), layout="constrained")
    FigureCanvasAgg(figure)
    loss, pace = figure.subplots(1, 2, width_ratios=(2, 1))
    loss.plot(*_series(points, "loss"), color="tab:blue", marker=".", linewidth=1.2, label="training")
    loss.plot(*_series(points, "eval_loss"), color="tab:orange", marker="o", markersize=4, label="validation")
    loss.set(title=title, xlabel="optimizer step", ylabel="loss (nats per token)")
    loss.grid(alpha=0.3)
    loss.legend()
    pace.plot(*_series(points, "learning_rate"), color="tab:green", marker=".")
    pace.set(xlabel="optimizer step")
    pace.set_ylabel("learning rate", color="tab:green")
    norm = pace.twinx()
    norm.plot(*_series(points, "grad_norm"), color="tab:gray", marker=".", linewidth=0.8)
    norm.set_ylabel("gradient norm", color="tab:gray")
    # Software: matplotlib would write its version, and the picture would differ without the curve differing
    figure.savefig(path, format="png", dpi=110, metadata={"Software": None})


def _series(points: Curve, key: str) -> tuple[list[float | int], list[float | int]]:
    present = [point for point in points if key in point]
    return [point["step"] for point in present], [point[key] for point in present]
