"""How a stage or a command starts and ends: arguments in, one clear line and a non-zero exit code on a user error."""

import argparse
import ctypes
import os
import select
import signal
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TextIO

from tuneline.errors import TunelineError
from tuneline.shortage import shortage

_PR_SET_PDEATHSIG = 1  # prctl(2)
# What a child runs before it becomes a program: it asks Linux to die with its parent (argv[1], if that still lives).
_MORTAL = f"""\
import ctypes, os, signal, sys
ctypes.CDLL(None).prctl({_PR_SET_PDEATHSIG}, signal.SIGKILL)
os.getppid() == int(sys.argv[1]) or sys.exit("its parent is gone")
os.execv(sys.argv[2], sys.argv[2:])
"""


def stage_arguments(
    description: str | None, *paths: str, names: tuple[str, ...] = (), lists: tuple[str, ...] = ()
) -> argparse.Namespace:
    """Parse `--params` and one required `--NAME` per path (a `Path`) and per name (a `str`) from the command line.

    Each of `lists` takes several paths.

    Every path a stage touches comes in here, so that dvc.yaml alone says where things lie.
    """
    parser = argparse.ArgumentParser(description=description)
    for path in ("params", *paths):
        parser.add_argument(f"--{path.replace('_', '-')}", type=Path, required=True)
    for several in lists:
        parser.add_argument(f"--{several.replace('_', '-')}", type=Path, nargs="+", required=True)
    for name in names:
        parser.add_argument(f"--{name.replace('_', '-')}", type=str, required=True)
    return parser.parse_args()


def run(main: Callable[[], None]) -> None:
    """Call `main`; a `TunelineError` becomes `error: ...` on stderr and exit code 1, without a traceback.

    So does what this machine has too little of, whichever library met it: room on the disk, and memory. Where the
    reader of what is printed has enough, as `| head -1`, the end is quiet, with the code that a shell has for SIGPIPE.
    """
    try:
        _call(main)
    except BrokenPipeError:
        if not any(map(_is_unread, (sys.stdout, sys.stderr))):  # another pipe, such as one to a child
            raise
        _drop_output()
        sys.exit(128 + signal.SIGPIPE)
    except Exception as error:
        if (reason := shortage(error)) is None:
            raise
        _drop_output()
        sys.exit(_tell(reason))


def _call(main: Callable[[], None]) -> None:
    """`main`, and then what it printed: here, where a closed pipe or a full disk is recognised, not at exit."""
    ended: SystemExit | None = None
    try:
        main()
    except TunelineError as error:
        ended = SystemExit(_tell(str(error)))
    except SystemExit as raised:
        ended = raised
    sys.stdout.flush()
    if ended is not None:
        raise ended


def _tell(reason: str) -> int:
    print(f"error: {reason}", file=sys.stderr)
    return 1


def _drop_output() -> None:
    """What cannot be written is not tried again by the interpreter as it exits: it would complain."""
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except OSError:
            os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


def _is_unread(stream: TextIO) -> bool:
    """Whether it is a pipe that nobody reads any more."""
    waiting = select.poll()
    waiting.register(stream.fileno(), 0)
    return any(event & select.POLLERR for _, event in waiting.poll(0))


def end_with_parent(number: signal.Signals) -> None:
    """Ask Linux for that signal when the parent ends: a killed `dvc` or stage leaves nobody behind who still writes.

    Elsewhere nothing happens; what such a process holds or writes is then told from what the next run does.
    """
    if sys.platform == "linux":
        parent = os.getppid()
        ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, number)
        if os.getppid() != parent:  # it ended before the call
            os.kill(os.getpid(), number)


def mortal(command: Sequence[str]) -> list[str]:
    """The command of a program that is not ours, made to end when this process ends; on Linux."""
    if sys.platform != "linux":
        return list(command)
    return [sys.executable, "-I", "-S", "-c", _MORTAL, str(os.getpid()), *command]
