"""Experiment tracking outside DVC."""

from typing import Literal

from tuneline.config.schema.section import Strict, Text


class TrackingConfig(Strict):
    """Experiment tracking outside DVC."""

    wandb: Literal["disabled", "offline", "online"]
    project: Text  # W&B project
