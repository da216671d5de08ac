"""conf/ and overrides become params.yaml, the way `dvc exp run` does it. The only importer of Hydra."""

from pathlib import Path

from dvc.utils.hydra import compose_and_dump  # type: ignore[import-untyped]  # DVC ships no types
from hydra.errors import HydraException
from omegaconf.errors import OmegaConfBaseException

from tuneline.config.params import read_values, validated
from tuneline.config.schema import Params
from tuneline.errors import ConfigError


def compose(conf: Path, out: Path, overrides: list[str]) -> Params:
    """Compose `conf`/config.yaml into `out` and return it validated; on any error `out` stays as it was."""
    temporary = out.with_name(f".{out.stem}.partial.yaml")  # the suffix decides the format that DVC writes
    try:
        compose_unvalidated(conf, temporary, overrides)
        params = validated(read_values(temporary), str(conf))
        temporary.replace(out)
    finally:
        temporary.unlink(missing_ok=True)
    return params


def compose_unvalidated(conf: Path, out: Path, overrides: list[str]) -> None:
    """What `dvc exp run` writes, before the guard stage has looked at it."""
    if not (conf / "config.yaml").is_file():
        raise ConfigError(f"{conf}/config.yaml: no such file; run this in the repository root")
    try:
        compose_and_dump(
            output_file=out,
            config_dir=str(conf.resolve()),
            config_module=None,
            config_name="config",
            plugins_path=str((conf / "plugins").resolve()),
            overrides=overrides,
        )
    except (HydraException, OmegaConfBaseException) as error:
        raise ConfigError(f"{conf}: {_first_lines(error)}") from None


def _first_lines(error: BaseException) -> str:
    """Hydra's message on one line, with the cause below it, which names the key."""
    messages = [error, error.__cause__] if error.__cause__ else [error]
    return "; ".join(" ".join(str(message).split()) for message in messages)
