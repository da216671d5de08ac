"""From scores to figures with their uncertainty: one flat mapping per system, and the comparison of two."""

import math
from collections.abc import Mapping, Sequence
from typing import Protocol

from tuneline.evaluation.likelihood import Likelihood, bits_per_byte, perplexity
from tuneline.evaluation.names import interval_names, score_name
from tuneline.evaluation.statistics import (
    bootstrap_ratio_interval,
    mcnemar_p_value,
    paired_difference_interval,
    wilson_interval,
)
from tuneline.evaluation.tasks.scoring import Score

Metrics = dict[str, float | int]


class Answers(Protocol):
    """One system's answers to the test set; `answering.Answers`, without its torch."""

    @property
    def scores(self) -> Sequence[Score]: ...
    @property
    def likelihoods(self) -> Sequence[Likelihood]: ...


def comparison_metrics(base: Answers, tuned: Answers, confidence: float, seed: int) -> Metrics:
    """Everything about both systems, and what tuning added."""
    metrics: Metrics = {"n_examples": len(base.scores)}
    for name, answers in (("base_", base), ("tuned_", tuned)):
        metrics |= prefixed(name, score_metrics(answers.scores, confidence))
        metrics |= prefixed(name, likelihood_metrics(answers.likelihoods, confidence, seed))
    return metrics | gain_metrics(tuned.scores, base.scores, confidence, seed)


def prefixed(prefix: str, metrics: Mapping[str, float | int]) -> Metrics:
    return {f"{prefix}{name}": value for name, value in metrics.items()}


def score_metrics(scores: Sequence[Score], confidence: float) -> Metrics:
    """`exact_match` and, where the task executes, `execution_accuracy`: fractions with Wilson intervals."""
    metrics = _proportion("exact_match", [score.exact_match for score in scores], confidence)
    executed = [score.execution_match for score in scores if score.execution_match is not None]
    if not executed:
        return metrics
    metrics["error_fraction"] = sum(score.error is not None for score in scores) / len(scores)
    return metrics | _proportion("execution_accuracy", executed, confidence)


def likelihood_metrics(likelihoods: Sequence[Likelihood], confidence: float, seed: int) -> Metrics:
    """Token-weighted `perplexity` with a bootstrap interval over examples, and `bits_per_byte`."""
    low, high = interval_names("perplexity", confidence)
    nlls_nats = [row.nll_nats for row in likelihoods]
    interval = bootstrap_ratio_interval(nlls_nats, [row.n_target_tokens for row in likelihoods], confidence, seed)
    return {
        "perplexity": perplexity(likelihoods),
        low: math.exp(interval[0]),
        high: math.exp(interval[1]),
        "bits_per_byte": bits_per_byte(likelihoods),
    }


def gain_metrics(tuned: Sequence[Score], base: Sequence[Score], confidence: float, seed: int) -> Metrics:
    """What tuning added to the task's own score, paired by example; the p-value is McNemar's exact one."""
    ours, theirs = [score.is_correct for score in tuned], [score.is_correct for score in base]
    name = f"{score_name(score_metrics(tuned, confidence))}_gain"
    low, high = interval_names(name, confidence)
    interval = paired_difference_interval(ours, theirs, confidence, seed)
    return {
        name: (sum(ours) - sum(theirs)) / len(ours),
        low: interval[0],
        high: interval[1],
        f"{name}_p_value": mcnemar_p_value(ours, theirs),
    }


def _proportion(name: str, hits: Sequence[bool], confidence: float) -> Metrics:
    low, high = interval_names(name, confidence)
    interval = wilson_interval(sum(hits), len(hits), confidence)
    return {name: sum(hits) / len(hits), low: interval[0], high: interval[1]}
