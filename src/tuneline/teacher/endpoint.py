"""Asking an OpenAI-compatible endpoint: attempts, waiting, the spending limit, and what its errors mean."""

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from threading import Event
from typing import TYPE_CHECKING

from tuneline.config.schema import EndpointConfig
from tuneline.errors import BudgetError, EnvironmentProblem, TunelineError
from tuneline.teacher.request import Reply, Request
from tuneline.teacher.spending import Spending

if TYPE_CHECKING:
    from openai import APIStatusError, OpenAI

_FIRST_WAIT_S = 0.5  # doubles with every attempt
_LONGEST_WAIT_S = 60.0
_LONGEST_ASKED_WAIT_S = 300.0  # an endpoint that asks for more (a daily limit) is not waited for
_SHOWN_CHARS = 300
_STOPPED = "not asked: another request has failed"
# Of one request, not of the endpoint: the others may go through.
_REFUSALS = ("content_filter", "content_policy_violation")


@dataclass(frozen=True, slots=True)
class _Failure:
    """Why an attempt gave no reply."""

    reason: str
    may_pass: bool  # worth another attempt
    wait_s: float | None = None  # as the endpoint asks; None: it does not say


class StoppedError(TunelineError):
    """Not asked, because of what happened to another request."""


class Teacher:
    """An endpoint that several threads ask at once."""

    def __init__(self, client: "OpenAI", endpoint: EndpointConfig, key: str | None) -> None:
        self.spending = Spending(endpoint.max_total_tokens)
        self._client = client
        self._endpoint = endpoint
        self._key = key
        self._stopped = Event()

    def ask(self, request: Request) -> Reply:
        """Raises `EnvironmentProblem` when no attempt succeeds, `BudgetError` before the limit could be exceeded.

        After `stop`, `StoppedError`.
        """
        n_failed = 0
        while True:
            outcome = self._attempt(request)
            if isinstance(outcome, Reply):
                return outcome
            if not outcome.may_pass or n_failed >= self._endpoint.max_retries:
                attempts = f" (attempt {n_failed + 1})" if n_failed else ""
                raise EnvironmentProblem(f"{self._endpoint.base_url}: {self._without_key(outcome.reason)}{attempts}")
            if self._stopped.wait(_wait_s(outcome, n_failed)):
                raise StoppedError(_STOPPED)
            n_failed += 1

    def stop(self) -> None:
        """No further attempts, on any thread; those under way come to their end."""
        self._stopped.set()

    def _attempt(self, request: Request) -> Reply | _Failure:
        cost = request.max_cost_tokens
        if not self.spending.reserve(cost):
            raise BudgetError(self._limit_reached(cost))
        spent = cost  # of an attempt without a reply: the endpoint may have counted all of it
        try:
            if self._stopped.is_set():
                spent = 0
                raise StoppedError(_STOPPED)
            outcome, n_tokens = self._send(request)
            spent = cost if n_tokens is None else n_tokens
            return outcome
        finally:
            self.spending.settle(cost, spent)

    def _send(self, request: Request) -> tuple[Reply | _Failure, int | None]:
        """What came back, and the tokens it cost; None: not known."""
        from openai import APIConnectionError, APIStatusError, APITimeoutError

        try:
            reply = _parsed(self._post(request))
        except APITimeoutError:
            reason = f"no answer in augment.endpoint.timeout_s = {self._endpoint.timeout_s:g}; raise it"
            return _Failure(reason, may_pass=True), None
        except APIConnectionError as error:
            reason = f"no connection ({error.__cause__ or error}); start the server or mend augment.endpoint.base_url"
            return _Failure(reason, may_pass=True), None
        except APIStatusError as error:
            return self._refused(error), None if error.status_code >= 500 else 0
        if reply is None:
            reason = "the answer is no chat completion; augment.endpoint.base_url usually ends in /v1"
            return _Failure(reason, may_pass=False), None
        return reply, reply.n_tokens

    def _post(self, request: Request) -> bytes:
        from openai import Omit

        # The client takes these from the environment: nothing but the rows and the named key is to leave.
        headers: dict[str, str | Omit] = {"OpenAI-Organization": Omit(), "OpenAI-Project": Omit()}
        if self._key is None:
            headers["Authorization"] = Omit()
        return self._client.post(
            "/chat/completions",
            cast_to=bytes,
            body=dict(request.body),
            options={"headers": headers, "follow_redirects": False},  # the rows go where conf/ says, and nowhere else
        )

    def _refused(self, error: "APIStatusError") -> Reply | _Failure:
        said, status = self._without_key(_said(error))[:_SHOWN_CHARS], error.status_code
        if error.code == "context_length_exceeded" or (status == 400 and "context length" in said.lower()):
            return Reply("", "length", f"{status}: {said}", 0, 0)
        if error.code in _REFUSALS:
            return Reply("", None, f"{status}: {said}", 0, 0)
        may_pass = status in (408, 409, 429) or status >= 500
        wait_s = _asked_wait_s(error)
        if wait_s is not None and wait_s > _LONGEST_ASKED_WAIT_S:
            return _Failure(f"{status} ({said}): it asks to wait {wait_s:.0f} s; run again then", may_pass=False)
        return _Failure(f"{status} ({said}); {self._advice(status)}", may_pass, wait_s)

    def _advice(self, status: int) -> str:
        endpoint = self._endpoint
        match status:
            case 401 | 403 if self._key is None:
                return "it wants a key: name its environment variable in augment.endpoint.api_key_env"
            case 401 | 403:
                return f"it does not take the key in the environment variable {endpoint.api_key_env}"
            case 404:
                return f"check augment.endpoint.model = {endpoint.model!r} and base_url, which usually ends in /v1"
            case 429:
                return "lower augment.endpoint.concurrency or raise max_retries"
            case _ if 300 <= status < 400:
                return "it sends requests elsewhere, which is not followed; put that address into base_url"
            case _ if status >= 500:
                return "the server failed; look at its log, or raise augment.endpoint.max_retries"
        return "it does not take this request; compare the job and augment.endpoint with what it allows"

    def _limit_reached(self, cost: int) -> str:
        spending = self.spending
        return (
            f"spending limit: {spending.spent_tokens} tokens are spent and the next request may cost {cost},"
            f" more than augment.endpoint.max_total_tokens = {spending.limit_tokens} in all; raise it"
        )

    def _without_key(self, text: str) -> str:
        return " ".join((text.replace(self._key, "***") if self._key else text).split())


