"""What an endpoint may do, and what becomes of it: a reply, one clear line, or another attempt."""

import sys
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from typing import Any

import pytest

from tests.teacher.conftest import Answer, FakeEndpoint, completion, refusal
from tuneline.config.schema import EndpointConfig, TeacherJobConfig
from tuneline.errors import BudgetError, EnvironmentProblem
from tuneline.teacher.endpoint import connected
from tuneline.teacher.request import Reply, Request, make_request

Ask = Callable[..., Reply]
KEY = "sk-very-secret-0123456789"


@pytest.fixture
def request_(config: EndpointConfig, rewrite: TeacherJobConfig) -> Request:
    return make_request("Hello", config, rewrite, 42)


@pytest.fixture
def ask(config: EndpointConfig, request_: Request) -> Ask:
    def ask_once(**changes: Any) -> Reply:
        with connected(config.model_copy(update=changes)) as teacher:
            return teacher.ask(request_)

    return ask_once


def problem(ask: Ask, **changes: Any) -> str:
    with pytest.raises(EnvironmentProblem) as caught:
        ask(**changes)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_a_request_is_what_the_configuration_says_and_nothing_else(
    fake: FakeEndpoint, ask: Ask, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("OPENAI_API_KEY", "OPENAI_ADMIN_KEY", "OPENAI_ORG_ID", "OPENAI_PROJECT_ID"):
        monkeypatch.setenv(name, "of-somebody-else")
    assert ask() == Reply("olleH", "stop", None, 10, 5)
    assert fake.bodies == [
        {
            "model": "a-model",
            "messages": [{"role": "user", "content": "Hello"}],
            "max_tokens": 20,
            "temperature": 0.5,
            "seed": 42,
        }
    ]
    assert "of-somebody-else" not in str(fake.headers)
    assert "authorization" not in fake.headers[0]


def test_what_is_left_out_is_not_sent(config: EndpointConfig, rewrite: TeacherJobConfig) -> None:
    bare = config.model_copy(update={"limit_parameter": "max_completion_tokens", "sends_seed": False})
    body = make_request("Hello", bare, rewrite.model_copy(update={"temperature": None}), 42).body
    assert set(body) == {"model", "messages", "max_completion_tokens"}


def test_the_key_goes_to_the_endpoint(fake: FakeEndpoint, ask: Ask, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TEACHER_KEY", KEY)
    ask(api_key_env="TEACHER_KEY")
    assert fake.headers[0]["authorization"] == f"Bearer {KEY}"


def test_the_key_is_in_no_error_even_when_the_endpoint_repeats_it(
    fake: FakeEndpoint, ask: Ask, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TEACHER_KEY", KEY)
    fake.reply = lambda _: refusal(401, f"Incorrect API key provided: {KEY}", "invalid_api_key")
    message = problem(ask, api_key_env="TEACHER_KEY")
    assert KEY not in message
    assert "provided: ***" in message
    assert "the environment variable TEACHER_KEY" in message


@pytest.mark.parametrize("n_chars", [270, 280, 290])
def test_no_half_of_the_key_is_in_an_error_that_is_cut(
    n_chars: int, fake: FakeEndpoint, ask: Ask, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TEACHER_KEY", KEY)
    fake.reply = lambda _: refusal(401, f"{'x' * n_chars} {KEY} {'y' * 300}", "invalid_api_key")
    message = problem(ask, api_key_env="TEACHER_KEY")
    assert KEY[:5] not in message
    assert "y" * 30 not in message


@pytest.mark.parametrize("value", [None, "", "  ", "two words", "line\nbreak", "schlüssel"])
def test_an_unusable_key_is_found_before_anything_is_sent(
    value: str | None, fake: FakeEndpoint, ask: Ask, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("TEACHER_KEY", raising=False)
    if value is not None:
        monkeypatch.setenv("TEACHER_KEY", value)
    message = problem(ask, api_key_env="TEACHER_KEY")
    assert message.startswith("augment.endpoint.api_key_env: ")
    assert "TEACHER_KEY" in message
    assert "words" not in message
    assert fake.bodies == []


@pytest.mark.parametrize(
    ("answer", "line"),
    [
        (refusal(401, "no key"), "401 (no key); it wants a key: name its environment variable in augment.endpoint"),
        (
            refusal(404, "model not found"),
            "404 (model not found); check augment.endpoint.model = 'a-model' and",
        ),
        (refusal(400, "temperature is fixed"), "400 (temperature is fixed); it does not take this request"),
        (refusal(429, "slow down"), "429 (slow down); lower augment.endpoint.concurrency or raise max_retries"),
        (refusal(500, "out of\nmemory"), "500 (out of memory); the server failed; look at its log"),
        (Answer(b"<html>Bad gateway</html>", 502), "502 (<html>Bad gateway</html>); the server failed"),
        (
            refusal(429, "daily limit", retry_after="86400"),
            "429 (daily limit): it asks to wait 86400 s; run again",
        ),
        (Answer(b"<html>Welcome</html>"), "the answer is no chat completion; augment.endpoint.base_url usually ends"),
        (Answer(b'{"choices": [{"mess'), "the answer is no chat completion"),
        (Answer(b"[" * 100_000), "the answer is no chat completion"),
        (Answer({"choices": []}), "the answer is no chat completion"),
        (Answer(b"", 307, {"location": "/v1/elsewhere"}), "it sends requests elsewhere, which is not followed"),
    ],
)
def test_an_endpoint_that_cannot_help_is_one_clear_line(
    answer: Answer, line: str, fake: FakeEndpoint, ask: Ask
) -> None:
    fake.reply = lambda _: answer
    message = problem(ask)
    assert message.startswith(f"{fake.url}: ")
    assert line in message
    assert len(fake.bodies) == 1


def test_an_address_where_nobody_listens_is_one_clear_line(ask: Ask, fake: FakeEndpoint) -> None:
    nobody = FakeEndpoint(fake.reply)
    nobody.close()
    message = problem(ask, base_url=nobody.url)
    assert message.startswith(f"{nobody.url}: no connection (")
    assert "start the server or mend augment.endpoint.base_url" in message


def test_a_silent_endpoint_is_one_clear_line(ask: Ask, fake: FakeEndpoint) -> None:
    fake.reply = lambda _: replace(completion("late"), delay_s=3.0)
    started = time.monotonic()
    assert "no answer in augment.endpoint.timeout_s = 0.2; raise it" in problem(ask, timeout_s=0.2)
    assert time.monotonic() - started < 2.5


@pytest.mark.parametrize("first", [refusal(429, "busy", retry_after="0"), refusal(503, "loading", retry_after="0")])
def test_a_passing_failure_is_tried_again(first: Answer, fake: FakeEndpoint, ask: Ask) -> None:
    answers = iter([first, first, completion("at last")])
    fake.reply = lambda _: next(answers)
    assert ask(max_retries=2).text == "at last"
    assert len(fake.bodies) == 3


def test_the_endpoint_says_how_long_to_wait(fake: FakeEndpoint, ask: Ask) -> None:
    answers = iter([refusal(429, "busy", retry_after="1.2"), completion("at last")])
    fake.reply = lambda _: next(answers)
    started = time.monotonic()
    assert ask(max_retries=1).text == "at last"
    assert time.monotonic() - started >= 1.2


def test_attempts_end(fake: FakeEndpoint, ask: Ask) -> None:
    fake.reply = lambda _: refusal(500, "broken", retry_after="0")
    assert problem(ask, max_retries=3).endswith("(attempt 4)")
    assert len(fake.bodies) == 4


@pytest.mark.parametrize(
    "answer",
    [
        refusal(400, "too long", "context_length_exceeded"),
        refusal(400, "This model's maximum context length is 512 tokens", "400"),
        refusal(400, "too long for us", "content_filter"),
    ],
)
def test_a_request_that_this_model_cannot_take_is_a_reply_of_its_own(
    answer: Answer, fake: FakeEndpoint, ask: Ask
) -> None:
    fake.reply = lambda _: answer
    reply = ask()
    assert reply.text == ""
    assert reply.refusal is not None
    assert reply.refusal.startswith("400: ")


def test_no_request_is_started_that_could_exceed_the_limit(
    fake: FakeEndpoint, config: EndpointConfig, request_: Request
) -> None:
    # 5 bytes, 256 tokens for the template and an answer of 20: 281 at most; the endpoint counts 15
    assert request_.max_cost_tokens == 281
    with connected(config.model_copy(update={"max_total_tokens": 281 + 2 * 15})) as teacher:
        for _ in range(3):
            teacher.ask(request_)
        with pytest.raises(BudgetError, match=r"45 tokens are spent .* may cost 281, .*max_total_tokens = 311 .*raise"):
            teacher.ask(request_)
    assert len(fake.bodies) == 3


@pytest.mark.parametrize(
    ("answer", "spent"),
    [
        (completion("x", tokens=None), 281),  # not said: all that it may have cost
        (completion("x", tokens=(0, 0)), 281),
        (completion("x", tokens=(400, 100)), 500),  # more than asked for is counted as it is
        (refusal(500, "broken"), 281),
        (refusal(429, "busy"), 0),
    ],
)
def test_what_an_attempt_costs_is_never_counted_too_low(
    answer: Answer, spent: int, fake: FakeEndpoint, config: EndpointConfig, request_: Request
) -> None:
    fake.reply = lambda _: answer
    with connected(config) as teacher:
        with suppress(EnvironmentProblem):
            teacher.ask(request_)
        assert teacher.spending.spent_tokens == spent


def test_a_missing_library_is_one_clear_line(ask: Ask, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "openai", None)
    assert "pip install 'tuneline[teacher]'" in problem(ask)
