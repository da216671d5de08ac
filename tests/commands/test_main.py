"""The `tuneline` command: its menu, and what it does not import."""

import os
import subprocess
import sys
from importlib import import_module

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
