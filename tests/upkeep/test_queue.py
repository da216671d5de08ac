"""Every queued experiment is accounted for, whatever was killed; failed ones go on where they stopped."""

import os
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import nullcontext, suppress
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from tuneline.commands.queue import account
from tuneline.errors import ConfigError
from tuneline.upkeep import queue as module
from tuneline.upkeep.queue import Experiment, State, choose, hindrance, told

PATIENCE_S = 120
WORKERS = (
    "from dvc.repo import Repo\nfrom tuneline.upkeep.queue import living_workers\n"
    "print(*living_workers(Repo().experiments.celery_queue))"
)


def experiment(name: str, state: State, reason: str = "") -> Experiment:
    return Experiment(name, name * 8, state, reason, None, None)


def test_the_sum_is_that_of_the_states_and_every_experiment_has_a_line() -> None:
    found = [experiment("a", "waiting"), experiment("bcd", "failed", "no room"), experiment("e", "succeeded")]
    lines = account(found)
    assert lines[0] == "3 queued = 1 succeeded + 1 failed + 1 waiting + 0 running"
    assert lines[1:4] == ["waiting    a", "failed     bcd  no room", "succeeded  e"]
    assert "tuneline queue requeue NAME" in lines[4]


def test_only_failed_experiments_can_be_put_back() -> None:
    found = [experiment("a", "waiting"), experiment("b", "failed")]
    assert choose(found, ["b"]) == [found[1]]
    with pytest.raises(ConfigError, match="a: is waiting; failed are: b"):
        choose(found, ["b", "a"])
    with pytest.raises(ConfigError, match="c: is not in the queue; failed are: b"):
        choose(found, ["c"])


@pytest.mark.parametrize(
    ("log", "line"),
    [
        ("Running stage\nerror: train: no room\nERROR: failed to reproduce 'train'\n\n", "train: no room"),
        (
            "Traceback\nValueError: x\nERROR: failed to reproduce 'train': exited with 1\n",
            "failed to reproduce 'train'",
        ),
        ("step 1\nstep 2\n", "step 2"),
        ("", "it left no log"),
    ],
)
def test_the_reason_is_the_line_that_tells_most(log: str, line: str, tmp_path: Path) -> None:
    (tmp_path / "log").write_text(log, encoding="utf-8")
    assert told(tmp_path / "log").startswith(line)
    assert told(tmp_path / "none") == "it left no log"


@pytest.mark.parametrize(("cache", "n_lines"), [("/a b/cache", 0), ("/prüfung/cache", 1)])
def test_a_cache_whose_name_dvc_cannot_write_is_named_before_experiments_fail(cache: str, n_lines: int) -> None:
    repo = SimpleNamespace(cache=SimpleNamespace(local_cache_dir=cache))
    assert [line.startswith(f"{cache}: not ASCII") for line in hindrance(repo)] == [True] * n_lines


def test_a_task_that_a_worker_is_about_to_begin_is_not_called_lost(monkeypatch: pytest.MonkeyPatch) -> None:
    def asked(**arguments: Any) -> Any:
        return SimpleNamespace(active=lambda: {"w": []}, reserved=lambda: {"w": [{"id": "7"}]})

    monkeypatch.setattr(module, "living_workers", lambda queue: [1])
    found = module._Workers(SimpleNamespace(celery=SimpleNamespace(control=SimpleNamespace(inspect=asked))))
    assert (found.all_answered, found.task_ids, found.n_busy) == (True, {"7"}, 1)


def test_a_task_is_put_back_only_when_every_worker_that_lives_has_one(monkeypatch: pytest.MonkeyPatch) -> None:
    living = [[1, 2, 3], [1, 2, 3], [1, 2], [1]]
    put_back_beside: list[list[int]] = []

    def look(_: object) -> list[int]:
        return living.pop(0) if len(living) > 1 else living[0]

    monkeypatch.setattr(module, "living_workers", look)
    monkeypatch.setattr(module, "_Workers", lambda queue: SimpleNamespace(n_busy=1))
    monkeypatch.setattr(module, "get_exp_rwlock", lambda repo, writes: nullcontext())
    monkeypatch.setattr(module, "_requeue", lambda queue, experiment: put_back_beside.append(look(queue)))
    monkeypatch.setattr(time, "sleep", lambda seconds: None)
    repo = SimpleNamespace(experiments=SimpleNamespace(celery_queue=SimpleNamespace(ref="q")))
    module.requeue(repo, [experiment("a", "failed")])
    assert put_back_beside == [[1]]


