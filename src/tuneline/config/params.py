"""Reading params.yaml: all of its problems in one error."""

from pathlib import Path

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from pydantic import ValidationError
from yaml import YAMLError

from tuneline.config.explain import explanations
from tuneline.config.rules.whole import broken_rules
from tuneline.config.schema import Params
from tuneline.errors import ConfigError


def read_params(path: Path) -> Params:
    """Read and validate params.yaml. Raises one `ConfigError` that lists every problem."""
    values = read_values(path)
    try:
        return validated(values, str(path))
    except ConfigError as error:
        raise ConfigError(f"{error}; mend it in conf/, then run `make params`") from None


def validated(values: object, origin: str) -> Params:
    """Apply the schema, then the rules that compare keys; a message starts with `origin`."""
    try:
        params = Params.model_validate(values)
    except ValidationError as error:
        raise _config_error(origin, explanations(error)) from None
    problems = list(broken_rules(params))
    if problems:
        raise _config_error(origin, problems)
    return params


def read_values(path: Path) -> object:
    """The file's mapping, read by OmegaConf because PyYAML takes `3e-4` for a string."""
    if not path.is_file():
        raise ConfigError(f"{path}: no such file; run `make params` to compose it from conf/")
    try:
        loaded = OmegaConf.load(path)
        # '???' would pass as a string; a composed file has nothing left to resolve
        values = OmegaConf.to_container(loaded, resolve=False, throw_on_missing=True)
    except (YAMLError, OmegaConfBaseException, UnicodeDecodeError) as error:
        reason = " ".join(str(error).split())
        raise ConfigError(f"{path}: not readable: {reason}; run `make params`") from None
    if not isinstance(loaded, DictConfig) or not loaded:
        raise ConfigError(f"{path}: holds no keys; run `make params` to compose it from conf/")
    return values


def _config_error(origin: str, problems: list[str]) -> ConfigError:
    if len(problems) == 1:
        return ConfigError(f"{origin}: {problems[0]}")
    return ConfigError("\n  ".join([f"{origin}: {len(problems)} problems", *problems]))
