"""Quality against size: which file is worth its bytes, and how far each is from its budget."""

from collections.abc import Sequence
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from tuneline.evaluation.names import interval_names
from tuneline.export.chain import Link, score_of
from tuneline.output import atomic_file

POINT, OUTSIDE, BUDGET, LINE = "#1f77b4", "#b5485d", "#e08e45", "#9aa5b1"


def draw_chain(path: Path, links: Sequence[Link], confidence: float) -> None:
    """Draw a PNG of the GGUFs among `links`: divergence and score, each over the size of the file."""
    files = sorted((link for link in links if link.budget is not None), key=lambda link: link.figures["size_mib"])
    figure = Figure(figsize=(11, 4.2), layout="constrained")
    left, right = figure.subplots(1, 2)
    _draw_divergence(left, files)
    _draw_score(right, links, files, confidence)
    for axes in (left, right):
        axes.set_xlabel("size of the file, MiB")
        axes.margins(x=0.18, y=0.16)
        axes.spines[["top", "right"]].set_visible(False)
    with atomic_file(path) as temporary:
        figure.savefig(temporary, format="png", dpi=120, metadata={"Software": None})


def pareto(files: Sequence[Link]) -> list[Link]:
    """Of `files`, smallest first, those that no smaller one equals or beats in divergence."""
    best: list[Link] = []
    for link in files:
        if not best or link.figures["kl_mean_nats"] < best[-1].figures["kl_mean_nats"]:
            best.append(link)
    return best


def _draw_divergence(axes: Axes, files: Sequence[Link]) -> None:
    front = pareto(files)
    axes.plot(_sizes(front), [link.figures["kl_mean_nats"] for link in front], color=LINE, zorder=1, label="Pareto")
    for link in files:
        size, divergence = link.figures["size_mib"], link.figures["kl_mean_nats"]
        assert link.budget is not None
        axes.scatter(size, divergence, color=_colour(link), zorder=3)
        axes.scatter(size, link.budget.kl_mean_nats, color=BUDGET, marker="_", s=320, linewidths=2, zorder=2)
        axes.annotate(link.name, (size, divergence), (8, 5), textcoords="offset points")
    axes.scatter([], [], color=BUDGET, marker="_", s=160, linewidths=2, label="budget: at most")
    axes.set_yscale("log")
    axes.set_title("KL divergence from the merged model, nats per token")
    axes.legend(loc="upper right")


def _draw_score(axes: Axes, links: Sequence[Link], files: Sequence[Link], confidence: float) -> None:
    score = score_of(links)
    low_name, high_name = interval_names(score, confidence)
    found = {link.name: link.figures[score] for link in links if score in link.figures}
    axes.axhline(found["merged"], color=LINE, linestyle="--", label="merged model")
    for link in files:
        size, share, low, high = (link.figures[name] for name in ("size_mib", score, low_name, high_name))
        assert link.budget is not None
        reach = [[max(share - low, 0)], [max(high - share, 0)]]
        axes.errorbar(size, share, yerr=reach, fmt="o", capsize=4, color=_colour(link), zorder=3)
        allowed = found[link.source] - link.budget.execution_accuracy_drop
        axes.scatter(size, allowed, color=BUDGET, marker="_", s=320, linewidths=2, zorder=4)
        axes.annotate(f"{link.name}\n{share:.1%}", (size, high), (0, 5), textcoords="offset points", ha="center")
    axes.scatter([], [], color=BUDGET, marker="_", s=160, linewidths=2, label="budget: at least")
    axes.yaxis.set_major_formatter(lambda value, _: f"{value:.0%}")
    axes.set_title(f"{score.replace('_', ' ')}, {confidence:.0%} intervals")
    axes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.14), ncols=2, frameon=False)


def _sizes(links: Sequence[Link]) -> list[float]:
    return [link.figures["size_mib"] for link in links]


def _colour(link: Link) -> str:
    return OUTSIDE if link.problems else POINT
