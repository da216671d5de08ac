"""Results are written whole or not at all, and an old one outlives a failed attempt to replace it."""

from pathlib import Path

import pytest

from tuneline.errors import TunelineError
from tuneline.output import atomic_file, atomic_folder, write_metrics


@pytest.fixture
def old(tmp_path: Path) -> Path:
    """A folder with an earlier result."""
    folder = tmp_path / "out"
    (folder / "inner").mkdir(parents=True)
    (folder / "inner" / "rows.txt").write_text("old")
    return folder


def everything(folder: Path) -> dict[str, str]:
    return {path.relative_to(folder).as_posix(): path.read_text() for path in folder.rglob("*") if path.is_file()}


def test_the_new_folder_replaces_the_old_one_whole(old: Path) -> None:
    with atomic_folder(old) as folder:
        (folder / "new.txt").write_text("new")
        assert everything(old) == {"inner/rows.txt": "old"}
    assert everything(old.parent) == {"out/new.txt": "new"}


def test_a_block_that_fails_leaves_the_old_folder_and_nothing_else(old: Path) -> None:
    def write_half(path: Path) -> None:
        with atomic_folder(path) as folder:
            (folder / "new.txt").write_text("half")
            raise ValueError("stop")

    with pytest.raises(ValueError, match="stop"):
        write_half(old)
    assert everything(old.parent) == {"out/inner/rows.txt": "old"}


def test_a_rename_that_fails_brings_the_old_folder_back(old: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rename = Path.replace

    def refuse_the_new_one(self: Path, target: Path) -> Path:
        if self.name.endswith(".partial"):
            raise OSError("the disk is gone")
        return rename(self, target)

    monkeypatch.setattr(Path, "replace", refuse_the_new_one)
    with pytest.raises(OSError, match="the disk is gone"), atomic_folder(old) as folder:
        (folder / "new.txt").write_text("new")
    assert everything(old.parent) == {"out/inner/rows.txt": "old"}


def test_what_an_interrupted_run_left_behind_does_no_harm(old: Path) -> None:
    for name in (".out.partial", ".out.previous"):
        (old.parent / name).mkdir()
        (old.parent / name / "half.txt").write_text("half")
    with atomic_folder(old) as folder:
        (folder / "new.txt").write_text("new")
    assert everything(old.parent) == {"out/new.txt": "new"}


def test_who_still_writes_for_a_killed_run_writes_into_no_result(tmp_path: Path) -> None:
    with (tmp_path / ".out.partial").open("wb", buffering=0) as of_the_killed:
        of_the_killed.write(b"half")
        with atomic_file(tmp_path / "out") as temporary, temporary.open("wb", buffering=0) as file:
            file.write(b"new")
            of_the_killed.write(b" of another run")
    assert everything(tmp_path) == {"out": "new"}


@pytest.mark.parametrize(
    ("metrics", "problem"),
    [
        ({"n_rows": 3, "loss": float("nan")}, "not finite numbers: loss=nan"),
        ({"n_rows": 3, "loss": float("inf")}, "not finite numbers: loss=inf"),
        ({"n_rows": 3, "loss": "0.5"}, "not finite numbers: loss=0.5"),
        ({"n_rows": 3, "los": 0.5}, "not measured: loss"),
        ({"loss": 0.5}, "not measured: n_rows"),
        ({"n_rows": 0, "loss": 0.0}, "n_rows is 0, so the figures are of nothing"),
        ({"n_rows": 2.5, "loss": 0.0}, "n_rows is 2.5"),
    ],
)
def test_metrics_that_could_mislead_are_refused_and_the_old_file_stays(
    metrics: dict[str, float | int], problem: str, tmp_path: Path
) -> None:
    write_metrics(tmp_path / "out.json", {"n_rows": 1, "loss": 0.1234567}, "n_rows", "loss")
    with pytest.raises(TunelineError, match=problem):
        write_metrics(tmp_path / "out.json", metrics, "n_rows", "loss")
    assert everything(tmp_path) == {"out.json": '{\n  "loss": 0.123457,\n  "n_rows": 1\n}\n'}
