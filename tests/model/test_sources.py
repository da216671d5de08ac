"""Where a model comes from: what is absent or not as pinned is refused in one line, whatever is read."""

import hashlib
import re
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from tuneline.config.schema import ModelConfig
from tuneline.errors import EnvironmentProblem, ModelError

pytestmark = pytest.mark.slow


def test_a_missing_folder_is_not_taken_for_a_hub_id(tiny: ModuleType) -> None:
    from tuneline.model.loading import load_base
    from tuneline.model.tokenizers import load_tokenizer

    config = tiny.model_config(Path("models/base/nowhere"))
    for load in (lambda: load_tokenizer(config), lambda: load_base(config, tiny.hardware(), None)):
        with pytest.raises(ModelError, match="models/base/nowhere: no such model folder"):
            load()


def test_an_unreachable_hub_is_one_line_that_says_how_to_fetch(
    tiny: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import huggingface_hub.constants

    from tuneline.model.loading import load_base
    from tuneline.model.tokenizers import load_tokenizer

    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    config = tiny.model_config(Path("nobody/nothing"), revision="0" * 40)
    for load in (lambda: load_tokenizer(config), lambda: load_base(config, tiny.hardware(), None)):
        with pytest.raises(EnvironmentProblem, match=r"'nobody/nothing' at revision 0{40} cannot be loaded") as caught:
            load()
        assert "hf download nobody/nothing" in str(caught.value)
        assert "\n" not in str(caught.value)


def pinned(tiny: ModuleType, folder: Path) -> ModelConfig:
    from tuneline.model.pinned import folder_digests

    config: ModelConfig = tiny.model_config(tiny.save_base(folder))
    return config.model_copy(update={"sha256": folder_digests(folder)})


def every_way_to_read(tiny: ModuleType, config: ModelConfig) -> list[Callable[[], Any]]:
    from tuneline.export.combine import base_folder
    from tuneline.model import loading, tokenizers

    tokenizer = tokenizers.load_tokenizer_from(Path(config.name_or_path))
    return [
        lambda: tokenizers.load_tokenizer(config),
        lambda: loading.load_config(config),
        lambda: loading.load_base(config, tiny.hardware(), None),
        lambda: loading.load_base_for_training(config, tiny.hardware(), None, "adapter"),
        lambda: tokenizers.stop_token_ids(config, tokenizer),
        lambda: base_folder(config),
    ]


def test_a_base_that_is_as_pinned_is_read(tiny: ModuleType, tmp_path: Path) -> None:
    config = pinned(tiny, tmp_path)
    (tmp_path / ".gitignore").write_text("")  # git's, and no part of the model
    for read in every_way_to_read(tiny, config):
        read()


@pytest.mark.parametrize("name", ["model.safetensors", "tokenizer.json", "config.json"])
def test_a_flipped_bit_in_any_file_of_a_pinned_base_is_refused_whatever_is_read(
    name: str, tiny: ModuleType, tmp_path: Path
) -> None:
    config = pinned(tiny, tmp_path)
    reads = every_way_to_read(tiny, config)
    path = tmp_path / name
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    found, expected = hashlib.sha256(data).hexdigest(), (config.sha256 or {})[name]
    said = f"{path}: sha256 {found[:12]}..., model.sha256 has sha256 {expected[:12]}...; `git checkout -- {tmp_path}`"
    for read in reads:
        with pytest.raises(ModelError, match=re.escape(said)) as caught:
            read()
        assert "`tuneline pin tiny`, then `make params`" in str(caught.value)
        assert "\n" not in str(caught.value)


def test_a_file_too_few_or_too_many_in_a_pinned_base_is_refused(tiny: ModuleType, tmp_path: Path) -> None:
    from tuneline.model.tokenizers import load_tokenizer

    config = pinned(tiny, tmp_path)
    (tmp_path / "generation_config.json").rename(tmp_path / "other.json")
    with pytest.raises(ModelError, match=r"generation_config\.json: no such file, model\.sha256 has sha256"):
        load_tokenizer(config)
    (tmp_path / "generation_config.json").hardlink_to(tmp_path / "other.json")
    with pytest.raises(ModelError, match=r"other\.json: sha256 \w+\.\.\., model\.sha256 has no such file"):
        load_tokenizer(config)


@pytest.mark.skipif(sys.platform != "linux", reason="a file that no user can read is one of Linux")
def test_a_file_of_a_base_that_cannot_be_read_is_one_line(tiny: ModuleType, tmp_path: Path) -> None:
    from tuneline.model.tokenizers import load_tokenizer

    config = pinned(tiny, tmp_path)
    (tmp_path / "model.safetensors").unlink()
    (tmp_path / "model.safetensors").symlink_to("/proc/self/mem")
    with pytest.raises(
        ModelError, match=r"model\.safetensors: cannot be read \(Input/output error\); it needs"
    ) as caught:
        load_tokenizer(config)
    assert "\n" not in str(caught.value)


def test_a_package_that_is_not_installed_is_named(tiny: ModuleType, tmp_path: Path) -> None:
    from importlib.util import find_spec

    from tuneline.model.loading import load_merged
    from tuneline.model.sources import one_line_errors

    with (
        pytest.raises(EnvironmentProblem, match=r"'models/a' needs a Python package .*: No module named 'flash_attn'"),
        one_line_errors("models/a", None),
    ):
        raise ModuleNotFoundError("No module named 'flash_attn'")
    if find_spec("flash_attn") is None:
        tiny.save_base(tmp_path)
        with pytest.raises(EnvironmentProblem, match=r"needs a Python package .*FlashAttention2") as caught:
            load_merged(tmp_path, tiny.hardware(attn_implementation="flash_attention_2"))
        assert "\n" not in str(caught.value)


def test_what_torch_cannot_load_is_one_line() -> None:
    from tuneline.model.sources import one_line_errors

    for revision in (None, "0" * 40):
        with (
            pytest.raises(ModelError, match=r"a/b: cannot be loaded: size mismatch$"),
            one_line_errors("a/b", revision),
        ):
            raise RuntimeError("\nsize mismatch\nfor x")
