"""What `tuneline deploy` fetches: a DVC-tracked folder of a git repository at a revision, by DVC's own API.

https://dvc.org/doc/api-reference/dvcfilesystem
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit, urlunsplit

from dvc.api import DVCFileSystem  # type: ignore[import-untyped]  # DVC ships no types
from dvc.exceptions import NotDvcRepoError  # type: ignore[import-untyped]
from dvc.scm import CloneError  # type: ignore[import-untyped]

from tuneline.errors import EnvironmentProblem


@dataclass(frozen=True, slots=True)
class Source:
    """`files` is DVC's view of the repository at `commit`; `path` is a folder in it."""

    repo: str
    rev: str
    commit: str
    path: str
    files: DVCFileSystem

    @property
    def public_repo(self) -> str:
        return without_user(self.repo)

    def n_bytes(self) -> int:
        """Size of all files together, as DVC recorded them."""
        with _in_one_line(self.repo, self.rev):
            found: Mapping[str, Any] = self.files.find(self.path, detail=True)
            return sum(int(entry["size"] or 0) for entry in found.values())

    def download(self, to: Path) -> None:
        """Raises `EnvironmentProblem` when the storage cannot be reached or lacks a file."""
        with _in_one_line(self.repo, self.rev):
            self.files.get(self.path, str(to), recursive=True)


@contextmanager
def open_source(
    repo: str, rev: str, path: str, remote: str | None, remote_config: Mapping[str, str]
) -> Iterator[Source]:
    """The folder `path` at `rev`, from the repository's default remote, or `remote` with changed settings.

    Raises `EnvironmentProblem` when there is no such repository, revision or folder.
    """
    with _in_one_line(repo, rev):
        files = DVCFileSystem(repo, rev=rev, remote=remote, remote_config=dict(remote_config) or None)
        source = Source(repo, rev, files.repo.get_rev(), path, files)
        is_there = files.isdir(path)
    if not is_there:
        raise EnvironmentProblem(f"{source.public_repo}: no folder {path} at {rev}; `dvc list` shows what there is")
    try:
        yield source
    finally:
        files.close()


def without_user(repo: str) -> str:
    """The address without a user name or token that it may hold."""
    parts = urlsplit(repo)
    return repo if "@" not in parts.netloc else urlunsplit(parts._replace(netloc=parts.netloc.split("@")[-1]))


@contextmanager
def _in_one_line(repo: str, rev: str) -> Iterator[None]:
    """DVC, git, SSH and cloud libraries have no common exception; all of theirs mean: it could not be fetched."""
    try:
        yield
    except Exception as error:
        causes = [error, error.__cause__] if error.__cause__ is not None else [error]
        told = ": ".join(str(cause) or type(cause).__name__ for cause in causes)
        reason = " ".join(told.replace(repo, without_user(repo)).split())
        raise EnvironmentProblem(f"{without_user(repo)} at {rev}: {reason}{_fix(error, reason, repo)}") from error


def _fix(error: Exception, reason: str, repo: str) -> str:
    """What to do about the failures that are common, to be added to the message."""
    if "dvc-ssh" in reason or "dvc_ssh" in reason:
        return "; pip install 'tuneline[ssh]'"
    if "unknown Git revision" in reason:
        return f"; `git ls-remote --heads --tags {without_user(repo)}` shows which there are"
    if isinstance(error, CloneError | NotDvcRepoError) or "is not a git repository" in reason:
        return (
            "; give the folder of a Tuneline repository, or an address that git can clone: "
            f"`git ls-remote {without_user(repo)}` tells whether it is there and may be read"
        )
    return ""
