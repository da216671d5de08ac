"""Many requests: each sent once, whatever the number of threads, kills and errors."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import TypeVar

import pytest

from tests.teacher.conftest import Answer, Body, FakeEndpoint, augment, completion, refusal, said
from tuneline.config.schema import EndpointConfig, TeacherJobConfig
from tuneline.data.record_files import as_line
from tuneline.data.records import as_json
from tuneline.errors import BudgetError, EnvironmentProblem
from tuneline.teacher.answers import new_rows
from tuneline.teacher.asking import Answers, ask_all
from tuneline.teacher.cache import ReplyCache
from tuneline.teacher.jobs import Task, plan
from tuneline.teacher.request import Request, make_request

Item = TypeVar("Item")
ROOT = Path(__file__).resolve().parents[2]


def unwatched(rows: Iterable[Item], _: int) -> Iterable[Item]:
    return rows


@pytest.fixture
def cache(tmp_path: Path) -> ReplyCache:
    return ReplyCache(tmp_path / "cache")


@pytest.fixture
def requests(config: EndpointConfig, rewrite: TeacherJobConfig) -> list[Request]:
    return [make_request(f"number {number}", config, rewrite, 42) for number in range(20)]


@pytest.fixture
def tasks(examples: Path, templates: Path, config: EndpointConfig, rewrite: TeacherJobConfig) -> list[Task]:
    return plan(examples, templates, augment(config, rewrite), [], 42, lambda _: True)


def ask(requests: list[Request], endpoint: EndpointConfig, cache: ReplyCache, **changes: object) -> Answers:
    return ask_all(requests, endpoint.model_copy(update=changes), cache, unwatched)


def test_a_second_run_sends_nothing(
    fake: FakeEndpoint, requests: list[Request], config: EndpointConfig, cache: ReplyCache
) -> None:
    first = ask(requests, config, cache)
    assert (first.n_sent, first.spent_tokens, len(fake.bodies)) == (20, 20 * 15, 20)
    fake.close()
    second = ask(requests, config, cache)
    assert (second.n_sent, second.spent_tokens) == (0, 0)
    assert second.replies == first.replies
    assert "0 requests sent (0 tokens), 20 answers from the cache" in second.summary()


def test_equal_requests_are_sent_once(
    fake: FakeEndpoint, requests: list[Request], config: EndpointConfig, cache: ReplyCache
) -> None:
    assert ask(requests + requests, config, cache).n_sent == 20
    assert len(fake.bodies) == 20


def test_no_more_requests_are_under_way_than_allowed(
    fake: FakeEndpoint, requests: list[Request], config: EndpointConfig, cache: ReplyCache
) -> None:
    fake.reply = lambda body: replace(completion(said(body)), delay_s=0.05)
    ask(requests, config, cache, concurrency=5)
    assert 1 < fake.most_at_once <= 5


def test_the_same_bytes_come_out_for_any_concurrency_and_any_order_of_answers(
    fake: FakeEndpoint, tasks: list[Task], config: EndpointConfig, tmp_path: Path
) -> None:
    def slow_for_some(body: Body) -> Answer:
        return replace(completion(said(body)[::-1]), delay_s=0.05 if "3" in said(body) else 0.0)

    fake.reply = slow_for_some
    written = []
    for concurrency in (1, 2, 7):
        cache = ReplyCache(tmp_path / f"cache{concurrency}")
        replies = ask([task.request for task in tasks], config, cache, concurrency=concurrency).replies
        files = {path.name: path.read_bytes() for path in cache.folder.rglob("*.json")}
        rows = new_rows(tasks, replies).kept
        written.append((files, [as_line(as_json(row)) for row in rows]))
    assert written[0] == written[1] == written[2]
    assert len(written[0][1]) == 12


def test_an_error_keeps_what_is_done_and_says_how_much(
    fake: FakeEndpoint, requests: list[Request], config: EndpointConfig, cache: ReplyCache
) -> None:
    fake.reply = lambda body: refusal(500, "broken") if said(body) == "number 12" else completion("fine")
    message = rf"500 \(broken\).*; 12 of 20 missing answers came and are kept in {cache.folder}: the next run goes on"
    with pytest.raises(EnvironmentProblem, match=message):
        ask(requests, config, cache, concurrency=1)
    assert len(fake.bodies) == 13
    fake.reply = lambda _: completion("fine")
    assert ask(requests, config, cache).n_sent == 8


def test_the_error_of_the_first_request_is_told_whichever_came_first(
    fake: FakeEndpoint, requests: list[Request], config: EndpointConfig, cache: ReplyCache
) -> None:
    def fails(body: Body) -> Answer:
        first = said(body) == "number 0"
        return replace(refusal(500 if first else 404, said(body)), delay_s=0.1 if first else 0.0)

    fake.reply = fails
    with pytest.raises(EnvironmentProblem, match=r"500 \(number 0\).*; 0 of 20"):
        ask(requests, config, cache, concurrency=3)


def test_an_error_ends_the_waiting_of_the_others_at_once(
    fake: FakeEndpoint, requests: list[Request], config: EndpointConfig, cache: ReplyCache
) -> None:
    def busy_or_broken(body: Body) -> Answer:
        if said(body) == "number 2":
            return replace(refusal(404, "broken"), delay_s=0.1)
        return refusal(429, "busy", retry_after="60")

    fake.reply = busy_or_broken
    started = time.monotonic()
    with pytest.raises(EnvironmentProblem, match=r"404 \(broken\)"):
        ask(requests, config, cache, concurrency=3, max_retries=5)
    assert time.monotonic() - started < 30


def test_the_limit_stops_cleanly_and_a_higher_one_goes_on(
    fake: FakeEndpoint, requests: list[Request], config: EndpointConfig, cache: ReplyCache
) -> None:
    cost = max(request.max_cost_tokens for request in requests)
    for concurrency in (1, 4):
        fake.bodies.clear()
        folder = ReplyCache(cache.folder / str(concurrency))
        with pytest.raises(BudgetError, match=r"raise it; \d+ of 20 missing answers came and are kept in"):
            ask(requests, config, folder, concurrency=concurrency, max_total_tokens=cost + 6 * 15)
        n_done = len(list(folder.folder.rglob("*.json")))
        assert n_done == len(fake.bodies) == 7
        assert ask(requests, config, folder, concurrency=concurrency).n_sent == 13


def test_waiting_for_room_does_not_stop_a_run_that_has_enough(
    fake: FakeEndpoint, requests: list[Request], config: EndpointConfig, cache: ReplyCache
) -> None:
    # Room for one request at a time only: the four threads take turns.
    fake.reply = lambda body: replace(completion(said(body), tokens=(1, 1)), delay_s=0.01)
    cost = max(request.max_cost_tokens for request in requests)
    assert ask(requests, config, cache, max_total_tokens=cost + 19 * 2).n_sent == 20
    assert fake.most_at_once == 1


def test_a_damaged_answer_is_asked_for_again_and_the_others_are_not(
    fake: FakeEndpoint,
    requests: list[Request],
    config: EndpointConfig,
    cache: ReplyCache,
    capsys: pytest.CaptureFixture[str],
) -> None:
    first = ask(requests, config, cache)
    path = sorted(cache.folder.rglob("*.json"))[3]
    path.write_bytes(path.read_bytes()[:100])
    second = ask(requests, config, cache)
    assert (second.n_sent, second.replies) == (1, first.replies)
    assert f"{path}: damaged" in capsys.readouterr().err


PROGRAM = """
import sys
from pathlib import Path
from tuneline.config.schema import AugmentConfig
from tuneline.data.record_files import write_examples
from tuneline.teacher.answers import new_rows
from tuneline.teacher.asking import ask_all
from tuneline.teacher.cache import ReplyCache
from tuneline.teacher.jobs import plan

