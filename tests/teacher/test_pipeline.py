"""A teacher in the experiment as DVC runs it: a real server, a killed run, a queued copy, and where the key is not."""

import json
import os
import signal
import subprocess
import time
from pathlib import Path
from uuid import uuid4

import pytest

from tests.end_to_end.conftest import Run, clone, commit, environment, runner
from tuneline.data.record_files import iterate_rejected, read_examples
from tuneline.data.records import TEACHER_KEY, Example

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]
KEY = f"sk-{uuid4().hex}"  # another one each time: this file is in the clone too
N_ROWS = 6
ASK = ("dvc", "exp", "run", "clean_augmented@teacher", "-S", "augment=few")


@pytest.fixture(scope="module")
def folder(server: tuple[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A clone with a teacher for a few rows, one request at a time, whose key is in the environment."""
    folder = clone(tmp_path_factory.mktemp("with a teacher"))
    conf = folder / "conf/augment"
    few = (conf / "paraphrase.yaml").read_text(encoding="utf-8")
    changed = {
        "base_url: http://127.0.0.1:8000/v1": f"base_url: {server[0]}",
        "api_key_env: null": "api_key_env: TEACHER_KEY",
        "concurrency: 4": "concurrency: 1",
        "n_rows: 200": f"n_rows: {N_ROWS}",
        "max_tokens: 512": "max_tokens: 320",  # an untuned model needs room until it ends
        "max_rejected_fraction: 0.5": "max_rejected_fraction: 1.0",
    }
    for old, new in changed.items():
        assert old in few
        few = few.replace(old, new)
    (conf / "few.yaml").write_text(few, encoding="utf-8")
    commit(folder, "a teacher")
    return folder


@pytest.fixture
def run(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    monkeypatch.setenv("TEACHER_KEY", KEY)
    return runner(folder)


def kept_answers(folder: Path) -> int:
    return len(list((folder / ".teacher").rglob("*.json")))


def kill_after(n_answers: int, folder: Path) -> None:
    """Start the experiment and kill all its processes as soon as so many answers are kept."""
    with subprocess.Popen(
        ASK, cwd=folder, env=environment(), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, start_new_session=True
    ) as started:
        while kept_answers(folder) < n_answers:
            assert started.poll() is None, (started.stdout.read() if started.stdout else b"").decode()
            time.sleep(0.02)
        os.killpg(started.pid, signal.SIGKILL)


def test_a_killed_experiment_goes_on_where_it_was_and_a_copy_of_it_asks_nothing(
    folder: Path, run: Run, server: tuple[str, Path]
) -> None:
    kill_after(2, folder)
    n_kept = kept_answers(folder)
    assert 2 <= n_kept < N_ROWS

    resumed = run(*ASK).stdout
    assert f"{n_kept} answers from the cache" in resumed
    assert f"teacher: {N_ROWS - n_kept} requests sent" in resumed
    check_rows(folder)

    n_served = server[1].read_text().count("POST /v1/chat/completions")
    assert n_served <= N_ROWS + 1  # one was under way when the run was killed
    copied = run(*ASK, "--temp", "-S", "augment.max_rejected_fraction=0.99")  # the stage runs again, in a copy
    assert f"teacher: 0 requests sent (0 tokens), {N_ROWS} answers from the cache" in copied.stdout + copied.stderr
    assert server[1].read_text().count("POST /v1/chat/completions") == n_served
    check_key_is_nowhere(folder)


def check_rows(folder: Path) -> None:
    """Every answer is a row with its origin or a rejected one, and the clean rows are all there."""
    new, lost = (folder / f"data/augmented/{name}.jsonl" for name in ("examples", "rejected"))
    origins = [row.meta[TEACHER_KEY] for row in read_examples(new)] + [
        row.row[TEACHER_KEY] for row in iterate_rejected(lost) if isinstance(row.row, dict)
    ]
    assert len(origins) == N_ROWS
    assert all(isinstance(origin, dict) and origin["model"] == "teacher" for origin in origins)
    clean = read_examples(folder / "data/clean/examples.jsonl")
    merged = read_examples(folder / "data/augmented/clean/examples.jsonl")
    assert {row.id for row in clean} <= {row.id for row in merged}
    assert_counted(folder, merged, len(clean))


def assert_counted(folder: Path, merged: list[Example], n_clean: int) -> None:
    asked, cleaned = (
        json.loads((folder / f"reports/{stage}.json").read_text()) for stage in ("augment", "clean_augmented")
    )
    assert asked["n_requests"] == N_ROWS == asked["n_kept"] + asked["n_rejected"]
    assert cleaned["n_read"] == n_clean + asked["n_kept"]
    assert cleaned["n_kept"] == len(merged) == sum(TEACHER_KEY in row.meta for row in merged) + n_clean


def check_key_is_nowhere(folder: Path) -> None:
    """In no file and in no commit, those of experiments included."""
    written = [path for path in folder.rglob("*") if path.is_file() and KEY.encode() in path.read_bytes()]
    assert written == []
    commits = subprocess.run(
        ["git", "rev-list", "--all"], cwd=folder, capture_output=True, text=True, check=True
    ).stdout.split()
    assert len(commits) >= 3  # the clone, the teacher, the experiments
    found = subprocess.run(
        ["git", "grep", "-l", KEY, *commits], cwd=folder, capture_output=True, text=True, check=False
    )
    assert (found.returncode, found.stdout) == (1, "")
