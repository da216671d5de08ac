"""Stages that start in no time: a process that has imported what they need of others forks one for each request.

`python -m tests.faults.zygote DESCRIPTOR MODULE ...`: a socket, and what it imports. A request is one byte, with the
descriptor that the stage prints to, and a line of JSON; the answer, a line too, is the stage's exit code, or why none
was forked.

What is forked becomes what `python -m tuneline.stages...` would be. It gets the command's words, folder, variables and
limits, runs `sitecustomize`, imports Tuneline from the folder that PYTHONPATH names (so it is the code of that copy,
and as much of it as the stage imports), and ends as an interpreter does. What is older than the fork: Python read its
own variables (PYTHON..., LC_ALL, TZ) as it started, and libraries read hundreds of theirs as they were imported
(HF_..., TRANSFORMERS_..., HOME, XDG_..., TMPDIR, OMP_..., TORCH..., USE_TORCH, MPL..., TQDM_..., CI). So a stage is
refused that wants another value of any variable but MAY_DIFFER: it needs a process of its own.
"""

import contextlib
import gc
import importlib
import json
import os
import resource
import runpy
import socket
import sys
import threading
from pathlib import Path
from typing import Any

# Nobody reads these earlier than in the stage, but for bitsandbytes, which opens the GPUs of CUDA_VISIBLE_DEVICES as
# it is imported: here there are none, as in the commands of the stages that need none.
MAY_DIFFER = {
    *("CUDA_VISIBLE_DEVICES", "DVC_ROOT", "FILE_OPERATIONS", "KILL_AT", "PWD", "PYTEST_CURRENT_TEST", "PYTHONPATH"),
}
REPOSITORY, BEGUN_WITH = sys.path[0], dict(os.environ)


def main() -> None:
    descriptor, *modules = sys.argv[1:]
    for name in modules:
        importlib.import_module(name)
    assert not [name for name in sys.modules if name.partition(".")[0] == "tuneline"], "it is the copies' own"
    check_threads()
    gc.freeze()  # a collection in a fork, or at its end, would write to every page, and so copy it
    with socket.socket(fileno=int(descriptor)) as tests:
        request = serve(tests)
    if request is not None:
        become(request)


def check_threads() -> None:
    """A fork has one thread, and the locks that the others held. Those of pyarrow's jemalloc are ready for that."""
    names = [path.read_text().strip() for path in Path("/proc/self/task").glob("*/comm")]
    assert threading.active_count() == 1
    assert len([name for name in names if name != "jemalloc_bg_thd"]) <= 1, names


def serve(tests: socket.socket) -> dict[str, Any] | None:
    """In this process None, when nobody asks any more; in each fork what it is to become."""
    with tests.makefile("r", encoding="utf-8") as lines:
        while received := socket.recv_fds(tests, 1, 1)[1]:
            (output,) = received
            request = json.loads(lines.readline())
            answer: int | str = refusal(request["environment"])
            if not answer:
                child = os.fork()
                if child == 0:
                    os.dup2(output, 1)
                    os.dup2(output, 2)
                    os.close(output)
                    return dict(request)
                answer = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
            os.close(output)
            tests.sendall(f"{json.dumps(answer)}\n".encode())
    return None


def refusal(wanted: dict[str, str]) -> str:
    other = {name for name in {*BEGUN_WITH, *wanted} if BEGUN_WITH.get(name) != wanted.get(name)} - MAY_DIFFER
    return f"read before the fork, so that it needs a process of its own: {', '.join(sorted(other))}" if other else ""


def become(request: dict[str, Any]) -> None:
    """From here on this process is the stage's."""
    for name in {*BEGUN_WITH} - {*request["environment"]}:
        del os.environ[name]
    os.environ.update(request["environment"])  # with what libraries set as they were imported
    os.chdir(request["folder"])
    if (kib := request["file_kib"]) is not None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (kib * 1024, kib * 1024))
    source = [os.path.abspath(folder) for folder in os.environ["PYTHONPATH"].split(os.pathsep)]  # noqa: PTH100
    sys.path[:] = [os.getcwd(), *source, *sys.path[1:]]  # noqa: PTH109
    for package in ("tests.faults", "tests"):  # of this module
        del sys.modules[package]
    forget_draws()
    with contextlib.suppress(ModuleNotFoundError):
        importlib.import_module("sitecustomize")
    if request["fault"]:
        arrange(request["fault"])
    module, *sys.argv[1:] = request["words"]
    runpy.run_module(module, run_name="__main__", alter_sys=True)


def forget_draws() -> None:
    """NumPy's own generator begins anywhere in each process; torch's begins alike, and Python's knows of forks."""
    import numpy as np

    np.random.seed()


def arrange(fault: list[Any]) -> None:
    sys.path.append(REPOSITORY)
    faults = importlib.import_module("tests.faults.training_faults")
    sys.path.remove(REPOSITORY)
    faults.prepare(fault)


if __name__ == "__main__":
    main()
