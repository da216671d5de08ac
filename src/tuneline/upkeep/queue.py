"""Every experiment of DVC's queue, accounted for; and failed ones put back, with the code and values they recorded.

DVC's own objects are read here, not its tables. To DVC a task runs until its worker says that it has ended; a worker
that was killed says nothing, so that the processes themselves are looked at.
"""

import hashlib
import shutil
import signal
import time
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from celery.result import AsyncResult  # type: ignore[import-untyped]  # Celery and DVC ship no types
from dvc.lock import LockError  # type: ignore[import-untyped]
from dvc.repo.experiments.executor.base import ExecutorInfo  # type: ignore[import-untyped]
from dvc.repo.experiments.queue.base import QueueEntry  # type: ignore[import-untyped]
from dvc.repo.experiments.queue.tasks import run_exp  # type: ignore[import-untyped]
from dvc.repo.experiments.utils import exp_refs, get_exp_rwlock  # type: ignore[import-untyped]
from kombu.exceptions import DecodeError

from tuneline.errors import ConfigError, EnvironmentProblem
from tuneline.upkeep.processes import is_alive, with_words, working_in

State = Literal["waiting", "running", "succeeded", "failed"]
STATES: tuple[State, ...] = ("waiting", "running", "failed", "succeeded")
LOG_END_BYTES = 64 * 1024  # of a log: what is looked at for the reason
SECOND_LOOK_SECONDS = 2
DIED = "its worker died"
NEVER_BEGAN = "its worker ended before it began"
IDLE_SECONDS = 60  # DVC ends a worker 10 seconds after its last task, on a busy machine later
ANSWER_SECONDS = 10  # that a worker on a busy machine may take to say what it does

Queue = Any  # dvc.repo.experiments.queue.celery.LocalCeleryQueue
Repo = Any  # dvc.repo.Repo


@dataclass(frozen=True, slots=True)
class Task:
    """A message of the queue: the id of its Celery task, the experiment, and what was sent."""

    id: str
    entry: QueueEntry
    message: Any
    sent: tuple[Any, Any]


@dataclass(frozen=True, slots=True)
class Experiment:
    """An experiment that was queued. `reason` is one line, empty where there is nothing to say."""

    name: str
    rev: str  # of the commit that holds its code and values
    state: State
    reason: str
    entry: QueueEntry
    task: Task | None  # None: DVC recorded the experiment, but no worker will ever see it


def experiments(repo: Repo) -> list[Experiment]:
    """All that was queued and not removed since, by name: the first state that holds of each."""
    queue = repo.experiments.celery_queue
    found = {one.rev: one for one in (*_stashed(queue, queue.failed_stash), *_stashed(queue, queue.stash))}
    # Waiting ones before those that a worker took: one that is taken in between is seen twice, and not missed.
    for task in _tasks(queue.celery.iter_queued()):
        found[task.entry.stash_rev] = _experiment(task, "waiting", "")
    taken = {task.entry.stash_rev: task for task in _tasks(queue.celery.iter_processed())}
    found |= _looked_at(queue, taken)
    if doubtful := {rev: task for rev, task in taken.items() if found[rev].reason in (DIED, NEVER_BEGAN)}:
        time.sleep(SECOND_LOOK_SECONDS)  # it may just have begun, or ended
        found |= _looked_at(queue, doubtful)
    return sorted(found.values(), key=lambda one: (STATES.index(one.state), one.name))


def _looked_at(queue: Queue, taken: dict[str, Task]) -> dict[str, Experiment]:
    workers = _Workers(queue) if any(not _is_done(queue, task) for task in taken.values()) else None
    return {rev: _taken(queue, task, workers) for rev, task in taken.items()}


def _tasks(messages: Iterable[Any]) -> Iterator[Task]:
    for message in messages:
        if message.headers.get("task") == run_exp.name:
            args, kwargs, _ = message.decode()
            entry = QueueEntry.from_dict(args[0] if args else kwargs["entry_dict"])
            yield Task(message.headers["id"], entry, message, (args, kwargs))


def _stashed(queue: Queue, stash: Any) -> Iterator[Experiment]:
    """What DVC keeps commits of. Those with a task are looked at by their task."""
    said = "its task is gone" if stash is queue.failed_stash else "it never reached the queue"
    for rev, kept in stash.stash_revs.items():
        entry = QueueEntry(
            queue.repo.root_dir,
            queue.scm.root_dir,
            queue.ref,
            rev,
            kept.baseline_rev,
            kept.branch,
            kept.name,
            kept.head_rev,
        )
        yield Experiment(kept.name or rev[:7], rev, "failed", said, entry, None)


