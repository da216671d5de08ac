"""The order of training: random, reproducible, and of one length per step where that saves padding."""

import random

import pytest

pytestmark = pytest.mark.slow  # the sampler is torch's


@pytest.mark.parametrize("by_length", [False, True])
@pytest.mark.parametrize("n_rows", [0, 1, 7, 8, 403])
def test_every_sequence_comes_once(n_rows: int, by_length: bool) -> None:
    from tuneline.training.order import epoch_order

    lengths = [random.Random(i).randrange(5, 90) for i in range(n_rows)]
    assert sorted(epoch_order(lengths, 8, 1, 0, by_length)) == list(range(n_rows))


def test_seed_and_epoch_alone_decide_the_order() -> None:
    from tuneline.training.order import epoch_order

    lengths = list(range(100))
    assert epoch_order(lengths, 8, 1, 0, True) == epoch_order(lengths, 8, 1, 0, True)
    assert epoch_order(lengths, 8, 1, 0, True) != epoch_order(lengths, 8, 1, 1, True)
    assert epoch_order(lengths, 8, 1, 0, True) != epoch_order(lengths, 8, 2, 0, True)


def test_a_step_holds_similar_lengths_and_an_incomplete_one_comes_last() -> None:
    from tuneline.training.order import epoch_order

    lengths = [10 * (i % 10) for i in range(83)]
    ordered = [lengths[i] for i in epoch_order(lengths, 8, 1, 0, True)]
    spreads = [max(step) - min(step) for step in (ordered[k : k + 8] for k in range(0, 80, 8))]
    assert max(spreads) <= 10, "83 rows sorted together, 8 or 9 of each length"
    assert len(ordered[80:]) == 3
    assert ordered[:80] != sorted(ordered[:80], reverse=True), "the steps themselves are shuffled"
