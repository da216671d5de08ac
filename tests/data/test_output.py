"""Results are written whole or not at all, and an old one outlives a failed attempt to replace it."""

from pathlib import Path

import pytest

from tuneline.output import atomic_folder


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
