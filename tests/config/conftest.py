"""A valid set of values, which each test breaks in one place."""

from collections.abc import Callable
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest

from tuneline.config.params import read_values, validated
from tuneline.config.schema import Params
from tuneline.errors import ConfigError

Values = dict[str, Any]
Change = dict[str, Any]


@pytest.fixture(scope="session")
def _composed(pytestconfig: pytest.Config) -> Values:
    values = read_values(pytestconfig.rootpath / "params.yaml")
    assert isinstance(values, dict)
    return values


@pytest.fixture
def values(_composed: Values) -> Values:
    return deepcopy(_composed)


@pytest.fixture
def changed(values: Values) -> Callable[[Change], Values]:
    """The valid values with `{"train.weight_decay": -1}` put in."""

    def change(changes: Change) -> Values:
        for key, value in changes.items():
            *sections, last = [int(part) if part.isdigit() else part for part in key.split(".")]
            section: Any = values
            for name in sections:
                section = section[name]
            section[last] = value
        return values

    return change


@pytest.fixture
def check(changed: Callable[[Change], Values]) -> Callable[[Change], Params]:
    """Validate the valid values with changes."""
    return lambda changes: validated(changed(changes), "params.yaml")


@pytest.fixture
def problem(check: Callable[[Change], Params]) -> Callable[[Change], str]:
    """The one problem that the changes cause, without the file's name."""

    def explain(changes: Change) -> str:
        with pytest.raises(ConfigError) as caught:
            check(changes)
        message = str(caught.value)
        assert "\n" not in message, message
        return message.removeprefix("params.yaml: ")

    return explain


@pytest.fixture
def conf(tmp_path: Path) -> Path:
    """A small conf folder."""
    (tmp_path / "conf" / "model").mkdir(parents=True)
    (tmp_path / "conf" / "config.yaml").write_bytes(b"seed: 1\n")
    (tmp_path / "conf" / "model" / "a.yaml").write_bytes(b"name: a\nsize: 2\n")
    return tmp_path / "conf"
