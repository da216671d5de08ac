"""The chain of training phases."""

from collections.abc import Mapping
from typing import Annotated, Literal

from pydantic import Field

from tuneline.config.schema.section import Name, Positive, RepoPath, Strict

Objective = Literal["sft", "pretrain"]


class PhaseConfig(Strict):
    """One training stage of the recipe."""

    objective: Objective  # which rows are used: sft: conversations, pretrain: raw text
    init: RepoPath  # model.tracked_path, or models/phase/<an earlier phase>
    num_train_epochs: Positive  # passes over the training rows
    max_steps: int  # optimizer steps; -1: num_train_epochs decides
    learning_rate: Positive  # peak, after warm-up
    max_length: Annotated[int, Field(ge=8)]  # tokens per example, or per packed row
    packing: bool  # several examples share one row


Phases = Annotated[Mapping[Name, PhaseConfig], Field(min_length=1)]


class RecipeConfig(Strict):
    """A chain of training phases."""

    name: Name
    final: Name  # the phase whose model is evaluated, merged and shipped
    phases: Phases  # in order; each is a DVC stage of its own
