"""The pictures of the data report: where rows went, how long they are, what sources they are from, their copies.

Drawn to be read 900 pixels wide, for one source as well as for many with long names. The bytes depend on the figures
alone.
"""

from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING

from tuneline.reporting.clusters import Clusters
from tuneline.reporting.flow import SIDES, Flow, Side, Step
from tuneline.reporting.lengths import UNITS, LengthCounts, Unit, bin_edges, in_bins, quantile
from tuneline.reporting.showing import escaped

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_TOTAL_COLOUR = "#4c6a92"
_STAGE_COLOURS = {"ingest": "#b5485d", "clean": "#e08e45", "split": "#8c97a3"}
_SIDE_COLOURS: dict[Side, str] = {"train": "#1f77b4", "val": "#e08e45", "test": "#4f9d69"}
_GONE_COLOUR = "#d4d9df"
_WIDTH_INCHES, _DPI = 9.0, 150
_BAR_INCHES = 0.34
_NAME_CHARS = 36  # of a source or rule; longer ones keep both ends
_MOST_BARS = 24  # more would be no picture any more: the smallest ones share a bar
_MOST_TICKS = 14


def draw_rules(flow: Flow, path: Path) -> None:
    """Waterfall from the rows read, over every rule that took some, to the training rows."""
    steps = _fewer(list(flow.steps()))
    names = ["rows read", *(f"{step.stage}: {step.name}" for step in steps), "training rows"]
    figure, axes = _bars(names, "Where the rows went: from all rows read to the training rows")
    highest = left = flow.n_read
    for place, step in enumerate(steps, 1):
        axes.barh(place, step.change, left=left, color=_STAGE_COLOURS[step.stage], height=0.7)
        left += step.change
        highest = max(highest, left)
        _label(axes, place, max(left, left - step.change), f"{_signed(step.change)}{_share(step.change, flow.n_read)}")
    axes.barh([0, len(names) - 1], [flow.n_read, left], color=_TOTAL_COLOUR, height=0.7)
    _label(axes, 0, flow.n_read, f"{flow.n_read:,}")
    _label(axes, len(names) - 1, left, f"{left:,}{_share(left, flow.n_read)}")
    _set_scale(axes, highest)
    _save(figure, path)


def draw_sources(flow: Flow, path: Path) -> None:
    """For every source its rows by side, and in grey those that were read but are on no side."""
    rows = list(flow.source_rows())
    named = sorted(rows, key=lambda row: (-max(row.n_read, row.n_on_sides), row.source))[:_MOST_BARS]
    which = f" (the largest {len(named)} of {len(rows)})" if len(named) < len(rows) else ""
    figure, axes = _bars([row.source for row in named], f"Rows by source{which}: those used, from those read")
    longest = 0
    for place, row in enumerate(named):
        left = 0
        for side in SIDES:
            axes.barh(place, row.on_side[side], left=left, color=_SIDE_COLOURS[side], height=0.7)
            left += row.on_side[side]
        axes.barh(place, max(row.n_read - left, 0), left=left, color=_GONE_COLOUR, height=0.7)
        longest = max(longest, row.n_read, left)
        _label(axes, place, max(row.n_read, left), f"{left:,} from {row.n_read:,}")
    _set_scale(axes, longest)
    _legend(figure, [*_SIDE_COLOURS.items(), ("rejected, or on no side", _GONE_COLOUR)])
    _save(figure, path)


def draw_lengths(lengths: dict[Side, LengthCounts], path: Path) -> None:
    """A histogram for each unit, in shares of the side, so that sides of different size can be compared."""
    figure = _figure(8.4)
    for axes, unit in zip(figure.subplots(len(UNITS), 1), UNITS, strict=True):
        _draw_histogram(axes, {side: lengths[side][unit] for side in SIDES}, unit)
    figure.suptitle("Lengths of rows")
    _legend(figure, list(_SIDE_COLOURS.items()))
    _save(figure, path)


def draw_clusters(clusters: Clusters, path: Path) -> None:
    """Clusters of copies by their size, in ranges of sizes."""
    edges = bin_edges(max(clusters.sizes, default=0))
    counts = zip(pairwise(edges), in_bins(clusters.sizes, edges), strict=True)
    ranges = [(_range(low, end), n) for (low, end), n in counts if n]
    n_copies = clusters.metrics()["duplicates_n_copies"]
    title = f"Clusters of copies: of their rows {clusters.sizes.total():,} were kept, {n_copies:,} rejected"
    figure, axes = _bars([f"{size} rows" for size, _ in ranges], title)
    for place, (_, n) in enumerate(ranges):
        axes.barh(place, n, color=_TOTAL_COLOUR, height=0.7)
        _label(axes, place, n, f"{n:,}")
    axes.set(xlabel="clusters", ylabel="size of the cluster")
    _set_scale(axes, max((n for _, n in ranges), default=0))
    _save(figure, path)


