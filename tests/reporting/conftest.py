"""A small experiment for the tests of this room."""

import pytest

from tests.reporting.stage_files import Files, small_experiment


@pytest.fixture
def files() -> Files:
    return small_experiment()