settings, examples, templates, cache, out = sys.argv[1:]
augment = AugmentConfig.model_validate_json(settings)
tasks = plan(Path(examples), Path(templates), augment, [], 42, lambda _: True)
requests = [task.request for task in tasks]
answers = ask_all(requests, augment.endpoint, ReplyCache(Path(cache)), lambda rows, _: rows)
write_examples(Path(out), new_rows(tasks, answers.replies).kept)
"""


@pytest.fixture
def command(
    examples: Path, templates: Path, config: EndpointConfig, rewrite: TeacherJobConfig, tmp_path: Path
) -> list[str]:
    settings = augment(config.model_copy(update={"concurrency": 2}), rewrite).model_dump_json()
    paths = [str(examples), str(templates), str(tmp_path / "cache"), str(tmp_path / "out.jsonl")]
    return [sys.executable, "-c", PROGRAM, settings, *paths]


@pytest.mark.slow
def test_a_killed_run_loses_the_requests_under_way_and_nothing_else(
    command: list[str], fake: FakeEndpoint, tmp_path: Path
) -> None:
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "src")}
    fake.reply = lambda body: replace(completion(said(body)[::-1]), delay_s=0.1)
    killed = subprocess.Popen(command, env=environment)
    while len(fake.bodies) < 6:
        assert killed.poll() is None
        time.sleep(0.005)
    killed.send_signal(signal.SIGKILL)
    killed.wait()
    time.sleep(0.2)  # until the endpoint has noticed
    n_asked, n_kept = len(fake.bodies), len(list((tmp_path / "cache").rglob("*.json")))
    assert n_kept >= n_asked - 2  # two at once
    assert not (tmp_path / "out.jsonl").exists()

    subprocess.run(command, env=environment, check=True)
    assert len(fake.bodies) - n_asked == 12 - n_kept
    resumed = (tmp_path / "out.jsonl").read_bytes()

    fresh = [*command[:-2], str(tmp_path / "other"), str(tmp_path / "fresh.jsonl")]
    subprocess.run(fresh, env=environment, check=True)
    assert (tmp_path / "fresh.jsonl").read_bytes() == resumed


def test_an_answer_that_hit_a_limit_is_asked_for_again(
    fake: FakeEndpoint, requests: list[Request], config: EndpointConfig, cache: ReplyCache
) -> None:
    fake.reply = lambda body: completion("cut", reason="length") if said(body) == "number 1" else completion("fine")
    ask(requests, config, cache)
    assert [ask(requests, config, cache).n_sent for _ in range(2)] == [1, 1]
