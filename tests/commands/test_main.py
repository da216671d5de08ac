"""The `tuneline` command: its menu, and what it does not import."""

import os
import signal
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import pytest

from tuneline.commands.main import COMMANDS, dispatch


@pytest.mark.parametrize("command", COMMANDS, ids=[command.name for command in COMMANDS])
def test_every_command_has_its_two_functions(command: object) -> None:
    module = import_module(command.module)  # type: ignore[attr-defined]  # a NamedTuple, hidden by parametrize
    assert callable(module.add_arguments)
    assert callable(module.execute)


def test_help_lists_every_command(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        dispatch(["--help"])
    assert ended.value.code == 0
    printed = capsys.readouterr().out
    assert all(command.name in printed for command in COMMANDS)


def test_help_imports_no_library(pytestconfig: pytest.Config) -> None:
    heavy = "{'torch', 'numpy', 'pydantic', 'omegaconf', 'hydra', 'dvc', 'huggingface_hub', 'transformers', 'rich'}"
    code = (
        "import sys\nfrom tuneline.commands.main import dispatch\n"
        f"try:\n    dispatch(['--help'])\nexcept SystemExit:\n    print(sorted({heavy} & set(sys.modules)))"
    )
    environment = {**os.environ, "PYTHONPATH": str(pytestconfig.rootpath / "src")}
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment, check=True)
    assert ran.stdout.splitlines()[-1] == "[]"


@pytest.mark.parametrize("words", [[], ["nothing"], ["pin"], ["pin", "x", "--nothing"]])
def test_a_wrong_command_line_ends_with_usage(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        dispatch(words)
    assert ended.value.code == 2
    assert "usage: tuneline" in capsys.readouterr().err


def piped(code: str, *, n_lines: int) -> tuple[int, str]:
    """Exit code and errors of a process whose reader takes so many lines and is gone, as `| head` does."""
    environment = {**os.environ, "PYTHONPATH": "src", "PYTHONUNBUFFERED": ""}  # empty: a pipe is buffered, as usual
    command = [sys.executable, "-c", f"from tuneline.entry import run\n{code}"]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        assert all(process.stdout.readline() for _ in range(n_lines))
        process.stdout.close()
        process.stdin.write("closed\n")  # what `input()` waits for
        process.stdin.close()
        assert process.stderr is not None
        errors = process.stderr.read()
    return process.returncode, errors


@pytest.mark.parametrize(
    ("code", "n_lines"),
    [
        ("run(lambda: [print(number) for number in range(100_000)])", 1),
        ("run(lambda: (input(), print('short')))", 0),  # met as the buffer is emptied, at the end
        ("run(lambda: (input(), print('flushed', flush=True)))", 0),
        ("import sys\nrun(lambda: (input(), print('and an exit code'), sys.exit(3)))", 0),
        ("from rich.table import Table\nfrom tuneline.commands.console import open_console\n"
         "run(lambda: (input(), open_console(80).print(Table('a'))))", 0),
    ],
    ids=["many lines", "few lines", "flushed", "own exit", "table"],
)  # fmt: skip
def test_a_reader_that_has_enough_ends_a_command_quietly(code: str, n_lines: int) -> None:
    assert piped(code, n_lines=n_lines) == (128 + signal.SIGPIPE, "")


def test_a_reader_that_has_enough_hides_no_error() -> None:
    code = """
from tuneline.errors import DataError
def main():
    input()
    print("a line")
    raise DataError("3 damaged")
run(main)"""
    assert piped(code, n_lines=0) == (128 + signal.SIGPIPE, "error: 3 damaged\n")


def test_a_reader_that_has_enough_hides_no_defect() -> None:
    ended, errors = piped("run(lambda: (input(), print('a line'), 1 / 0))", n_lines=0)
    assert ended != 128 + signal.SIGPIPE
    assert "ZeroDivisionError: division by zero" in errors


def test_a_full_disk_behind_standard_output_is_one_line() -> None:
    code = "from tuneline.entry import run\nrun(lambda: print('a line'))"
    environment = {**os.environ, "PYTHONPATH": "src"}
    with Path("/dev/full").open("w") as full:
        ended = subprocess.run(
            [sys.executable, "-c", code], stdout=full, stderr=subprocess.PIPE, text=True, env=environment, check=False
        )
    assert ended.returncode == 1
    assert ended.stderr.startswith("error: no room on the disk")
    assert ended.stderr.count("\n") == 1


def test_output_that_nobody_can_take_leaves_no_file_open() -> None:
    code = """
import os, sys
from tuneline.entry import run
before = os.listdir("/dev/fd")
try:
    run(lambda: print("a line"))
finally:
    print(os.listdir("/dev/fd") == before, file=sys.stderr)"""
    environment = {**os.environ, "PYTHONPATH": "src", "PYTHONUNBUFFERED": ""}  # empty: buffered, as usual
    with Path("/dev/full").open("w") as full:
        ended = subprocess.run(
            [sys.executable, "-c", code], stdout=full, stderr=subprocess.PIPE, text=True, env=environment, check=False
        )
    assert ended.stderr.splitlines()[1:] == ["True"]


def test_a_broken_pipe_to_another_process_stays_a_defect_with_its_traceback() -> None:
    code = """
import subprocess
from tuneline.entry import run
def main():
    with subprocess.Popen(["true"], stdin=subprocess.PIPE, bufsize=0) as child:
        child.wait()
        child.stdin.write(b"x")
run(main)"""
    environment = {**os.environ, "PYTHONPATH": "src"}
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment, check=False)
    assert ended.returncode == 1
    assert ended.stderr.endswith("BrokenPipeError: [Errno 32] Broken pipe\n")
