"""What signals ask of a training."""

import os
import signal

import pytest

from tuneline.training.interruption import stop_requests


def test_any_number_of_terms_is_one_request() -> None:
    """As a parent is killed, each of its threads sends one."""
    with stop_requests() as request:
        for _ in range(3):
            os.kill(os.getpid(), signal.SIGTERM)
        assert request.name == "SIGTERM"


@pytest.mark.parametrize("first", [signal.SIGTERM, signal.SIGINT])
def test_ctrl_c_behind_another_request_ends_at_once(first: signal.Signals) -> None:
    with stop_requests() as request:
        os.kill(os.getpid(), first)
        assert request.name == first.name
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)


def test_signals_mean_afterwards_what_they_meant_before() -> None:
    before = [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)]
    with stop_requests():
        pass
    assert [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)] == before
