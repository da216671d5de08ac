"""What carries out the work on parts: processes of this machine, or a Ray cluster."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal

from tuneline.data.parallel import Ordered, n_cores, processes


@contextmanager
def engine(name: Literal["local", "ray"], n_workers: int | None) -> Iterator[Ordered]:
    """The engine of that name, with one process per core for `n_workers` None. The results are the same."""
    match name:
        case "local":
            with processes(n_workers or n_cores()) as ordered:
                yield ordered
        case "ray":
            from tuneline.data.ray_engine import ray_processes  # an optional extra, of half a gigabyte

            with ray_processes(n_workers) as ordered:
                yield ordered
