"""Weights & Biases beside the files in reports/: off by default, offline first, never asking a question."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from tuneline.config.schema import TrackingConfig
from tuneline.errors import EnvironmentProblem


@contextmanager
def tracked_run(tracking: TrackingConfig, name: str, values: Mapping[str, Any]) -> Iterator[list[str]]:
    """Open a W&B run if configured, and yield what `TrainingArguments.report_to` should be.

    Offline runs lie in wandb/ until `wandb sync`. Raises `EnvironmentProblem` for online without a login.
    """
    if tracking.wandb == "disabled":
        yield []
        return
    import wandb

    if tracking.wandb == "online" and wandb.api.api_key is None:
        raise EnvironmentProblem(
            "tracking.wandb: 'online', but this machine is not logged in; run `wandb login`, or choose offline"
        )
    settings = wandb.Settings(silent=True, console="off")
    run = wandb.init(project=tracking.project, name=name, mode=tracking.wandb, config=dict(values), settings=settings)
    try:
        yield ["wandb"]
    finally:
        run.finish()
