"""What surrounds a run leaves no trace in it: folder names, locale, clock, hash seed, umask; home, network, secrets."""

import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.faults.conftest import DATA_STAGES, Copy, copied
from tests.faults.project import Project, base_environment, make_project, write_params
from tests.faults.test_hermetic import HEAVY

SECRETS = {
    "WANDB_API_KEY": "wandb-sentinel-5f2c9e",
    "HF_TOKEN": "hf_sentinel7d1ab3",
    "OPENAI_API_KEY": "sk-sentinel-91c0aa",
}
SURROUNDINGS = {
    "eine Lücke – 東京": {"TZ": "Asia/Tokyo", "LC_ALL": "C.UTF-8", "PYTHONHASHSEED": "1"},
    "ascii": {
        **{"TZ": "America/St_Johns", "LC_ALL": "C", "PYTHONHASHSEED": "4711"},
        **{"PYTHONCOERCECLOCALE": "0", "PYTHONUTF8": "0"},
    },
}
NO_HOME = {"HOME": "/proc", "HF_HOME": "/proc/hf", "XDG_CACHE_HOME": "/proc/cache"}  # where nobody can write
UMASKS = ("umask 077; ", "umask 002; ")


def in_surroundings(stages: tuple[str, ...], folder: Path) -> list[dict[str, bytes]]:
    results = []
    for (name, environment), umask in zip(SURROUNDINGS.items(), UMASKS, strict=True):
        (folder / name).mkdir()
        project = make_project(folder / name)
        project.environment, project.before = environment, umask
        project.succeed(*stages)
        results.append({key: data for stage in stages for key, data in project.outputs(stage).items()})
    return results


@pytest.mark.slow
def test_data_stages_give_the_same_bytes_in_any_surroundings(tmp_path: Path) -> None:
    one, two = in_surroundings(DATA_STAGES, tmp_path)
    assert len(one) > 15
    assert one == two


@pytest.mark.faults
def test_training_gives_the_same_bytes_in_any_surroundings(tmp_path: Path) -> None:
    one, two = in_surroundings((*DATA_STAGES, "inspect@sft", "train@sft", "curves@sft"), tmp_path)
    assert one == two


def holding(data: bytes) -> list[str]:
    return [name for name, secret in SECRETS.items() if secret.encode() in data]


def git_objects(folder: Path) -> bytes:
    """Every object of the database, unpacked, reachable or not."""
    every = ["git", "cat-file", "--batch", "--batch-all-objects", "--unordered"]
    return subprocess.run(every, cwd=folder, check=True, capture_output=True).stdout


def with_secrets(project: Project) -> Callable[..., None]:
    """Runs commands in the project's folder with tokens in the environment."""
    identity = {
        f"GIT_{who}_{what}": "test@example.org" for who in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")
    }
    environment = base_environment() | SECRETS | identity | {"DVC_NO_ANALYTICS": "1"}

    def run(*command: str) -> None:
        ran = subprocess.run(command, cwd=project.folder, env=environment, capture_output=True, text=True, check=False)
        assert ran.returncode == 0, ran.stdout[-2000:] + ran.stderr[-2000:]

    return run


def assert_no_secret_in_files_or_objects(project: Project) -> None:
    assert holding(git_objects(project.folder)) == []
    files = [path for path in project.folder.rglob("*") if path.is_file()]
    assert len(files) > 100
    assert {str(path): found for path in files if (found := holding(path.read_bytes()))} == {}


@pytest.mark.slow
def test_tokens_of_the_environment_are_in_no_file_and_no_git_object(tmp_path: Path) -> None:
    (tmp_path / "project").mkdir()
    project = make_project(tmp_path / "project")
    (project.folder / "src/sitecustomize.py").unlink()
    run = with_secrets(project)
    run("git", "add", "-A")
    run("git", "commit", "-qm", "start")
    run("dvc", "exp", "run", "-S", "seed=43", "split")
    run("git", "add", "-A")
    run("git", "commit", "-qm", "results")
    assert b"seed: 43" in git_objects(project.folder), "the experiment is recorded"
    assert_no_secret_in_files_or_objects(project)


