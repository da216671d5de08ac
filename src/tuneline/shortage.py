"""What this machine has too little of, memory or room on the disk: recognised, whichever library met it."""

import errno
import re
from collections.abc import Iterator
from contextlib import contextmanager

from tuneline.errors import EnvironmentProblem

_NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
# Libraries that write without Python lose the number: safetensors, Parquet, NumPy and PyTorch, in their own words.
_NO_ROOM_WORDS = re.compile(
    rf"os error ({'|'.join(map(str, _NO_ROOM))})\)|\d+ requested and \d+ written|PytorchStreamWriter failed writing"
    "|No space left on device|File too large|Disk quota exceeded"
)
_NO_MEMORY_WORDS = re.compile("(?i)can(no|')t allocate memory|not enough memory|out of memory")


def is_out_of_room(error: BaseException) -> bool:
    """Whether the disk is full, a quota used up or a file as large as it may be."""
    return (isinstance(error, OSError) and error.errno in _NO_ROOM) or bool(_NO_ROOM_WORDS.search(str(error)))


def is_out_of_memory(error: BaseException) -> bool:
    """Whether this machine or its GPU had too little memory: as Python, NumPy and PyTorch say it."""
    return isinstance(error, MemoryError) or (
        isinstance(error, RuntimeError | OSError) and bool(_NO_MEMORY_WORDS.search(str(error)))
    )


def shortage(error: BaseException | None) -> str | None:
    """In one line what was short and what to do, for the error or one that it came of; None for any other error."""
    while error is not None:
        if is_out_of_room(error):
            return f"no room on the disk ({words(error)}); make some (`dvc gc --workspace` removes old results)"
        if is_out_of_memory(error):
            return f"out of memory ({words(error)}); end other programs, or take a machine with more"
        error = error.__cause__ or error.__context__
    return None


@contextmanager
def out_of_memory_names(what: str, advice: str) -> Iterator[None]:
    """Want of memory inside becomes an `EnvironmentProblem` that says during what, and which setting to change."""
    try:
        yield
    except Exception as error:
        if is_out_of_memory(error):
            raise EnvironmentProblem(f"{what}: out of memory ({words(error)}); {advice}") from error
        raise


def words(error: BaseException) -> str:
    """Kind and first line of an error."""
    return f"{type(error).__name__}: {next(iter(str(error).splitlines()), '')}".removesuffix(": ")
