"""Pin a model in conf/model/NAME.yaml: a hub model by the commit of its main branch, a folder by its files' hashes."""

import argparse
import re
from collections.abc import Iterable, Mapping
from pathlib import Path

from pydantic import TypeAdapter, ValidationError

from tuneline.config.explain import did_you_mean
from tuneline.config.params import read_values
from tuneline.config.schema.section import RepoPath
from tuneline.errors import ConfigError, EnvironmentProblem
from tuneline.model.pinned import folder_digests
from tuneline.output import write_text

_REVISION_LINE = re.compile(r"^revision:[ \t]*[^\s#]+[ \t]*(?P<comment>#.*)?$", re.MULTILINE)
_BLANK_LINES = r"(?:[ \t]*(?:#[^\n]*)?\n)*"  # comments too
_DIGESTS_LINES = re.compile(
    rf"^sha256:[^\n#]*(?P<comment>#[^\n]*)?(?:\n{_BLANK_LINES}[ \t]+[^\s#][^\n]*)*", re.MULTILINE
)
_COMMENT_COLUMN = 33
_TIMEOUT_S = 20.0


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("name", help="file in conf/model, without .yaml: qwen3_8b")
    parser.add_argument("--endpoint", help="address of the hub's API, for a mirror (the hub itself)")
    parser.add_argument("--conf", type=Path, default=Path("conf"), help="folder of the configuration (conf)")


def execute(arguments: argparse.Namespace) -> None:
    """Ask, write, say what to do next."""
    path = _model_file(arguments.conf, arguments.name)
    text = path.read_text(encoding="utf-8")
    name, is_folder = _named(path)
    if is_folder:
        folder = _folder(arguments.conf.parent, name)
        digests = folder_digests(folder)
        _check_names(folder, digests)
        write_text(path, with_digests(text, digests, path))
        print(f"{path}: the hashes of {len(digests)} files in {name}; now run `make params`")
    else:
        revision = hub_commit(name, arguments.endpoint)
        write_text(path, with_revision(text, revision, path))
        print(f"{path}: revision {revision} of {name}; now run `make params`")


def hub_commit(repo: str, endpoint: str | None) -> str:
    """The commit of `repo`'s main branch, 40 hex digits. Raises `ConfigError` when `repo` can be no hub id."""
    revision = _ask(repo, endpoint)
    if revision is None or re.fullmatch(r"[0-9a-f]{40}", revision) is None:
        problem = f"the endpoint answered revision {revision!r}, allowed is 40 hex digits; is it a hub?"
        raise EnvironmentProblem(f"{repo}: {problem}")
    return revision


def _ask(repo: str, endpoint: str | None) -> str | None:
    from huggingface_hub import HfApi, errors  # here: importing it takes half a second

    try:
        return HfApi(endpoint=endpoint).model_info(repo, revision="main", timeout=_TIMEOUT_S).sha
    except errors.GatedRepoError:
        problem = "gated; accept its licence on the hub, then run `hf auth login`"
    except errors.RepositoryNotFoundError:
        problem = "not on the hub, or private; check name_or_path, or run `hf auth login`"
    except errors.HFValidationError as error:
        reason = " ".join(str(error).split())
        raise ConfigError(f"{repo}: no hub id ({reason}); mend name_or_path, such as Qwen/Qwen3-8B") from None
    except (errors.HTTPError, OSError) as error:  # type: ignore[attr-defined]  # of the client it builds on
        reason = str(error).partition("\n")[0]
        problem = f"no commit from the hub ({reason}); check the network, and that you are logged in"
    raise EnvironmentProblem(f"{repo}: {problem}")


def with_revision(text: str, revision: str, path: Path) -> str:
    """`text` with its revision line changed and everything else, comments included, as it was."""
    found = _REVISION_LINE.findall(text)
    if len(found) != 1:
        raise ConfigError(f"{path}: {len(found)} lines `revision: ...`, allowed is one; add `revision: null`")
    comment = f"# commit of main; `tuneline pin {path.stem}` writes the newest one here"
    return _REVISION_LINE.sub(f"revision: {revision}  {comment}", text)


def with_digests(text: str, digests: Mapping[str, str], path: Path) -> str:
    """`text` with its hashes changed and everything else, comments included, as it was."""
    found = list(_DIGESTS_LINES.finditer(text))
    if len(found) != 1:
        raise ConfigError(f"{path}: {len(found)} lines `sha256: ...`, allowed is one; add `sha256: null`")
    comment = found[0]["comment"] or f"# of each file; `tuneline pin {path.stem}` writes them anew"
    lines = [f"{'sha256:':<{_COMMENT_COLUMN}}{comment}", *(f"  {name}: {digest}" for name, digest in digests.items())]
    return text[: found[0].start()] + "\n".join(lines) + text[found[0].end() :]


def _folder(root: Path, name: str) -> Path:
    if not any((root / name).glob("*.safetensors")):
        raise ConfigError(f"{root / name}: no model folder with safetensors; fetch or make it first, then pin it")
    return root / name


def _check_names(folder: Path, names: Iterable[str]) -> None:
    for name in names:
        try:
            TypeAdapter(RepoPath).validate_python(name)
        except ValidationError:
            allowed = "allowed are letters, digits, _ . - and /; rename it, or move it out of the folder"
            raise ConfigError(f"{folder}: {name!r} is no name for conf/model, {allowed}") from None


def _model_file(conf: Path, name: str) -> Path:
    names = sorted(path.stem for path in (conf / "model").glob("*.yaml"))
    if name not in names:
        allowed = ", ".join(names) or f"none, {conf}/model is empty"
        raise ConfigError(f"{name}: no such file in {conf}/model, allowed is {allowed}{did_you_mean(name, names)}")
    return conf / "model" / f"{name}.yaml"


def _named(path: Path) -> tuple[str, bool]:
    """The model's hub id or folder, and whether it is a folder."""
    match read_values(path):
        case {"name_or_path": str(name), "tracked_path": str(tracked)}:
            return name, tracked == name
    raise ConfigError(f"{path}: name_or_path or tracked_path is missing; set both (see {path.parent}/qwen3_8b.yaml)")
