"""One link verified: what is measured of it, and its answers beside those of the model that it was made from."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tuneline.config.schema import BudgetConfig, EvalTask
from tuneline.data.records import Example
from tuneline.evaluation.heldout import read_heldout
from tuneline.evaluation.metrics import Metrics
from tuneline.evaluation.tasks import make_scorer
from tuneline.export.answers import Judged, loss_metrics, with_reference, write_answers
from tuneline.export.budget import outside_budget
from tuneline.export.verify import Link, Measured, measure
from tuneline.output import write_figures, write_metrics


@dataclass(frozen=True, slots=True)
class Rows:
    """Held-out examples: those whose logits are `compared`, those `asked`, and what the reference answered to these."""

    compared: Sequence[Example]
    asked: Sequence[Example]
    reference: Sequence[Judged]


@dataclass(frozen=True, slots=True)
class Judge:
    """What judges answers; see `make_scorer`. `confidence` is that of the scores' intervals."""

    task: EvalTask
    resources: Path
    statement_timeout_s: float
    confidence: float


@dataclass(frozen=True, slots=True)
class Verified:
    """All that came of it; `judged` are the answers to `asked`."""

    asked: Sequence[Example]
    measured: Measured
    judged: Sequence[Judged]
    metrics: Metrics


def read_rows(test: Path, reference: Path, n_compared: int, n_asked: int | None) -> Rows:
    """So many of the rows in `test` (None: all); asked are those that the model of `reference` was asked too."""
    compared = read_heldout(test, n_compared)
    return Rows(compared, *with_reference(read_heldout(test, n_asked), reference))


def verify_link(
    link: Link, rows: Rows, judge: Judge, budget: BudgetConfig, *, n_ctx: int, max_new_tokens: int
) -> Verified:
    """Measure the link, judge its answers, and say (`within_budget`) whether its figures are within `budget`.

    Raises what `measure` raises; being outside the budget is left to the caller, who may write the figures first.
    """
    # what is wrong with the rows is found before a model is loaded
    scorer = make_scorer(judge.task, rows.asked, judge.resources, judge.statement_timeout_s)
    measured = measure(link, rows.compared, rows.asked, budget, n_ctx, max_new_tokens)
    for name, reason in measured.refused.items():
        print(f"{link.gguf}: the golden conversation {name!r} is not compared: {reason}")
    judged = list(map(Judged, scorer.score(measured.answers), measured.ended))
    metrics = measured.metrics | loss_metrics(judged, rows.reference, judge.confidence)
    metrics |= {"within_budget": int(not outside_budget(metrics, budget))}
    return Verified(rows.asked, measured, judged, metrics)


def write_verified(verified: Verified, predictions: Path, metrics: Path, speed: Path) -> None:
    """The answers, the figures, and those of the clock in a file of their own."""
    write_answers(predictions, verified.asked, verified.measured.answers, verified.judged)
    write_figures(speed, verified.measured.speed)
    write_metrics(metrics, verified.metrics, "n_examples", "n_tokens", "kl_mean_nats", "top1_agreement")