@pytest.fixture(scope="module")
def shut_in(whole_project: Project, tmp_path_factory: pytest.TempPathFactory) -> Project:
    """Whose heavy stages have run with tokens in the environment, without a network and a home to write to."""
    project = copied(whole_project, tmp_path_factory.mktemp("shut in") / "project")
    project.before = without_network()
    project.environment = NO_HOME | SECRETS | {"HF_HUB_OFFLINE": "0" if project.before else "1"}
    for stage in HEAVY:
        project.remove_outputs(stage)
        project.succeed(stage)
    return project


@pytest.mark.faults
@pytest.mark.parametrize("stage", HEAVY)
def test_a_heavy_stage_needs_no_network_and_no_home(stage: str, shut_in: Project, whole_project: Project) -> None:
    assert shut_in.outputs(stage) == whole_project.outputs(stage)


@pytest.mark.faults
def test_heavy_stages_leave_tokens_in_no_file_and_no_git_object(shut_in: Project, copy: Copy) -> None:
    project = copy(shut_in)
    run = with_secrets(project)
    run("dvc", "commit", "-f", *HEAVY)
    run("git", "add", "-A")
    run("git", "commit", "-qm", "results")
    run("dvc", "exp", "save", "-f", *HEAVY)
    assert b"quantize@q8_0" in git_objects(project.folder), "dvc.lock is recorded"
    assert_no_secret_in_files_or_objects(project)


@pytest.mark.faults
def test_a_tracked_training_leaves_tokens_in_no_file(tokens_project: Project, copy: Copy) -> None:
    project = copy(tokens_project)
    write_params(project.folder, {"tracking.wandb": "offline"})
    project.succeed("train@sft", **SECRETS)
    assert list((project.folder / "wandb").glob("offline-run-*"))
    with_secrets(project)("git", "add", "-A", "-f")
    assert_no_secret_in_files_or_objects(project)


def without_network() -> str:
    """For the shell, before a command; empty where this user may not take the network away."""
    asked = (
        subprocess.run(["unshare", "-rn", "true"], capture_output=True, check=False)
        if shutil.which("unshare")
        else None
    )
    return "unshare -rn env " if asked is not None and asked.returncode == 0 else ""


@pytest.mark.faults
def test_stages_run_without_a_network_and_without_a_home_to_write_to(tokens_project: Project, copy: Copy) -> None:
    project = copy(tokens_project)
    project.before = without_network()
    project.environment = {**NO_HOME}
    if project.before:
        project.environment |= {"HF_HUB_OFFLINE": "0"}
    for stage in (*DATA_STAGES, "inspect@sft"):
        project.remove_outputs(stage)
        project.succeed(stage)
        assert project.outputs(stage) == tokens_project.outputs(stage)


@pytest.mark.faults
@pytest.mark.parametrize("how", ["conflict markers", "truncated"])
def test_a_spoilt_dvc_lock_ends_in_a_refusal_and_nothing_is_deleted(
    how: str, data_project: Project, tmp_path: Path
) -> None:
    project = copied(data_project, tmp_path / "project")
    environment = base_environment() | {"DVC_NO_ANALYTICS": "1"}

    def repro() -> subprocess.CompletedProcess[str]:
        command = ["dvc", "repro", "ingest"]
        return subprocess.run(command, cwd=project.folder, env=environment, capture_output=True, text=True, check=False)

    assert repro().returncode == 0
    lock = project.folder / "dvc.lock"
    text = lock.read_text()
    half = len(text) // 2
    match how:
        case "conflict markers":
            lock.write_text(f"{text[:half]}\n<<<<<<< HEAD\n{text[half:]}=======\n>>>>>>> other\n")
        case "truncated":
            lock.write_text(text[: text.index("md5: ", half) + 3])
    before = project.outputs("ingest")
    refused = repro()
    assert refused.returncode != 0
    assert "dvc.lock" in refused.stdout + refused.stderr
    assert project.outputs("ingest") == before
    lock.unlink()
    assert repro().returncode == 0
    assert project.outputs("ingest") == data_project.outputs("ingest")
