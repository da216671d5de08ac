"""The files that a source's path stands for, none of them outside the folder that experiments are made of."""

from dataclasses import dataclass
from pathlib import Path

from tuneline.errors import DataError


@dataclass(frozen=True, slots=True)
class Located:
    """A file of a source."""

    path: Path
    label: str  # see Example.file: the path behind the glob's fixed folders; "" for a path that names one file


def located(path: str, key: str, folder: Path) -> list[Located]:
    """The file at `path`, or the files that it matches when it holds * or ?, sorted by path; hidden ones are no data.

    `key` is where the path stands in the configuration. Raises `DataError` for a file that does not exist, for a glob
    without any, and for one that lies outside `folder`, by itself or through a symbolic link: DVC would not version it.
    """
    try:
        return _found(path, key, folder)
    except (OSError, RuntimeError, ValueError) as error:  # a link to itself is a RuntimeError, a wrong ** a ValueError
        reason = error.strerror if isinstance(error, OSError) else error
        raise DataError(f"{path:.200}: cannot be looked up ({reason!s:.200}); change {key}") from None


def _found(path: str, key: str, folder: Path) -> list[Located]:
    fixed, pattern = _divided(Path(path))
    if not pattern:
        return [_checked(Located(fixed, ""), key, folder)]
    pattern = pattern.replace("[", "[[]")  # a bracket stands for itself, as in a path without * and ?
    if pattern.endswith("**"):
        pattern += "/*"  # before Python 3.13 a last ** finds folders only
    matches = fixed.glob(pattern)
    found = [_relative(match, fixed) for match in matches if match.is_file()]
    found = sorted((file for file in found if not _is_hidden(file.label)), key=lambda file: file.label)
    if not found:
        raise DataError(f"{path}: matches no file; put some there, or `dvc pull` them, or change {key}")
    return [_checked(file, key, folder) for file in found]


def _divided(path: Path) -> tuple[Path, str]:
    """The folders before the first * or ?, and the rest, which is empty when there is neither."""
    for index, part in enumerate(path.parts):
        if "*" in part or "?" in part:
            return Path(*path.parts[:index]), "/".join(path.parts[index:])
    return path, ""


def _relative(path: Path, folder: Path) -> Located:
    return Located(path, path.relative_to(folder).as_posix())


def _is_hidden(label: str) -> bool:
    return any(part.startswith(".") for part in label.split("/"))


def _checked(file: Located, key: str, folder: Path) -> Located:
    if not file.path.resolve().is_relative_to(folder.resolve()):
        raise DataError(
            f"{file.path}: leads out of the repository, to {file.path.resolve()}; copy it in and change {key}"
            " (a link of DVC's: `dvc config cache.type reflink,hardlink,copy`, then `dvc checkout --relink`)"
        )
    if not file.path.exists():
        raise DataError(f"{file.path}: no such file; put it there, or `dvc pull` it, or change {key}")
    if not file.path.is_file():
        raise DataError(f"{file.path}: is no file; {key} names one file, or several with * and ?")
    return file
