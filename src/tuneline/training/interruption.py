"""Ends that a training does not choose: signals, and the death of the process that started it."""

import ctypes
import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import FrameType

from tuneline.errors import TunelineError

_PR_SET_PDEATHSIG = 1  # prctl(2)


class Interrupted(TunelineError):  # noqa: N818  (no error: somebody wanted it)
    """The training was asked to stop, and left a checkpoint."""


@dataclass(slots=True)
class StopRequest:
    """The first signal that asked for an end."""

    name: str | None = None


@contextmanager
def stop_requests() -> Iterator[StopRequest]:
    """SIGTERM and Ctrl-C ask for an end after the step at hand; a second one ends at once."""
    request = StopRequest()

    def ask(number: int, _frame: FrameType | None) -> None:
        if request.name is not None:
            raise KeyboardInterrupt
        request.name = signal.Signals(number).name

    before = {number: signal.signal(number, ask) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield request
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def end_with_parent() -> None:
    """Ask Linux for a SIGTERM when the parent ends: without it a killed `dvc` leaves its training behind.

    Elsewhere nothing happens; a second training on the same folder is then refused by its lock.
    """
    if sys.platform == "linux":
        parent = os.getppid()
        ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
        if os.getppid() != parent:  # it ended before the call
            os.kill(os.getpid(), signal.SIGTERM)