def _experiment(task: Task, state: State, reason: str) -> Experiment:
    entry = task.entry
    return Experiment(entry.name or entry.stash_rev[:7], entry.stash_rev, state, reason, entry, task)


def _taken(queue: Queue, task: Task, workers: "_Workers | None") -> Experiment:
    if not _is_done(queue, task):
        assert workers is not None
        return _unfinished(queue, task, workers)
    info = _info(queue, task.entry.stash_rev)
    if info is None or info.result is None:
        return _experiment(task, "failed", _reason(queue, task))
    if not _is_collected(queue, info):
        return _experiment(
            task, "failed", "no result in this repository: removed since, or lost while it was collected"
        )
    return _experiment(task, "succeeded", "")


def _unfinished(queue: Queue, task: Task, workers: "_Workers") -> Experiment:
    alive = _processes(queue, task.entry.stash_rev)
    if task.id in workers.task_ids or (not workers.all_answered and alive):
        return _experiment(task, "running", "")
    if not workers.all_answered:
        return _experiment(task, "running", "a worker does not answer; ask again")
    if alive:
        said = f"its worker died, so that nobody will collect its result; stop it: kill {' '.join(map(str, alive))}"
        return _experiment(task, "running", said)
    return _experiment(task, "failed", DIED if _began(queue, task.entry.stash_rev) else NEVER_BEGAN)


def _began(queue: Queue, rev: str) -> bool:
    """A worker that ends, because nothing waited, drops what it takes in that moment: its pool cancels what has no
    thread yet (celery/concurrency/thread.py, on_stop), and DVC forbids putting it back (restore_at_shutdown)."""
    return queue.proc.get(rev) is not None or Path(queue.get_infofile_path(rev)).exists()


class _Workers:
    """The queue's living workers: whether all say what they do or are about to do, and what."""

    def __init__(self, queue: Queue) -> None:
        n_living = len(living_workers(queue))
        answers: list[dict[str, list[dict[str, Any]]]] = []
        if n_living:
            ask = queue.celery.control.inspect(timeout=ANSWER_SECONDS, limit=n_living)
            answers = [ask.reserved() or {}, ask.active() or {}]  # in this order: what begins in between is in both
        self.all_answered = all(len(answer) >= n_living for answer in answers)
        self.task_ids = {task["id"] for answer in answers for tasks in answer.values() for task in tasks}
        self.n_busy = len({name for answer in answers for name, tasks in answer.items() if tasks})


def hindrance(repo: Repo) -> list[str]:
    """Why DVC cannot run a queued experiment here: it writes the cache's name into the experiment's folder, in ASCII
    (dvc/repo/experiments/executor/local.py, _update_config)."""
    cache = str(repo.cache.local_cache_dir)
    if cache.isascii():
        return []
    return [f"{cache}: not ASCII, so that every queued experiment will fail; `dvc cache dir --local DIR` names another"]


def living_workers(queue: Queue) -> list[int]:
    """Processes that take what waits."""
    # the name that DVC gives the workers of a queue (dvc/repo/experiments/queue/celery.py, _spawn_worker)
    return with_words("queue-worker", f"dvc-exp-{hashlib.sha256(queue.wdir.encode()).hexdigest()[:6]}-")


def _is_done(queue: Queue, task: Task) -> bool:
    try:
        return bool(AsyncResult(task.id, app=queue.celery).ready())
    except (DecodeError, ValueError):  # cut short by the end of its worker
        return False


def _info(queue: Queue, rev: str) -> ExecutorInfo | None:
    """What DVC recorded of the run; None when it never started, or was cut short."""
    try:
        return ExecutorInfo.load_json(queue.get_infofile_path(rev))
    except (OSError, ValueError, TypeError):
        return None


def _processes(queue: Queue, rev: str) -> list[int]:
    """Living processes of the run: DVC's own, then those that work in its folder."""
    own, info = queue.proc.get(rev), _info(queue, rev)
    found = [own.pid] if own is not None and own.returncode is None and is_alive(own.pid, rev) else []
    within = working_in(Path(info.root_dir)) if info is not None and Path(info.root_dir).is_dir() else []
    return found + [pid for pid in within if pid not in found]


