"""The pictures of the data report: drawn for any number of sources and rules, the same bytes for the same figures."""

from collections import Counter
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from matplotlib.image import imread

from tuneline.reporting.clusters import Clusters
from tuneline.reporting.flow import SIDES, Flow
from tuneline.reporting.lengths import bin_edges, no_lengths
from tuneline.reporting.pictures import _ticks, draw_clusters, draw_lengths, draw_rules, draw_sources


def flow(n_sources: int, n_rules: int) -> Flow:
    """Each source: 100 rows read, one taken by every rule, 5 for validation."""
    found = Flow()
    for source in (f"organisation_of_a_long_name/data_set_{n}_$_v2" for n in range(n_sources)):
        found.tallies["ingest"].kept[source] = 100
        found.tallies["clean"].kept[source] = 100 - n_rules
        found.tallies["clean"].rejected.update({(source, f"rule_{n}"): 1 for n in range(n_rules)})
        found.sides["train"][source], found.sides["val"][source] = 95 - n_rules, 5
        found.tallies["split"].kept[source] = 100 - n_rules
    return found


def colours(path: Path) -> tuple[int, tuple[int, int]]:
    """Number of distinct colours, and (width, height)."""
    pixels = (imread(path) * 255).astype(np.uint32)
    height, width, _ = pixels.shape
    return len(np.unique(pixels @ np.array([1, 256, 65536, 0], np.uint32))), (width, height)


@pytest.mark.parametrize(("n_sources", "n_rules"), [(0, 0), (1, 0), (1, 12), (12, 40), (60, 3)])
def test_flows_of_any_size_are_drawn(n_sources: int, n_rules: int, tmp_path: Path) -> None:
    for draw in (draw_rules, draw_sources):
        draw(flow(n_sources, n_rules), tmp_path / "a.png")
        n_colours, (width, height) = colours(tmp_path / "a.png")
        assert n_colours > 20
        assert width >= 900
        assert height < 3 * width  # a page, not a scroll


def test_lengths_and_clusters_are_drawn_with_and_without_rows(tmp_path: Path) -> None:
    lengths = {side: no_lengths() for side in SIDES}
    draw_lengths(lengths, tmp_path / "empty.png")
    lengths["train"]["characters"].update({1: 3, 100_000: 1})
    draw_lengths(lengths, tmp_path / "some.png")
    draw_clusters(Clusters(Counter(), []), tmp_path / "none.png")
    draw_clusters(Clusters(Counter({2: 5, 40_000: 1}), []), tmp_path / "clusters.png")
    assert all(colours(path)[0] > 20 for path in tmp_path.iterdir())
    assert (tmp_path / "empty.png").read_bytes() != (tmp_path / "some.png").read_bytes()


@pytest.mark.parametrize("longest", [8, 60, 300, 2000, 10**5, 10**7])
@pytest.mark.parametrize("first", [0, 5, 9])
def test_panels_of_any_range_have_as_many_ticks_as_fit(first: int, longest: int) -> None:
    edges = bin_edges(longest)
    ticks = _ticks(edges, first)
    assert min(7, len(edges) - first) <= len(ticks) <= 14
    assert len({after - before for before, after in pairwise(ticks)}) <= 1  # evenly


def test_equal_figures_give_equal_bytes_and_other_figures_others(tmp_path: Path) -> None:
    for name, n_rules in (("a", 3), ("b", 3), ("c", 4)):
        draw_rules(flow(2, n_rules), tmp_path / name)
    one, same, other = ((tmp_path / name).read_bytes() for name in "abc")
    assert one == same
    assert one != other


def test_a_picture_holds_no_date_and_no_version(tmp_path: Path) -> None:
    draw_rules(flow(1, 1), tmp_path / "a.png")
    content = (tmp_path / "a.png").read_bytes()
    assert b"tEXt" not in content
    assert b"tIME" not in content
    assert b"matplotlib" not in content.lower()