@contextmanager
def connected(endpoint: EndpointConfig) -> Iterator[Teacher]:
    """A teacher whose connections are closed at the end. Raises `EnvironmentProblem` for a missing key or library."""
    try:
        from openai import OpenAI
    except ModuleNotFoundError:
        raise EnvironmentProblem("augment: the library openai is missing; pip install 'tuneline[teacher]'") from None
    key = _key(endpoint.api_key_env)
    # Attempts are ours: each one has to pass the spending limit. Without a key the client insists on some text.
    with OpenAI(base_url=endpoint.base_url, api_key=key or "none", timeout=endpoint.timeout_s, max_retries=0) as client:
        yield Teacher(client, endpoint, key)


def _key(name: str | None) -> str | None:
    if name is None:
        return None
    key = os.environ.get(name, "").strip()
    if not key:
        fix = f"export {name}=..., or set api_key_env to null for an endpoint without a key"
        raise EnvironmentProblem(f"augment.endpoint.api_key_env: the environment variable {name} is not set; {fix}")
    if not key.isascii() or not key.isprintable() or " " in key:
        raise EnvironmentProblem(f"augment.endpoint.api_key_env: {name} holds no key: it has a blank or a special sign")
    return key


def _parsed(answer: bytes) -> Reply | None:
    """The reply in a chat completion; None for anything else."""
    try:
        completion = json.loads(answer)
    except (ValueError, RecursionError):
        return None
    match completion:
        case {"choices": [{"message": {"content": None | str() as content}, **choice}, *_]}:
            prompt_tokens, completion_tokens = _usage(completion.get("usage"))
            reason = choice.get("finish_reason")
            return Reply(content or "", None if reason is None else str(reason), None, prompt_tokens, completion_tokens)
    return None


def _usage(usage: object) -> tuple[int | None, int | None]:
    match usage:
        # a server that does not count says 0 and 0, but no prompt is empty
        case {"prompt_tokens": int(prompt), "completion_tokens": int(completion)} if prompt > 0 <= completion:
            return prompt, completion
    return None, None


def _said(error: "APIStatusError") -> str:
    """The endpoint's own words."""
    match error.body:
        case {"message": str(message)} | {"detail": str(message)} | str(message) if message.strip():
            return message
    return error.message


def _asked_wait_s(error: "APIStatusError") -> float | None:
    try:
        return max(0.0, float(error.response.headers["retry-after"]))
    except (KeyError, ValueError):  # a date is as good as nothing: clocks differ
        return None


def _wait_s(failure: _Failure, n_failed: int) -> float:
    if failure.wait_s is not None:
        return failure.wait_s
    return min(_FIRST_WAIT_S * 2.0**n_failed, _LONGEST_WAIT_S)
