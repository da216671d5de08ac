"""Time and memory of a program and its children."""

import sys

import pytest

from tuneline.benchmarks.processes import run
from tuneline.errors import EnvironmentProblem

MIB = 2**20
HOLDS = "data = b'x' * (64 << 20); import time; time.sleep(0.4)"


def test_memory_is_that_of_all_processes_together() -> None:
    program = (
        f"import subprocess, sys; child = subprocess.Popen([sys.executable, '-c', {HOLDS!r}])\n"
        f"{HOLDS}\nchild.wait(); print('done'); print('{{\"n\": 3}}')"
    )
    measured = run([sys.executable, "-c", program], is_memory_sampled=True)
    assert measured.output == {"n": 3}
    assert measured.seconds > 0.4
    assert 128 * MIB < measured.peak_bytes < 200 * MIB


def test_memory_that_is_not_asked_for_is_not_sampled() -> None:
    assert run([sys.executable, "-c", "print('{}')"], is_memory_sampled=False).peak_bytes == 0


def test_a_program_that_fails_is_named_with_its_last_line() -> None:
    with pytest.raises(EnvironmentProblem, match=r"ended with code 1: ValueError: no$"):
        run([sys.executable, "-c", "raise ValueError('no')"], is_memory_sampled=False)


def test_the_processor_time_of_children_counts_and_waiting_does_not() -> None:
    work = "import time; end = time.process_time() + 0.4\nwhile time.process_time() < end: pass"
    program = (
        "import subprocess, sys, time\n"
        f"subprocess.run([sys.executable, '-c', {work!r}]); time.sleep(0.5); print('{{}}')"
    )
    measured = run([sys.executable, "-c", program], is_memory_sampled=False)
    assert 0.4 <= measured.cpu_seconds < measured.seconds
