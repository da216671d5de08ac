"""What is forked is to itself, and ends, as what is started: otherwise the other tests would strike something else."""

import json
from typing import Any

import pytest

from tests.faults.conftest import Copy
from tests.faults.forks import Forks
from tests.faults.project import Project

pytestmark = pytest.mark.faults

STAGES = ("describe", "merge")  # of either zygote
PROBE = """\
import gc, json, locale, multiprocessing, os, resource, signal, sys, threading
limits = [name for name in dir(resource) if name.startswith("RLIMIT_")]
files = [f"/proc/self/fd/{name}" for name in os.listdir("/proc/self/fd")]
STANDARD = ("/0", "/1", "/2")
links = {file: os.readlink(file) for file in files if os.path.lexists(file)}
print(json.dumps({
    "words": sys.argv,
    "main": [__name__, __spec__.name, __file__, sys.modules["__main__"].__dict__ is globals()],
    "search": sys.path,
    "flags": [*map(str, sys.flags), sys.dont_write_bytecode, sys._xoptions],
    "Tuneline": sorted(name for name in sys.modules if name.startswith(("tuneline", "tests", "pytest", "sitecustom"))),
    "folder": os.getcwd(),
    "variables": dict(os.environ),
    "limits": {name: resource.getrlimit(getattr(resource, name)) for name in limits},
    "signals": {number: str(signal.getsignal(number)) for number in signal.valid_signals()},
    "blocked": [*signal.pthread_sigmask(signal.SIG_BLOCK, [])],
    "group": [os.getpgid(0), os.getsid(0), os.getpriority(os.PRIO_PROCESS, 0), os.umask(0), *os.sched_getaffinity(0)],
    "standard": [[each.encoding, each.errors, each.line_buffering, each.isatty()] for each in (sys.stdout, sys.stderr)],
    "open": {file: link.split("[")[0] for file, link in links.items() if "[" in link or file[-2:] in STANDARD},
    "locale": locale.setlocale(locale.LC_ALL),
    "threads": threading.active_count(),
    "processes": multiprocessing.get_start_method(allow_none=True),
    "hooks": [sys.excepthook is sys.__excepthook__, sys.displayhook is sys.__displayhook__],
    "collector": [gc.isenabled(), *gc.get_threshold()],
}))
"""
SHELLS_OWN = {"_", "OLDPWD", "SHLVL"}
LIBRARIES_OWN = {"TORCHINDUCTOR_CACHE_DIR"}  # set as they are imported, sooner or later
ENDS = {
    "good": "print('last')",
    "without a line's end": "print('last', end='')",
    "code": "raise SystemExit(3)",
    "large code": "raise SystemExit(259)",
    "words": "raise SystemExit('last')",
    "error": "raise ValueError('last')",
    "Ctrl-C": "raise KeyboardInterrupt",
    "kill": "import os; print('lost'); os.kill(os.getpid(), 9)",
    "abort": "import os; os.abort()",
    "handlers": "import atexit; atexit.register(print, 'last'); print('before')",
    "thread": "import threading; threading.Timer(0.2, print, ['last']).start()",
    "process": "import subprocess, sys; subprocess.run([sys.executable, '-c', 'print(1)']); print('last')",
    "both streams": "import sys; print('last'); print('first', file=sys.stderr)",
}


def with_code(project: Project, stage: str, code: str) -> Project:
    (project.folder / f"src/tuneline/stages/{stage}.py").write_text(code, encoding="utf-8")
    return project


@pytest.mark.parametrize("stage", STAGES)
def test_a_fork_finds_itself_as_a_process_of_its_own_does(
    stage: str, data_project: Project, copy: Copy, forks: Forks
) -> None:
    project = with_code(copy(data_project), stage, PROBE)
    project.file_kib = 5000
    ran = [each.run(stage, KILL_AT="1000") for each in (project, project.forking(forks))]
    assert [each.returncode for each in ran] == [0, 0], ran
    started, forked = (variables_of_stages(json.loads(each.stdout)) for each in ran)
    assert forked == started
    assert started["variables"]["DVC_ROOT"] == started["folder"] == str(project.folder)
    assert "KILL_AT" not in started["variables"], "sitecustomize has taken it"
    assert started["Tuneline"] == ["sitecustomize", "tuneline", "tuneline.stages"]


def variables_of_stages(found: dict[str, Any]) -> dict[str, Any]:
    others = SHELLS_OWN | LIBRARIES_OWN
    return found | {"variables": {name: value for name, value in found["variables"].items() if name not in others}}


@pytest.mark.parametrize("stage", STAGES)
def test_a_fork_ends_as_a_process_of_its_own_does(stage: str, data_project: Project, copy: Copy, forks: Forks) -> None:
    project = copy(data_project)
    for end, code in ENDS.items():
        with_code(project, stage, code)
        started, forked = (said_and_done(each, stage) for each in (project, project.forking(forks)))
        assert forked == started, end


def said_and_done(project: Project, stage: str) -> tuple[int, str]:
    """Without the places of a traceback: a fork has come through others."""
    ran = project.run(stage)
    first, lines, last = ran.stdout.partition("Traceback (most recent call last):\n")
    return ran.returncode, first + (lines and lines + last.splitlines()[-1])


def test_a_stage_with_variables_that_were_read_before_the_fork_is_refused(data_project: Project, forks: Forks) -> None:
    with pytest.raises(ValueError, match=r"a process of its own: HF_TOKEN, HOME$"):
        data_project.forking(forks).run("guard", HF_TOKEN="secret", HOME="/proc")