class Queue:
    """The queue of a project."""

    def __init__(self, project: Any) -> None:
        self.project = project
        self.folder: Path = project.folder

    def put(self, name: str, mode: str, length: int = 1) -> None:
        """Of equal values only the first would run; DVC has the others' outputs then."""
        self.project.dvc("exp", "run", "--queue", "--name", name, "-S", f"mode={mode}", "-S", f"length={length}")

    def start(self, n_workers: int) -> None:
        self.project.dvc("queue", "start", "-j", str(n_workers))

    def status(self) -> list[str]:
        return list(self.project.tuneline("queue", "status").splitlines())

    def until(self, sum_of_states: str) -> list[str]:
        end = time.monotonic() + PATIENCE_S
        while (lines := self.status())[0] != sum_of_states:
            assert time.monotonic() < end, "\n".join(lines)
            time.sleep(0.5)
        return lines

    def workers(self) -> list[int]:
        return [int(word) for word in self.project.python(WORKERS).split()]

    def starts(self) -> list[str]:
        path = self.folder / "starts"
        return path.read_text().splitlines() if path.exists() else []

    def until_held(self, name: str) -> None:
        end = time.monotonic() + PATIENCE_S
        while not any(line.startswith(name) for line in self.starts()):
            assert time.monotonic() < end, self.status()
            time.sleep(0.2)
        time.sleep(0.5)


@pytest.fixture
def queue(new_project: Callable[[], Any]) -> Iterator[Queue]:
    queue = Queue(new_project())
    yield queue
    (queue.folder / "hold").unlink(missing_ok=True)
    for pid in queue.workers():
        with suppress(ProcessLookupError):  # one that had nothing left to do ends by itself
            os.kill(pid, signal.SIGKILL)


def working_in(folder: Path) -> list[int]:
    from tuneline.upkeep.processes import working_in

    return working_in(folder)


@pytest.mark.slow
def test_six_experiments_and_two_workers_add_up_and_failed_ones_go_on_from_their_checkpoints(queue: Queue) -> None:
    for number in range(6):
        queue.put(f"exp{number}", "fail" if number in (1, 4) else "work", length=number)
    assert queue.status()[0] == "6 queued = 0 succeeded + 0 failed + 6 waiting + 0 running"
    queue.start(2)
    lines = queue.until("6 queued = 4 succeeded + 2 failed + 0 waiting + 0 running")
    assert [line.split(maxsplit=2)[1:] for line in lines if line.startswith("failed")] == [
        ["exp1", "work.py: no room at step 5"],
        ["exp4", "work.py: no room at step 5"],
    ]
    (queue.folder / "mended").touch()
    assert "waiting again: exp1, exp4" in queue.project.tuneline("queue", "requeue", "--failed")
    queue.start(2)
    queue.until("6 queued = 6 succeeded + 0 failed + 0 waiting + 0 running")
    assert sorted(line for line in queue.starts() if line.split()[0] in ("exp1", "exp4")) == [
        *("exp1 0", "exp1 5"),
        *("exp4 0", "exp4 5"),
    ]
    assert "mode: fail" in queue.project.run("git", "show", f"{experiment_ref(queue, 'exp1')}:params.yaml")


def experiment_ref(queue: Queue, name: str) -> str:
    lines = queue.project.run("git", "for-each-ref", "--format=%(refname)", "refs/exps").splitlines()
    return str(next(line for line in lines if line.endswith(f"/{name}")))


