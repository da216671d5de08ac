"""The tiny model, as a fixture: test folders are no packages, so that a helper module has to be loaded by path."""

import importlib.util
from pathlib import Path
from types import ModuleType

import pytest


@pytest.fixture(scope="session")
def tiny() -> ModuleType:
    """The module model/tiny.py."""
    path = Path(__file__).parents[1] / "model" / "tiny.py"
    spec = importlib.util.spec_from_file_location("tiny", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="session")
def base(tiny: ModuleType, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A base model folder: ChatML with a generation block, no BOS."""
    folder: Path = tiny.save_base(tmp_path_factory.mktemp("base"))
    return folder
