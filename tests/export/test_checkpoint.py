"""An index of shards is input like any other: what it says is checked before a file is opened or written."""

import json
from pathlib import Path
from typing import Any

import pytest

from tuneline.errors import ModelError

pytestmark = pytest.mark.slow  # torch

SHARD = "model-00001-of-00001.safetensors"


def sharded(folder: Path, index: str) -> Path:
    import torch
    from safetensors.torch import save_file

    folder.mkdir()
    save_file({"a": torch.ones(2, 2), "b": torch.ones(3)}, folder / SHARD)
    (folder / "model.safetensors.index.json").write_text(index)
    return folder


def index_of(files: dict[str, Any]) -> str:
    return json.dumps({"metadata": {}, "weight_map": files})


def test_tensors_are_found_by_the_index(tmp_path: Path) -> None:
    from tuneline.export.checkpoint import Checkpoint

    assert Checkpoint(sharded(tmp_path / "x", index_of({"b": SHARD, "a": SHARD}))).file_of == {"a": SHARD, "b": SHARD}


@pytest.mark.parametrize(
    "file", ["/elsewhere/model.safetensors", "../other/model.safetensors", "a/b.safetensors", "..", "", "config.json"]
)
def test_index_that_names_no_file_beside_it_is_refused(file: str, tmp_path: Path) -> None:
    from tuneline.export.checkpoint import Checkpoint

    folder = sharded(tmp_path / "x", index_of({"a": SHARD, "b": file}))
    with pytest.raises(ModelError, match=r"index\.json: tensor b is in .*allowed is a \.safetensors file beside it"):
        Checkpoint(folder)


def test_index_that_points_at_another_models_file_leaves_that_file_as_it_is(tmp_path: Path) -> None:
    from tuneline.config.schema import CombineConfig, CombineSourceConfig
    from tuneline.export.combine_models import combine_models

    victim = sharded(tmp_path / "victim", index_of({"a": SHARD, "b": SHARD})) / SHARD
    before = victim.read_bytes()
    folder = sharded(tmp_path / "x", index_of({"a": str(victim), "b": str(victim)}))
    sources = tuple(CombineSourceConfig.model_construct(path=str(folder), weight=0.5) for _ in range(2))
    settings = CombineConfig.model_construct(
        family="full",
        combination_type="linear",
        sources=sources,
        density=None,
        majority_sign_method=None,
        svd_rank=None,
    )
    (tmp_path / "out").mkdir()
    with pytest.raises(ModelError, match="beside it"):
        combine_models(settings, Path(), 0, tmp_path / "out")
    assert victim.read_bytes() == before


@pytest.mark.parametrize(
    "index", ["{", "[]", "{}", "7", '{"weight_map": []}', '{"weight_map": {}}', '{"weight_map": {"a": 3}}', "\xff"]
)
def test_index_that_is_none_is_told_in_one_line(index: str, tmp_path: Path) -> None:
    from tuneline.export.checkpoint import Checkpoint

    with pytest.raises(ModelError, match=r"index\.json: .*fetch it again") as caught:
        Checkpoint(sharded(tmp_path / "x", index))
    assert "\n" not in str(caught.value)


def test_tensor_that_the_index_does_not_list_is_refused_by_name(tmp_path: Path) -> None:
    from tuneline.export.checkpoint import Checkpoint

    with pytest.raises(ModelError, match=rf"{SHARD}: tensor b is not listed there by"):
        Checkpoint(sharded(tmp_path / "x", index_of({"a": SHARD})))


def test_shard_that_the_index_does_not_list_at_all_is_refused(tmp_path: Path) -> None:
    import torch
    from safetensors.torch import save_file

    from tuneline.export.checkpoint import Checkpoint

    folder = sharded(tmp_path / "x", index_of({"a": SHARD, "b": SHARD}))
    save_file({"c": torch.ones(1)}, folder / "model-00002-of-00002.safetensors")
    with pytest.raises(ModelError, match=r"00002\.safetensors: tensor c is not listed there"):
        Checkpoint(folder)


def test_of_a_hub_base_no_pickle_is_fetched_and_a_network_error_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    from fnmatch import fnmatch

    from tests.export.conftest import model_config
    from tuneline.errors import EnvironmentProblem
    from tuneline.export import combine

    asked: list[str] = []

    def offline(*_: object, allow_patterns: list[str], **__: object) -> str:
        asked.extend(allow_patterns)
        raise ConnectionError("no route\nto host")

    monkeypatch.setattr(combine, "snapshot_download", offline)
    base = model_config(Path("x")).model_copy(update={"name_or_path": "a/b", "revision": "0" * 40})
    with pytest.raises(EnvironmentProblem, match="'a/b' at revision 0") as caught:
        combine.base_folder(base)
    assert "\n" not in str(caught.value)
    assert any(fnmatch("model-1.safetensors", pattern) for pattern in asked)
    assert not any(fnmatch(name, pattern) for name in ("pytorch_model.bin", "a.pt", "a.pkl") for pattern in asked)
