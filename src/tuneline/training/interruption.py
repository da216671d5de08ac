"""Ends that a training does not choose: signals."""

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import FrameType

from tuneline.errors import TunelineError


class Interrupted(TunelineError):  # noqa: N818  (no error: somebody wanted it)
    """The training was asked to stop, and left a checkpoint."""


@dataclass(slots=True)
class StopRequest:
    """The first signal that asked for an end."""

    name: str | None = None


@contextmanager
def stop_requests() -> Iterator[StopRequest]:
    """SIGTERM and Ctrl-C ask for an end after the step at hand; Ctrl-C after that ends at once.

    Another SIGTERM asks for nothing more: as a parent dies, Linux sends one for each of its threads.
    """
    request = StopRequest()

    def ask(number: int, _frame: FrameType | None) -> None:
        if request.name is None:
            request.name = signal.Signals(number).name
        elif number == signal.SIGINT:
            raise KeyboardInterrupt

    before = {number: signal.signal(number, ask) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield request
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
