"""The guard stage, called as dvc.yaml calls it."""

import shutil
import sys
from pathlib import Path

import pytest

from tuneline.errors import ConfigError
from tuneline.stages import guard


@pytest.fixture
def project(pytestconfig: pytest.Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    shutil.copytree(pytestconfig.rootpath / "conf", tmp_path / "conf")
    shutil.copy(pytestconfig.rootpath / "params.yaml", tmp_path / "params.yaml")
    monkeypatch.chdir(tmp_path)
    words = ["guard", "--params", "params.yaml", "--conf", "conf", "--out", "data/guard.txt"]
    monkeypatch.setattr(sys, "argv", words)
    return tmp_path


def test_guard_writes_the_same_file_whatever_the_values(project: Path) -> None:
    guard.main()
    first = (project / "data/guard.txt").read_bytes()
    params = project / "params.yaml"
    params.write_text(params.read_text(encoding="utf-8").replace("seed: 42", "seed: 43"), encoding="utf-8")
    guard.main()
    assert (project / "data/guard.txt").read_bytes() == first


def test_guard_refuses_stale_params(project: Path) -> None:
    with (project / "conf/config.yaml").open("a", encoding="utf-8") as file:
        file.write("# an edit\n")
    with pytest.raises(ConfigError, match=r"params\.yaml is stale: conf/ has changed since; run `make params`"):
        guard.main()
    assert not (project / "data/guard.txt").exists()


def test_guard_refuses_an_impossible_value(project: Path) -> None:
    params = project / "params.yaml"
    params.write_text(params.read_text(encoding="utf-8").replace("  r: 16", "  r: abc"), encoding="utf-8")
    with pytest.raises(ConfigError, match=r"params\.yaml: lora\.r: 'abc', allowed is a whole number"):
        guard.main()
