"""The formulas of combining, against numbers worked out by hand."""

import math
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from torch import Tensor

pytestmark = pytest.mark.slow


def vector(*values: float) -> "Tensor":
    import torch

    return torch.tensor(values, dtype=torch.float32)


def test_linear_is_the_weighted_average() -> None:
    from tuneline.export.formulas import linear

    assert linear([vector(1, 2), vector(5, -2)], [1, 3]).tolist() == [4.0, -1.0]


def test_slerp_halfway_between_two_axes_is_on_the_arc() -> None:
    from tuneline.export.formulas import slerp

    assert slerp(vector(1, 0), vector(0, 1), 0.5).tolist() == pytest.approx([math.sqrt(0.5)] * 2)
    third = slerp(vector(1, 0), vector(0, 1), 1 / 3).tolist()
    assert third == pytest.approx([math.cos(math.pi / 6), math.sin(math.pi / 6)])


def test_slerp_ends_are_the_two_tensors_and_parallel_or_zero_ones_are_averaged() -> None:
    from tuneline.export.formulas import slerp

    x, y = vector(0.3, -1.7, 2.2), vector(1.1, 0.4, -0.9)
    assert slerp(x, y, 0).tolist() == x.tolist()
    assert slerp(x, y, 1).tolist() == y.tolist()
    assert slerp(x, 3 * x, 0.5).tolist() == pytest.approx((2 * x).tolist())
    assert slerp(vector(0, 0), vector(2, 4), 0.5).tolist() == [1.0, 2.0]


def test_task_arithmetic_adds_and_takes_away_what_was_learned() -> None:
    from tuneline.export.formulas import task_arithmetic

    assert task_arithmetic(vector(1, 1), [vector(2, 0), vector(4, 8)], [1.0, -0.5]).tolist() == [1.0, -3.0]


def test_ties_trims_elects_the_sign_and_averages_those_that_agree() -> None:
    from tuneline.export.formulas import ties

    # density 0.5 keeps [4, 3, 0, 0] and [-6, 0, 2, 0]; elected signs - + + 0
    taus = [vector(4, 3, 1, -1), vector(-6, 1, 2, 0.5)]
    assert ties(vector(1, 1, 1, 1), taus, [1, 1], 0.5, "total").tolist() == [-5.0, 4.0, 3.0, 1.0]


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
    dropped = dropped_and_rescaled(tau, 0.25, 7)
    assert set(dropped.tolist()) == {0.0, 4.0}
    # a sample mean of n values with variance 3 is within 5 sigma
    assert float(dropped.mean()) == pytest.approx(1, abs=5 * math.sqrt(3 / 100_000))
    assert torch.equal(dropped, dropped_and_rescaled(tau, 0.25, 7))
    assert not torch.equal(dropped, dropped_and_rescaled(tau, 0.25, 8))


def test_masks_differ_by_seed_source_and_tensor() -> None:
    from tuneline.export.formulas import tensor_seed

    arguments = [(1, "a", "w"), (2, "a", "w"), (1, "b", "w"), (1, "a", "v")]
    assert len({tensor_seed(*each) for each in arguments}) == 4
