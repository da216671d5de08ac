"""Work on parts in a Ray cluster, through Ray Data: `ray.data.Dataset.map` over the parts.

All machines must see the repository at the same path, as parts are read from it and written beside the outputs.
"""

import logging
import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from tuneline.data.parallel import Item, Ordered, Result
from tuneline.errors import EnvironmentProblem, TunelineError


@contextmanager
def ray_processes(n_workers: int | None) -> Iterator[Ordered]:
    """The cluster named by RAY_ADDRESS, or one of this machine's with `n_workers` CPUs that ends with the block.

    RAY_ADDRESS is Ray's own convention, and the only environment variable that is read here.
    Raises `EnvironmentProblem` when Ray is not installed, or no cluster answers there.
    """
    ray = _ray()
    _connect(ray, os.environ.get("RAY_ADDRESS"), n_workers)
    try:
        yield _in_cluster
    finally:
        ray.shutdown()


def _ray() -> Any:
    try:
        import ray  # type: ignore[import-not-found, unused-ignore]  # an optional extra
        import ray.data  # type: ignore[import-not-found, unused-ignore]
    except ImportError:
        raise EnvironmentProblem(
            "clean.engine: ray is not installed; pip install 'tuneline[ray]', or choose local"
        ) from None
    return ray


def _connect(ray: Any, cluster: str | None, n_workers: int | None) -> None:
    try:
        ray.init(
            address=cluster,
            num_cpus=None if cluster else n_workers,
            include_dashboard=False,
            logging_level=logging.ERROR,
            log_to_driver=False,
        )
    except (ConnectionError, ValueError) as error:  # ValueError: no address at all
        reason = " ".join(str(error).split())[:200]
        raise EnvironmentProblem(
            f"RAY_ADDRESS: no Ray cluster at {cluster} ({reason}); correct it, or unset it to use this machine"
        ) from None
    ray.data.DataContext.get_current().enable_progress_bars = False  # ours counts rows, not blocks
    logging.getLogger("ray.data").setLevel(logging.ERROR)


def _in_cluster(work: Callable[[Item], Result], parts: Iterable[Item]) -> Iterator[Result]:
    import ray.data  # type: ignore[import-not-found, unused-ignore]

    rows: list[dict[str, Any]] = [{"number": number, "part": _AsItIs(part)} for number, part in enumerate(parts)]
    if not rows:
        return
    done = ray.data.from_items(rows, override_num_blocks=len(rows)).map(_Numbered(work))
    for result in _by_number((row["number"], row["result"].value) for row in done.iter_rows()):
        if isinstance(result, TunelineError):
            raise result
        yield result


@dataclass(frozen=True, slots=True)
class _AsItIs:
    """Keeps Ray Data from turning lists and tuples of numbers into arrays of one type."""

    value: Any


class _Numbered:
    """`work` on one row of a Ray dataset, whose blocks arrive in any order."""

    def __init__(self, work: Callable[[Any], Any]) -> None:
        self._work = work

    def __call__(self, row: dict[str, Any]) -> dict[str, Any]:
        try:
            result = self._work(row["part"].value)
        except TunelineError as error:  # as a value: Ray would wrap it and lose its kind
            result = error
        return {"number": row["number"], "result": _AsItIs(result)}


def _by_number(results: Iterable[tuple[int, Result]]) -> Iterator[Result]:
    """Results in the order of their numbers, each as soon as all before it are there."""
    early: dict[int, Result] = {}
    expected = 0
    for number, result in results:
        early[number] = result
        while expected in early:
            yield early.pop(expected)
            expected += 1