@pytest.mark.slow
def test_an_experiment_whose_worker_was_killed_is_not_called_running_and_goes_on(queue: Queue) -> None:
    (queue.folder / "hold").touch()
    queue.put("killed", "work")
    queue.put("later", "work", length=2)
    queue.start(1)
    queue.until_held("killed")
    queue.until("2 queued = 0 succeeded + 0 failed + 1 waiting + 1 running")
    for pid in queue.workers():
        os.kill(pid, signal.SIGKILL)
    lines = queue.until("2 queued = 0 succeeded + 0 failed + 1 waiting + 1 running")
    assert "its worker died, so that nobody will collect its result; stop it: kill " in "\n".join(lines)
    assert "killed: is running" in queue.project.tuneline("queue", "requeue", "killed", fails=True)

    workspace = next(path for path in (queue.folder / ".dvc/tmp/exps").iterdir() if path.name.startswith("tmp"))
    assert str(workspace) in queue.project.tuneline("clean", "--remove")
    assert workspace.exists(), "a process works in it"
    for pid in working_in(workspace):
        os.kill(pid, signal.SIGKILL)
    lines = queue.until("2 queued = 0 succeeded + 1 failed + 1 waiting + 0 running")
    assert "failed     killed  its worker died" in lines
    (queue.folder / "hold").unlink()
    queue.project.tuneline("queue", "requeue", "killed")
    assert not workspace.exists()
    queue.start(1)
    queue.until("2 queued = 2 succeeded + 0 failed + 0 waiting + 0 running")
    assert [line for line in queue.starts() if line.startswith("killed")] == ["killed 0", "killed 5"]


@pytest.mark.slow
def test_an_experiment_that_never_reached_the_queue_is_counted_and_can_be_put_there(queue: Queue) -> None:
    queue.put("lost", "work")
    for message in (queue.folder / ".dvc/tmp/exps/celery/broker/in").iterdir():
        message.unlink()
    assert "failed     lost  it never reached the queue" in queue.status()
    queue.project.tuneline("queue", "requeue", "lost")
    assert queue.status()[0] == "1 queued = 0 succeeded + 0 failed + 1 waiting + 0 running"
    queue.start(1)
    queue.until("1 queued = 1 succeeded + 0 failed + 0 waiting + 0 running")
    ref = experiment_ref(queue, "lost")
    queue.project.run("git", "update-ref", "-d", ref)
    assert queue.status()[0] == "1 queued = 0 succeeded + 1 failed + 0 waiting + 0 running"


@pytest.mark.slow
def test_an_experiment_that_an_ending_worker_took_and_dropped_is_told_from_one_that_died_and_goes_on(
    queue: Queue,
) -> None:
    """What such a worker leaves: the message is taken, and that is all."""
    queue.put("dropped", "work")
    broker = queue.folder / ".dvc/tmp/exps/celery/broker"
    (broker / "processed").mkdir(exist_ok=True)
    for message in (broker / "in").iterdir():
        message.rename(broker / "processed" / message.name)
    lines = queue.status()
    assert lines[0] == "1 queued = 0 succeeded + 1 failed + 0 waiting + 0 running"
    assert "failed     dropped  its worker ended before it began" in lines
    queue.project.tuneline("queue", "requeue", "--failed")
    queue.start(1)
    queue.until("1 queued = 1 succeeded + 0 failed + 0 waiting + 0 running")


@pytest.mark.slow
def test_the_pool_of_a_worker_that_ends_drops_what_it_has_not_begun() -> None:
    """The cause of it: the day this fails, Celery keeps its tasks, and nothing is dropped any more."""
    from threading import Event, Thread

    from celery.concurrency.thread import TaskPool  # type: ignore[import-untyped]

    pool, may_end = TaskPool(limit=1), Event()
    pool.on_apply(may_end.wait, args=(PATIENCE_S,), callback=print, accept_callback=lambda *_: None)
    taken = pool.on_apply(print, args=("begun",), callback=print, accept_callback=lambda *_: None)
    end = Thread(target=pool.on_stop)
    end.start()
    deadline = time.monotonic() + 10
    while not taken.f.cancelled() and time.monotonic() < deadline:
        time.sleep(0.01)
    may_end.set()
    end.join()
    assert taken.f.cancelled()
