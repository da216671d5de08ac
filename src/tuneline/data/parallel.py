"""Work on parts of a file in several processes, results in the order of the parts."""

import multiprocessing
import multiprocessing.connection
import multiprocessing.context
import multiprocessing.forkserver
import os
import sys
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from itertools import chain, islice
from pathlib import Path
from typing import Protocol, TypeVar

from tuneline.errors import DataError, EnvironmentProblem

Item = TypeVar("Item")
Result = TypeVar("Result")

_PRELOADED = ["tuneline.data.writing", "tuneline.data.splitting", "ftfy"]  # what workers import, the slow ones of it
_PARTS_AHEAD = 2  # per worker: enough that none waits, few enough that results do not pile up


@dataclass(frozen=True, slots=True)
class LineRange:
    """Whole lines of a file, by their bytes."""

    path: Path
    begin: int  # offset of the first byte
    end: int  # offset behind the last byte


def n_cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count() or 1


class Ordered(Protocol):
    """`work(part)` of every part, in the order of the parts, however many processes share the work.

    `work` is a function of a module (or a partial of one), as it travels to other processes. An error in one part
    ends all. Processes of one machine have a few parts each under way, so memory does not grow with the number of
    parts; Ray gets the list of them (not what they name on disk) at once.
    """

    def __call__(self, work: Callable[[Item], Result], parts: Iterable[Item]) -> Iterator[Result]: ...


@contextmanager
def processes(n_workers: int) -> Iterator[Ordered]:
    """Processes of this machine, started once for all calls; with one worker everything runs in this process.

    What they are forked from begins at once, so that it imports while the caller does what comes first.
    """
    if n_workers == 1:
        yield _in_this_process
        return
    with ProcessPoolExecutor(n_workers, mp_context=_context(), initializer=_watch_parent) as pool:
        try:
            yield partial(_in_pool, pool, n_workers)
        finally:
            pool.shutdown(cancel_futures=True)


def begin() -> None:
    """Start what processes are forked from before `processes` does: it imports while the caller is still importing."""
    _context()


def ordered(work: Callable[[Item], Result], parts: Iterable[Item], n_workers: int) -> Iterator[Result]:
    """One call of `processes(n_workers)`."""
    with processes(n_workers) as in_order:
        yield from in_order(work, parts)


def _watch_parent() -> None:
    """A worker is on its own as soon as its parent was killed: it would wait for work for ever, or write a part of it
    beside those of the next run."""
    parent = multiprocessing.parent_process()
    assert parent is not None
    threading.Thread(target=_end_behind, args=[parent.sentinel], daemon=True).start()


def _end_behind(sentinel: int) -> None:
    multiprocessing.connection.wait([sentinel])
    os._exit(1)


def _context() -> multiprocessing.context.BaseContext:
    """Workers that begin without this process's threads: a plain fork with those can wait for a lock for ever."""
    if "forkserver" not in multiprocessing.get_all_start_methods():
        return multiprocessing.get_context("spawn")
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(_PRELOADED)  # imported once, not once per worker
    multiprocessing.forkserver.ensure_running()
    return context


def _in_this_process(work: Callable[[Item], Result], parts: Iterable[Item]) -> Iterator[Result]:
    yield from map(work, parts)


def _in_pool(
    pool: ProcessPoolExecutor, n_workers: int, work: Callable[[Item], Result], parts: Iterable[Item]
) -> Iterator[Result]:
    coming = iter(parts)
    first = list(islice(coming, 2))
    if len(first) == 1:  # not worth the start of processes
        yield work(first[0])
        return
    waiting = chain(first, coming)
    under_way = deque(pool.submit(work, part) for part in islice(waiting, n_workers * _PARTS_AHEAD))
    try:
        while under_way:
            yield under_way.popleft().result()
            under_way.extend(pool.submit(work, part) for part in islice(waiting, 1))
    except BrokenProcessPool:
        raise EnvironmentProblem(
            "a worker process died, most often for want of memory; free some, or (in clean) set clean.workers lower"
        ) from None


def line_ranges(path: Path, n_bytes: int) -> Iterator[LineRange]:
    """A stage's file in ranges of at least `n_bytes`, each ending behind a line feed (or with the file).

    Raises `DataError` when there is no such file.
    """
    try:
        size = path.stat().st_size
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror}); run the stage that writes it") from None
    begin = 0
    with path.open("rb") as file:
        while begin < size:
            file.seek(min(begin + n_bytes, size) - 1)
            file.readline()  # to the end of the line that the range ends in
            yield LineRange(path, begin, file.tell())
            begin = file.tell()