def _draw_histogram(axes: "Axes", counts: dict[Side, dict[int, int]], unit: Unit) -> None:
    present = {side: found for side, found in counts.items() if found}
    longest = max((max(found) for found in present.values()), default=0)
    edges = bin_edges(longest)
    first = max(sum(edge <= min(map(min, present.values()), default=0) for edge in edges) - 1, 0)
    for side, found in present.items():
        shares = [n / sum(found.values()) for n in in_bins(found, edges)]
        axes.stairs(shares, range(len(edges)), color=_SIDE_COLOURS[side], linewidth=1.8)
        if side == "train":
            axes.stairs(shares, range(len(edges)), color=_SIDE_COLOURS[side], fill=True, alpha=0.2)
    axes.set_xlim(first, len(edges) - 1)
    ticks = _ticks(edges, first)
    axes.set_xticks(ticks, [_short(edges[tick]) for tick in ticks])
    medians = ", ".join(f"{side} {quantile(found, 0.5):,}" for side, found in present.items())
    axes.set_title(f"{unit}: median {medians}; longest {longest:,}" if present else unit, fontsize=10)
    axes.set(xlabel=f"{unit} per row", ylabel="share of the rows")
    axes.yaxis.set_major_formatter(lambda share, _: f"{100 * share:.3g}%")
    axes.spines[["top", "right"]].set_visible(False)


def _ticks(edges: Sequence[int], first: int) -> list[int]:
    """Places of the edges to be named, from `first` on: each, or each 2nd, 4th (a doubling), 8th from 0 on."""
    step = 1
    while len(places := [place for place in range(first, len(edges)) if place % step == 0]) > _MOST_TICKS:
        step *= 2
    return places


def _fewer(steps: list[Step]) -> list[Step]:
    """The steps, of each stage only the largest ones where there are too many."""
    if len(steps) <= _MOST_BARS:
        return steps
    largest = sorted(steps, key=lambda step: -abs(step.change))[:_MOST_BARS]
    kept: list[Step] = []
    for stage in _STAGE_COLOURS:
        kept += [step for step in steps if step.stage == stage and step in largest]
        rest = [step.change for step in steps if step.stage == stage and step not in largest]
        kept += [Step(f"{len(rest)} others", stage, sum(rest))] if rest else []
    return kept


def _figure(height_inches: float) -> "Figure":
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(_WIDTH_INCHES, height_inches), layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def _bars(names: Sequence[str], title: str) -> tuple["Figure", "Axes"]:
    """Room for a horizontal bar for each name, the first one on top."""
    figure = _figure(1.4 + _BAR_INCHES * max(len(names), 2))
    axes = figure.subplots()
    axes.set_yticks(range(len(names)), [_name(name) for name in names])
    axes.set_ylim(max(len(names), 2) - 0.4, -0.6)
    axes.set_xlabel("rows")
    axes.spines[["top", "right"]].set_visible(False)
    if not names:
        axes.text(0.5, 0.5, "none", ha="center", transform=axes.transAxes)
    figure.suptitle(title)  # over the names too: a title over the bars alone would not fit beside long names
    return figure, axes


def _set_scale(axes: "Axes", longest: int) -> None:
    from matplotlib.ticker import MaxNLocator

    axes.set_xlim(0, max(longest, 1) * 1.2)  # room for the label behind the longest bar
    axes.xaxis.set_major_formatter(lambda n_rows, _: f"{n_rows:,.0f}")
    axes.xaxis.set_major_locator(MaxNLocator(6, integer=True))


def _label(axes: "Axes", place: int, end: int, text: str) -> None:
    axes.annotate(text, (end, place), (4, 0), textcoords="offset points", va="center", fontsize=9)


def _legend(figure: "Figure", entries: Sequence[tuple[str, str]]) -> None:
    from matplotlib.patches import Patch

    patches = [Patch(color=colour, label=name) for name, colour in entries]
    figure.legend(handles=patches, loc="outside lower center", ncols=len(entries), frameon=False)


def _signed(change: int) -> str:
    return f"{change:+,}".replace("-", "−")


def _share(n_rows: int, n_all: int) -> str:
    return f" ({abs(n_rows) / n_all:.1%})" if n_all else ""


def _name(name: str) -> str:
    """Without a `$`, which would begin a formula; long names keep both ends, where they differ."""
    name = escaped(name).replace("$", r"\$")
    if len(name) <= _NAME_CHARS:
        return name
    return f"{name[: _NAME_CHARS // 2]}…{name[1 - _NAME_CHARS // 2 :]}"


def _short(number: int) -> str:
    """1,536 as it is, 24576 as 25k."""
    for limit, unit in ((10_000_000, "M"), (10_000, "k")):
        if number >= limit:
            return f"{number / (limit / 10):.0f}{unit}"
    return f"{number:,}"


def _range(low: int, end: int) -> str:
    return f"{low:,}" if end == low + 1 else f"{_short(low)}–{_short(end - 1)}"


def _save(figure: "Figure", path: Path) -> None:
    # Software: matplotlib would write its version, and the picture would differ without the data differing
    figure.savefig(path, format="png", dpi=_DPI, metadata={"Software": None})
