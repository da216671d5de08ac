"""The evaluation at a glance: scores of base and tuned model with their intervals, and what went wrong."""

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from tuneline.evaluation.statistics import wilson_interval
from tuneline.evaluation.tasks.scoring import Score
from tuneline.output import atomic_file

COLOURS = {"base": "#9aa5b1", "tuned": "#1f77b4"}
BAR = 0.38  # width of a bar, where systems are 1 apart in groups of two


def draw_scores(path: Path, scores: Mapping[str, Sequence[Score]], confidence: float) -> None:
    """Draw a PNG for the scores of each system (`base`, `tuned`) on the same examples."""
    figure = Figure(figsize=(11, 4.2), layout="constrained")
    left, right = figure.subplots(1, 2, width_ratios=(1, 1.25))
    _draw_proportions(left, scores, confidence)
    _draw_outcomes(right, scores)
    with atomic_file(path) as temporary:
        figure.savefig(temporary, format="png", dpi=120, metadata={"Software": None})


def _draw_proportions(axes: Axes, scores: Mapping[str, Sequence[Score]], confidence: float) -> None:
    n = len(next(iter(scores.values())))
    for offset, (system, judged) in zip((-BAR / 2, BAR / 2), scores.items(), strict=True):
        for place, hits in enumerate(_proportions(judged).values()):
            share = sum(hits) / n
            low, high = wilson_interval(sum(hits), n, confidence)
            reach = [[max(share - low, 0)], [max(high - share, 0)]]
            axes.bar(place + offset, share, BAR, yerr=reach, capsize=4, color=COLOURS[system])
            axes.text(place + offset, high + 0.02, f"{share:.1%}", ha="center")
        axes.bar(0, 0, color=COLOURS[system], label=system)
    names = list(_proportions(next(iter(scores.values()))))
    axes.set_xticks(range(len(names)), names)
    axes.set_ylim(0, 1.12)
    axes.set_yticks([0, 0.25, 0.5, 0.75, 1], ["0%", "25%", "50%", "75%", "100%"])
    axes.set_title(f"{n} held-out examples, {confidence:.0%} intervals")
    axes.legend(loc="upper left")
    axes.spines[["top", "right"]].set_visible(False)


def _draw_outcomes(axes: Axes, scores: Mapping[str, Sequence[Score]]) -> None:
    counts = {system: Counter(score.outcome for score in judged) for system, judged in scores.items()}
    outcomes = sorted(set().union(*counts.values()), key=lambda outcome: (outcome != "correct", outcome))
    for offset, (system, count) in zip((-BAR / 2, BAR / 2), counts.items(), strict=True):
        places = [place + offset for place in range(len(outcomes))]
        bars = axes.barh(places, [count[outcome] for outcome in outcomes], BAR, color=COLOURS[system])
        axes.bar_label(bars, padding=3)
    axes.set_yticks(range(len(outcomes)), outcomes)
    axes.invert_yaxis()
    axes.margins(x=0.1)
    axes.set_title("What became of the answers")
    axes.set_xlabel("examples")
    axes.spines[["top", "right"]].set_visible(False)


def _proportions(judged: Sequence[Score]) -> dict[str, list[bool]]:
    executed = [score.execution_match for score in judged if score.execution_match is not None]
    exact = {"exact match": [score.exact_match for score in judged]}
    return {"execution accuracy": executed} | exact if executed else exact