def _is_collected(queue: Queue, info: ExecutorInfo) -> bool:
    """Whether the experiment's commit is in this repository, by its name or, when it was renamed, by its hash."""
    if queue.scm.get_ref(info.result_ref) is not None:
        return True
    commits = (queue.scm.resolve_commit(queue.scm.get_ref(str(ref))) for ref in exp_refs(queue.scm))
    return any(info.result_hash in commit.message for commit in commits)


def _reason(queue: Queue, task: Task) -> str:
    process = queue.proc.get(task.entry.stash_rev)
    if process is None:
        error = AsyncResult(task.id, app=queue.celery).result
        return f"it did not start: {_one_line(str(error))}" if error else "it did not start"
    if process.returncode is not None and process.returncode < 0:
        return f"killed by {signal.Signals(-process.returncode).name}"
    return told(Path(process.stdout))


def told(log: Path) -> str:
    """The line in a run's log that says why it ended: a stage's `error: ...`, else DVC's own, else the last one."""
    try:
        with log.open("rb") as file:
            file.seek(max(0, log.stat().st_size - LOG_END_BYTES))
            text = file.read().decode("utf-8", errors="replace")
    except OSError:
        return "it left no log"
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    for start in ("error: ", "ERROR: "):
        for line in reversed(lines):
            if line.startswith(start):
                return line.removeprefix(start)
    return lines[-1] if lines else "it left no log"


def _one_line(text: str) -> str:
    return " ".join(text.split())


def requeue(repo: Repo, chosen: Iterable[Experiment]) -> None:
    """Let workers run these failed experiments again. A kill at any moment leaves each in the queue, or failed as now.

    Raises `EnvironmentProblem` when another process changes the queue, or git has removed a recorded commit.
    """
    queue = repo.experiments.celery_queue
    _let_idle_workers_end(queue)
    try:
        with get_exp_rwlock(repo, writes=[queue.ref]):
            for experiment in chosen:
                _requeue(queue, experiment)
    except LockError as error:
        raise EnvironmentProblem(f"the queue is in use ({_one_line(str(error))}); try again") from None


def _let_idle_workers_end(queue: Queue) -> None:
    """A worker without work ends within seconds, and would drop what it takes in that moment (see `_began`)."""
    deadline = time.monotonic() + IDLE_SECONDS
    while len(living_workers(queue)) > _Workers(queue).n_busy and time.monotonic() < deadline:
        time.sleep(0.5)


def _requeue(queue: Queue, experiment: Experiment) -> None:
    entry, rev = experiment.entry, experiment.rev
    if rev not in queue.stash.stash_revs:
        _stash(queue, experiment)
    if experiment.task is not None:
        queue.celery.purge(experiment.task.message.delivery_tag)
        with suppress(FileNotFoundError):  # of a worker that died there is none
            AsyncResult(experiment.task.id, app=queue.celery).forget()
    if failed := queue.failed_stash.stash_revs.get(rev):
        queue.failed_stash.remove_revs([failed])
    if (info := _info(queue, rev)) is not None and Path(info.root_dir).is_relative_to(queue.repo.tmp_dir):
        shutil.rmtree(info.root_dir, ignore_errors=True)
    del queue.proc[rev]  # the log of the run that failed
    Path(queue.get_infofile_path(rev)).unlink(missing_ok=True)
    args, kwargs = experiment.task.sent if experiment.task is not None else ((entry.asdict(),), {})
    queue.celery.signature(run_exp.s(*args, **kwargs)).delay()


def _stash(queue: Queue, experiment: Experiment) -> None:
    """Put the commit where a worker looks for it, as DVC does when it queues one."""
    entry = experiment.entry
    try:
        queue.scm.resolve_commit(entry.stash_rev)
    except Exception:  # DVC's and git's have no common base
        raise EnvironmentProblem(
            f"{experiment.name}: git has removed its commit {entry.stash_rev[:7]}; queue it anew: `dvc exp run --queue`"
        ) from None
    message = queue.stash.format_message(entry.head_rev, entry.baseline_rev, entry.name, entry.branch)
    queue.scm.set_ref(queue.ref, entry.stash_rev, message=f"commit: {message}")


def choose(found: list[Experiment], names: list[str]) -> list[Experiment]:
    """The failed ones that are named. Raises `ConfigError` for any other name."""
    failed = {one.name: one for one in found if one.state == "failed"}
    states = {one.name: one.state for one in found}
    for name in names:
        if name not in failed:
            said = f"is {states[name]}" if name in states else "is not in the queue"
            raise ConfigError(f"{name}: {said}; failed are: {', '.join(failed) or 'none'}")
    return [failed[name] for name in names]
