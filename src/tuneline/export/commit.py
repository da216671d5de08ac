"""The commit that a packaged model was made of: the one thing a stage reads that is no declared input of it.

A stage reads what dvc.yaml declares and nothing else, no environment and no clock, so that the same inputs give the
same bytes. This is the one exception, for lineage: no file that DVC could declare holds the commit that it is part of.
The answer is not HEAD but the last commit that changed an input of the experiment, and the inputs are what people
commit, never dvc.lock or reports/: committing the results changes nothing, and every clone of a commit says the same.

DVC does not package again for a commit that changes nothing that package depends on. The record then names the commit
before it, of which the same files were made.
"""

import os
import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from tuneline.errors import EnvironmentProblem

PATIENCE_S = 300  # `git status` reads every input, and data/raw may be large
# Asked, git starts no daemon, and a name with a `*` is a name.
_GIT = ("git", "--literal-pathspecs", "-c", "core.fsmonitor=false")
# What git says where there is nothing to ask, and what the record says then: without a path of this machine.
_NOTHING = {"not a git repository": "no git repository", "bad revision 'HEAD'": "nothing was committed yet"}
_CUT_OFF = "a shallow clone, which may end after that commit; `git fetch --unshallow`, then `dvc repro -f -s package`"


@dataclass(frozen=True, slots=True)
class Commit:
    """`sha1` and `dirty` are null where there is a `reason` why nobody knows."""

    sha1: str | None  # the last commit that changed an input
    dirty: bool | None  # whether an input was otherwise when the model was packaged: changed, removed, or not added
    reason: str | None = None

    def record(self) -> dict[str, str | bool | None]:
        """As provenance.json has it."""
        known: dict[str, str | bool | None] = {"commit": self.sha1, "dirty": self.dirty}
        return known if self.reason is None else known | {"reason": self.reason}


def commit_of(inputs: Sequence[Path]) -> Commit:
    """What git knows of `inputs`, files and folders under the current folder; some of them may not be there.

    Raises `EnvironmentProblem` where there is a repository that git cannot read.
    """
    if shutil.which("git") is None:
        return Commit(None, None, "git is not installed")
    names = [path.as_posix() for path in inputs]
    found = _git("rev-list", "-1", "HEAD", "--", *names)
    if reason := next((reason for said, reason in _NOTHING.items() if said in found.stderr), None):
        return Commit(None, None, reason)
    sha1 = _answer(found)
    if not sha1:
        return Commit(None, None, "no commit holds the inputs")
    if _is_cut_off(sha1):
        return Commit(None, None, _CUT_OFF)
    return Commit(sha1, _is_dirty(names))


def _is_dirty(names: Sequence[str]) -> bool:
    """Compares every file's content with HEAD's, by an index of its own.

    The repository's own remembers sizes and seconds, and where those are right git does not look into a file: DVC's
    queue writes params.yaml in the second in which it was checked out, and seed 43 is no longer than seed 42.
    """
    flags = ("--porcelain", "--untracked-files=normal", "--ignore-submodules=none")
    with TemporaryDirectory() as scratch:
        index = {"GIT_INDEX_FILE": str(Path(scratch, "index"))}
        _answer(_git("read-tree", "HEAD", **index))
        return _answer(_git("status", *flags, "--", *names, **index)) != ""


def _is_cut_off(sha1: str) -> bool:
    """Whether history ends here only because no more of it was fetched: a later end seems to change everything."""
    if _answer(_git("rev-parse", "--is-shallow-repository")) == "false":
        return False
    return len(_answer(_git("rev-list", "-1", "--parents", sha1)).split()) == 1


def _git(*arguments: str, **settings: str) -> "subprocess.CompletedProcess[str]":
    try:
        return subprocess.run(  # noqa: S603  (a fixed program; the names come from dvc.yaml)
            [*_GIT, *arguments], env=_environment() | settings, timeout=PATIENCE_S, check=False,
            stdin=subprocess.DEVNULL, capture_output=True, encoding="utf-8", errors="replace",
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        raise EnvironmentProblem(
            f"package: `git {arguments[0]}` took more than {PATIENCE_S} s; run it by hand to see what it waits for"
        ) from None


def _environment() -> dict[str, str]:
    """Without what points at another repository, as in a git hook that runs `dvc repro`: GIT_DIR, GIT_INDEX_FILE ...

    With the user's settings, such as the safe.directory of a container.
    """
    kept = {
        key: value for key, value in os.environ.items() if not key.startswith("GIT_") or key.startswith("GIT_CONFIG_")
    }
    return kept | {"LC_ALL": "C"}


def _answer(ran: "subprocess.CompletedProcess[str]") -> str:
    if ran.returncode != 0:
        said = next(iter(ran.stderr.splitlines()), f"exit code {ran.returncode}")
        raise EnvironmentProblem(f"package: git cannot say which commit this is: {said}; `git status` must work here")
    return ran.stdout.strip()
