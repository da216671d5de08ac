"""Adapter and base as one model, before that several of them as one."""

from typing import Annotated, Literal

from pydantic import Field

from tuneline.config.schema.method import Family
from tuneline.config.schema.section import Count, Dtype, Positive, RepoPath, Strict

# PEFT's names of ways to combine adapters, and those of ways to combine whole models.
AdapterCombination = Literal["cat", "linear", "svd", "ties", "dare_linear", "dare_ties", "magnitude_prune"]
ModelCombination = Literal["linear", "slerp", "ties", "dare_ties", "task_arithmetic"]
MajoritySign = Literal["total", "frequency"]


class CombineSourceConfig(Strict):
    """One of the trained things that are combined."""

    path: RepoPath  # a phase's output, or a folder in merge.tracked_path
    weight: float  # of it in the combination; negative takes away what it learned


class CombineConfig(Strict):
    """Several adapters or whole models become one."""

    family: Family  # of every source: adapter: through PEFT; full: whole models
    combination_type: AdapterCombination | ModelCombination
    sources: Annotated[tuple[CombineSourceConfig, ...], Field(strict=False, min_length=2)]
    density: Annotated[float, Field(gt=0, le=1)] | None  # share of each difference from the base that is kept
    majority_sign_method: MajoritySign | None  # how ties elects a sign: by mass, or by votes
    svd_rank: Count | None  # rank of the adapter that svd gives; null: the sources' largest


class MergeConfig(Strict):
    """Adapter and base as one model, before that several of them as one."""

    tuned: RepoPath  # what is evaluated and merged: the final phase's folder, or models/combined
    tracked_path: RepoPath  # what DVC watches besides the final phase, when combining
    stages: Annotated[tuple[Literal["combined"], ...], Field(strict=False)]  # none: nothing is combined
    combine: CombineConfig | None  # null: nothing is combined
    dtype: Dtype  # of the merged weights on disk
    check_examples: Count  # held-out rows on which logits are compared before and after
    max_relative_logit_diff: Positive  # fraction of the largest |logit|
