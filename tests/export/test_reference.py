"""Which figure decides."""

import pytest

pytestmark = pytest.mark.slow  # torch


def test_a_figure_of_products_in_float64_decides_where_there_is_one() -> None:
    from tuneline.export.reference import decisive

    assert decisive("kl", {"kl": 1.0}) == "kl"
    assert decisive("kl", {"kl": 1.0, "float64_kl": 0.1, "float64_other": 0.1}) == "float64_kl"
