"""The formulas of combining, against numbers worked out by hand."""

import math
from functools import partial
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from torch import Tensor

pytestmark = pytest.mark.slow


def blocks(tensor: "Tensor", n_rows: int) -> "list[Tensor]":
    """As a long tensor is read."""
    return [tensor[start : start + n_rows] for start in range(0, len(tensor), n_rows)]


def vector(*values: float) -> "Tensor":
    import torch

    return torch.tensor(values, dtype=torch.float32)


def test_linear_is_the_weighted_average() -> None:
    from tuneline.export.formulas import linear

    assert linear([vector(1, 2), vector(5, -2)], [1, 3]).tolist() == [4.0, -1.0]


def slerp(x: "Tensor", y: "Tensor", t: float) -> "Tensor":
    from tuneline.export.formulas import arc_shares, weighted_sum

    return weighted_sum([x, y], arc_shares(zip(blocks(x, 1), blocks(y, 1), strict=True), t))


def test_slerp_halfway_between_two_axes_is_on_the_arc() -> None:
    assert slerp(vector(1, 0), vector(0, 1), 0.5).tolist() == pytest.approx([math.sqrt(0.5)] * 2)
    third = slerp(vector(1, 0), vector(0, 1), 1 / 3).tolist()
    assert third == pytest.approx([math.cos(math.pi / 6), math.sin(math.pi / 6)])


def test_slerp_ends_are_the_two_tensors_and_parallel_or_zero_ones_are_averaged() -> None:
    x, y = vector(0.3, -1.7, 2.2), vector(1.1, 0.4, -0.9)
    assert slerp(x, y, 0).tolist() == x.tolist()
    assert slerp(x, y, 1).tolist() == y.tolist()
    assert slerp(x, 3 * x, 0.5).tolist() == pytest.approx((2 * x).tolist())
    assert slerp(vector(0, 0), vector(2, 4), 0.5).tolist() == [1.0, 2.0]


def test_task_arithmetic_adds_and_takes_away_what_was_learned() -> None:
    from tuneline.export.formulas import task_arithmetic

    assert task_arithmetic(vector(1, 1), [vector(2, 0), vector(4, 8)], [1.0, -0.5]).tolist() == [1.0, -3.0]


def test_ties_trims_elects_the_sign_and_averages_those_that_agree() -> None:
    from tuneline.export.formulas import least_kept, ties

    # density 0.5 keeps [4, 3, 0, 0] and [-6, 0, 2, 0]; elected signs - + + 0
    taus = [vector(4, 3, 1, -1), vector(-6, 1, 2, 0.5)]
    least = [least_kept(partial(blocks, tau, 1), 2) for tau in taus]
    assert least == [3.0, 2.0]
    assert ties(vector(1, 1, 1, 1), taus, [1, 1], least, "total").tolist() == [-5.0, 4.0, 3.0, 1.0]


@pytest.mark.parametrize("n_kept", [1, 2, 17, 500, 1000])
def test_the_least_magnitude_kept_is_the_one_that_sorting_gives(n_kept: int) -> None:
    import torch

    from tuneline.export.formulas import least_kept

    values = torch.randn(1000, generator=torch.Generator().manual_seed(n_kept)) * torch.logspace(-30, 30, 1000)
    values[::7] = 0
    expected = values.abs().sort(descending=True).values[n_kept - 1]
    assert least_kept(partial(blocks, values, 77), n_kept) == float(expected)
    assert least_kept(partial(blocks, values, 77), 0) == math.inf


def test_sign_is_elected_by_mass_or_by_votes() -> None:
    from tuneline.export.formulas import disjoint_mean

    taus = [vector(-9.0), vector(2.0), vector(4.0)]
    assert disjoint_mean(taus, [1, 1, 1], "total").tolist() == [-9.0]
    assert disjoint_mean(taus, [1, 1, 1], "frequency").tolist() == [3.0]


def test_a_weight_turns_the_sign_and_counts_in_the_mean() -> None:
    from tuneline.export.formulas import disjoint_mean

    assert disjoint_mean([vector(2.0), vector(-6.0)], [3, -1], "total").tolist() == [3.0]


def test_dare_keeps_the_share_and_the_expectation() -> None:
    import torch

    from tuneline.export.formulas import dropped_and_rescaled

    tau = torch.ones(100_000)

    def dropped_by(seed: int, n_rows: int) -> "Tensor":
        generator = torch.Generator().manual_seed(seed)
        return torch.cat([dropped_and_rescaled(block, 0.25, generator) for block in blocks(tau, n_rows)])

    dropped = dropped_by(7, 100_000)
    assert set(dropped.tolist()) == {0.0, 4.0}
    # a sample mean of n values with variance 3 is within 5 sigma
    assert float(dropped.mean()) == pytest.approx(1, abs=5 * math.sqrt(3 / 100_000))
    assert torch.equal(dropped, dropped_by(7, 30_000))  # in however many blocks it comes
    assert not torch.equal(dropped, dropped_by(8, 100_000))


def test_masks_differ_by_seed_source_and_tensor() -> None:
    from tuneline.export.formulas import mask_generator

    arguments = [(1, "a", "w"), (2, "a", "w"), (1, "b", "w"), (1, "a", "v")]
    assert len({mask_generator(*each).initial_seed() for each in arguments}) == 4
