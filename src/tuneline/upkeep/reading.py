"""Digests of many files, by all cores: hashlib lets go of the interpreter while it works."""

import hashlib
import os
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import FIRST_COMPLETED, ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Literal

Algorithm = Literal["md5", "sha256"]
BLOCK_BYTES = 1 << 20
BATCH_BYTES = 16 << 20  # of small files that one thread takes at once: to hand out each by itself takes longer


@dataclass(slots=True)
class File:
    """A file to read once, whatever is asked of it, and what was found: None when it could not be read."""

    path: Path
    n_bytes: int
    algorithms: set[Algorithm] = field(default_factory=set)
    digests: Mapping[Algorithm, str] | None = None


def read_all(files: Iterable[File]) -> Iterator[int]:
    """Fill in the digests; yields the bytes that were read since the last time. The largest files come first."""
    ordered = sorted(files, key=lambda file: -file.n_bytes)
    n_threads = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    with ThreadPoolExecutor(n_threads) as pool:
        batches = _batches(ordered)
        running = {pool.submit(_read_batch, batch) for batch in islice(batches, 2 * n_threads)}
        while running:
            done, running = wait(running, return_when=FIRST_COMPLETED)
            running |= {pool.submit(_read_batch, batch) for batch in islice(batches, len(done))}
            yield sum(future.result() for future in done)


def _batches(files: list[File]) -> Iterator[list[File]]:
    batch: list[File] = []
    for file in files:
        batch.append(file)
        if sum_bytes(batch) >= BATCH_BYTES or len(batch) == 256:
            yield batch
            batch = []
    if batch:
        yield batch


def sum_bytes(files: Iterable[File]) -> int:
    return sum(file.n_bytes for file in files)


def _read_batch(files: list[File]) -> int:
    block = memoryview(bytearray(min(BLOCK_BYTES, max(file.n_bytes for file in files) + 1)))
    for file in files:
        file.digests = _digests(file, block)
    return sum_bytes(files)


def _digests(file: File, block: memoryview) -> Mapping[Algorithm, str] | None:
    hashes = {name: hashlib.new(name, usedforsecurity=False) for name in sorted(file.algorithms)}
    try:
        with file.path.open("rb", buffering=0) as opened:
            while n_read := opened.readinto(block):
                for one in hashes.values():
                    one.update(block[:n_read])
    except OSError:
        return None
    return {name: one.hexdigest() for name, one in hashes.items()}
