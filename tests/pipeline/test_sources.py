"""What people put into models/sources is DVC's to fetch and push, and not git's."""

import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.slow
def test_a_model_in_models_sources_is_seen_by_dvc_and_ignored_by_git(tmp_path: Path) -> None:
    """`dvc checkout` and `dvc exp run` delete what they do not see."""
    from dvc.repo import Repo  # type: ignore[import-untyped]  # DVC ships no types

    for name in (".gitignore", ".dvcignore", ".dvc/config"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        shutil.copyfile(ROOT / name, tmp_path / name)
    subprocess.run(["git", "init", "-q"], cwd=tmp_path, check=True)
    folder = tmp_path / "models/sources"
    (folder / "other").mkdir(parents=True)
    (folder / "other/adapter_config.json").write_text("{}")
    (folder / "other.dvc").write_text("outs:\n- md5: 301fd1e80ee9789398cb53a1fccc6b7e.dir\n  path: other\n")
    with Repo(str(tmp_path)) as repo:
        assert [stage.path_in_repo for stage in repo.index.stages] == ["models/sources/other.dvc"]
    listed = ["git", "status", "--porcelain", "--untracked-files=all", "models"]
    shown = subprocess.run(listed, cwd=tmp_path, check=True, capture_output=True, text=True).stdout
    assert shown == "?? models/sources/other.dvc\n"
