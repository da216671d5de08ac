"""A flipped bit is found wherever a hash was recorded, and named with the way to heal it."""

import hashlib
import json
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pytest

from tuneline.upkeep.reading import File, read_all
from tuneline.upkeep.rot import Recorded, problems, saved, tree_digest, wanted


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.chmod(0o644)
    path.write_bytes(data)


def found(records: Iterable[Recorded]) -> list[str]:
    records = list(records)
    files = wanted(records)
    list(read_all(files.all()))
    return [line for record in records for line in problems(record, files)]


def test_digests_are_those_of_hashlib_for_empty_small_and_large_files(tmp_path: Path) -> None:
    contents = [b"", b"a", bytes(range(256)) * 5000, *(bytes([n % 256]) * n for n in range(600))]
    files = []
    for number, content in enumerate(contents):
        (tmp_path / str(number)).write_bytes(content)
        files.append(File(tmp_path / str(number), len(content), {"md5", "sha256"}))
    assert sum(read_all(files)) == sum(map(len, contents))
    for file, content in zip(files, contents, strict=True):
        assert file.digests == {
            "md5": hashlib.md5(content).hexdigest(),
            "sha256": hashlib.sha256(content).hexdigest(),
        }


def test_a_file_that_two_names_share_is_read_once(tmp_path: Path) -> None:
    (tmp_path / "object").write_bytes(b"bytes")
    (tmp_path / "output").hardlink_to(tmp_path / "object")
    digest = hashlib.md5(b"bytes").hexdigest()
    records = [Recorded(tmp_path / n, "md5", {"": digest}, None, False, "heal") for n in ("object", "output")]
    assert len(wanted(records).all()) == 1
    assert found(records) == []


def test_changed_missing_and_foreign_files_of_a_closed_folder_are_named(tmp_path: Path) -> None:
    for name in ("good", "bad", "foreign"):
        (tmp_path / name).write_text(name)
    good = hashlib.md5(b"good").hexdigest()
    lines = found([Recorded(tmp_path, "md5", dict.fromkeys(("good", "bad", "gone"), good), None, True, "mend it")])
    assert [line.split("; ") for line in lines] == [
        [f"{tmp_path}/bad: damaged, md5 {hashlib.md5(b'bad').hexdigest()}", "mend it"],
        [f"{tmp_path}/gone: missing or unreadable", "mend it"],
        [f"{tmp_path}/foreign: foreign", "mend it"],
    ]


def test_a_folder_whose_list_is_not_here_is_compared_as_dvc_hashes_it(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "b").write_text("x")
    listed = json.dumps([{"md5": hashlib.md5(b"x").hexdigest(), "relpath": "a/b"}]).encode()
    digest = hashlib.md5(listed).hexdigest() + ".dir"
    assert tree_digest({"a/b": hashlib.md5(b"x").hexdigest()}) == digest
    record = Recorded(tmp_path, "md5", {}, digest, True, "mend it")
    assert found([record]) == []
    flip(tmp_path / "a" / "b")
    assert found([record]) == [f"{tmp_path}: not the folder that was recorded; mend it"]


def test_a_damaged_checkpoint_is_named_and_one_without_manifest_passed_over(tmp_path: Path) -> None:
    for step in (1, 2):
        folder = tmp_path / "abc" / f"checkpoint-{step}"
        folder.mkdir(parents=True)
        (folder / "weights").write_bytes(b"weights")
    manifest = tmp_path / "abc" / "checkpoint-1" / "manifest.json"
    manifest.write_text(json.dumps({"weights": hashlib.sha256(b"weights").hexdigest()}))
    assert found(saved(tmp_path)) == []
    flip(manifest.with_name("weights"))
    assert [line.split(",")[0] for line in found(saved(tmp_path))] == [f"{manifest.with_name('weights')}: damaged"]
    manifest.write_text("{")
    assert [line.split(",")[0] for line in found(saved(tmp_path))] == [f"{manifest}: damaged"]


def objects(cache: Path) -> list[Path]:
    return list((cache / "files/md5").glob("*/*"))


def text_in(cache: Path) -> Path:
    return next(path for path in objects(cache) if path.read_bytes() == b"some text")


@pytest.fixture
def project(new_project: Callable[[], Any]) -> Any:
    project = new_project()
    project.dvc("repro")
    return project


@pytest.mark.slow
def test_a_flipped_bit_in_any_object_of_the_cache_is_named(project: Any) -> None:
    assert "all as recorded" in project.tuneline("fsck")
    for path in objects(project.folder / ".dvc/cache"):
        flip(path)
        printed = project.tuneline("fsck", fails=True)
        assert f"{path}: damaged, md5 " in printed
        assert f"rm -f '{path}', then `dvc fetch`" in printed
        assert "error: 1 damaged, of " in printed
        path.unlink()
        project.dvc("commit", "-f")
        project.tuneline("fsck")


@pytest.mark.slow
def test_a_flipped_bit_in_an_output_is_named_and_checkout_heals_it(project: Any) -> None:
    for path in (project.folder / "models/out/inner/1", project.folder / "data/text"):
        flip(path)
        assert f"{path}: damaged" in project.tuneline("fsck", fails=True)
        project.dvc("checkout", "-f")
        project.tuneline("fsck")


@pytest.mark.slow
def test_without_remote_and_output_a_damaged_object_is_made_anew(project: Any) -> None:
    path = text_in(project.folder / ".dvc/cache")
    (project.folder / "data/text").unlink()
    path.unlink()
    project.dvc("repro")
    project.tuneline("fsck")
    assert path.read_bytes() == b"some text"


@pytest.mark.slow
def test_a_remote_that_does_not_verify_is_named_and_one_that_does_lets_no_damage_in(
    project: Any, tmp_path: Path
) -> None:
    project.dvc("remote", "add", "-d", "store", str(tmp_path / "store"))
    said = "remote 'store': what is pulled is not verified; `dvc remote modify store verify true`"
    assert said in project.tuneline("fsck")
    project.dvc("remote", "modify", "store", "verify", "true")
    assert "not verified" not in project.tuneline("fsck")
    project.dvc("push")
    kept = text_in(project.folder / ".dvc/cache")
    flip(text_in(tmp_path / "store"))
    kept.unlink()
    (project.folder / "data/text").unlink()
    project.dvc("pull", fails=True)
    assert not kept.exists()
