"""conf/ and overrides become params.yaml, the way `dvc exp run` does it. The only importer of Hydra."""

from pathlib import Path

from dvc.utils.hydra import compose_and_dump  # type: ignore[import-untyped]  # DVC ships no types
from hydra.errors import HydraException
from omegaconf.errors import OmegaConfBaseException
from yaml import Mark, YAMLError
from yaml.error import MarkedYAMLError
from yaml.reader import ReaderError

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
    except YAMLError as error:
        raise ConfigError(f"{_syntax_problem(error)}; mend that line") from None
    except UnicodeDecodeError as error:
        raise ConfigError(f"{_not_utf8(conf)}: not UTF-8 ({error.reason}); save it as UTF-8") from None
    except OSError as error:
        raise ConfigError(f"{error.filename or conf}: {error.strerror or error}; it must be readable") from None


def _syntax_problem(error: YAMLError) -> str:
    """`file:line: what is wrong`; YAML's own message runs over several lines."""
    match error:
        case MarkedYAMLError(problem_mark=Mark() as mark):
            problem = f"{error.context}, {error.problem}" if error.context else error.problem
            return f"{mark.name}:{mark.line + 1}: not YAML: {problem}"
        case ReaderError():
            line = _line_of(Path(error.name), error.position)
            return f"{error.name}:{line}: not YAML: {error.reason}"
        case _:
            return f"not YAML: {' '.join(str(error).split())}"


def _line_of(path: Path, position: int) -> int:
    return path.read_text(encoding="utf-8").count("\n", 0, position) + 1


def _not_utf8(conf: Path) -> str:
    """The file that Hydra could not decode; its error does not name it."""
    for path in sorted(conf.rglob("*.yaml")):
        try:
            path.read_text(encoding="utf-8")
        except UnicodeDecodeError:
            return str(path)
    return str(conf)


def _first_lines(error: BaseException) -> str:
    """Hydra's message on one line, with the cause below it, which names the key."""
    messages = [error, error.__cause__] if error.__cause__ else [error]
    return "; ".join(" ".join(str(message).split()) for message in messages)
