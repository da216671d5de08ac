"""Compositions of conf/: through Hydra, as DVC does it, and by hand, which is quicker and shown to be equal."""

from collections.abc import Callable
from copy import deepcopy
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from omegaconf import DictConfig, OmegaConf

from tuneline.config.params import read_values

Values = dict[str, Any]
Choices = dict[str, str]


@pytest.fixture(scope="session")
def conf(pytestconfig: pytest.Config) -> Path:
    return pytestconfig.rootpath / "conf"


@pytest.fixture(scope="session")
def by_hydra(conf: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Values]:
    """`by_hydra("method=full")`: what `dvc exp run -S method=full` writes into params.yaml."""
    from tuneline.config.compose import compose_unvalidated

    out = tmp_path_factory.mktemp("composed") / "params.yaml"

    @cache
    def once(*overrides: str) -> Values:
        compose_unvalidated(conf, out, list(overrides))
        values = read_values(out)
        assert isinstance(values, dict)
        return values

    return lambda *overrides: deepcopy(once(*overrides))


@pytest.fixture(scope="session")
def defaults(conf: Path) -> Choices:
    """The choice of each group in config.yaml."""
    listed = OmegaConf.to_container(OmegaConf.load(conf / "config.yaml"), resolve=False)
    assert isinstance(listed, dict)
    pairs = [entry for entry in listed["defaults"] if isinstance(entry, dict)]
    return {group: choice for pair in pairs for group, choice in pair.items() if choice is not None}


@pytest.fixture(scope="session")
def choices(conf: Path, defaults: Choices) -> dict[str, list[str]]:
    """All choices of each group."""
    return {group: sorted(file.stem for file in (conf / group).glob("*.yaml")) for group in defaults}


@pytest.fixture(scope="session")
def by_hand(conf: Path, defaults: Choices, by_hydra: Callable[..., Values]) -> Callable[[Choices], Values]:
    """`by_hand({"method": "full"})`: the defaults with other choices, merged file by file."""
    digest = by_hydra()["conf_digest"]  # and registers the resolvers
    loaded: dict[tuple[str, str], DictConfig] = {}

    def part(group: str, choice: str) -> DictConfig:
        if (group, choice) not in loaded:
            path = conf / group / f"{choice}.yaml"
            content = OmegaConf.to_container(OmegaConf.load(path), resolve=False)
            is_global = path.read_text(encoding="utf-8").startswith("# @package _global_")
            loaded[group, choice] = DictConfig(content if is_global else {group: content})
        return loaded[group, choice]

    top = OmegaConf.create({"seed": 42, "conf_digest": digest})

    def merged(changes: Choices) -> Values:
        parts = [part(group, choice) for group, choice in {**defaults, **changes}.items()]
        values = OmegaConf.to_container(OmegaConf.merge(top, *parts), resolve=True)
        assert isinstance(values, dict)
        return {str(key): value for key, value in values.items()}

    return merged
