"""A spending limit that several threads share."""

from threading import Condition


class Spending:
    """Tokens spent so far, and those that requests under way may still cost."""

    def __init__(self, limit_tokens: int) -> None:
        self.limit_tokens = limit_tokens
        self.spent_tokens = 0
        self._reserved_tokens = 0
        self._changed = Condition()

    def reserve(self, tokens: int) -> bool:
        """Set tokens aside for a request; waits while what others have set aside stands in the way.

        False: the request could exceed the limit whatever the others cost.
        """
        with self._changed:
            self._changed.wait_for(lambda: self._has_room(tokens) or self._reserved_tokens == 0)
            if not self._has_room(tokens):
                return False
            self._reserved_tokens += tokens
            return True

    def settle(self, reserved_tokens: int, spent_tokens: int) -> None:
        """The request is over: what it cost takes the place of what was set aside."""
        with self._changed:
            self._reserved_tokens -= reserved_tokens
            self.spent_tokens += spent_tokens
            self._changed.notify_all()

    def _has_room(self, tokens: int) -> bool:
        return self.spent_tokens + self._reserved_tokens + tokens <= self.limit_tokens
