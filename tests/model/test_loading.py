"""Loading: what is incomplete, foreign or absent is refused in one line."""

import hashlib
import json
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


def rewrite(path: Path, change: Any) -> None:
    """Load a safetensors file, let `change` alter its dict, save it."""
    from safetensors.torch import load_file, save_file

    tensors = load_file(path)
    change(tensors)
    save_file(tensors, path, metadata={"format": "pt"})


def test_a_missing_folder_is_not_taken_for_a_hub_id(tiny: ModuleType) -> None:
    from tuneline.model.loading import load_base, load_tokenizer

    config = tiny.model_config(Path("models/base/nowhere"))
    for load in (lambda: load_tokenizer(config), lambda: load_base(config, tiny.hardware(), None)):
        with pytest.raises(ModelError, match="models/base/nowhere: no such model folder"):
            load()


def test_an_unreachable_hub_is_one_line_that_says_how_to_fetch(
    tiny: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import huggingface_hub.constants

    from tuneline.model.loading import load_base, load_tokenizer

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
    from tuneline.model import loading

    tokenizer = loading.load_tokenizer_from(Path(config.name_or_path))
    return [
        lambda: loading.load_tokenizer(config),
        lambda: loading.load_config(config),
        lambda: loading.load_base(config, tiny.hardware(), None),
        lambda: loading.load_base_for_training(config, tiny.hardware(), None, "adapter"),
        lambda: loading.stop_token_ids(config, tokenizer),
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
    from tuneline.model.loading import load_tokenizer

    config = pinned(tiny, tmp_path)
    (tmp_path / "generation_config.json").rename(tmp_path / "other.json")
    with pytest.raises(ModelError, match=r"generation_config\.json: no such file, model\.sha256 has sha256"):
        load_tokenizer(config)
    (tmp_path / "generation_config.json").hardlink_to(tmp_path / "other.json")
    with pytest.raises(ModelError, match=r"other\.json: sha256 \w+\.\.\., model\.sha256 has no such file"):
        load_tokenizer(config)


@pytest.mark.skipif(sys.platform != "linux", reason="a file that no user can read is one of Linux")
def test_a_file_of_a_base_that_cannot_be_read_is_one_line(tiny: ModuleType, tmp_path: Path) -> None:
    from tuneline.model.loading import load_tokenizer

    config = pinned(tiny, tmp_path)
    (tmp_path / "model.safetensors").unlink()
    (tmp_path / "model.safetensors").symlink_to("/proc/self/mem")
    with pytest.raises(
        ModelError, match=r"model\.safetensors: cannot be read \(Input/output error\); it needs"
    ) as caught:
        load_tokenizer(config)
    assert "\n" not in str(caught.value)


def test_a_tokenizer_without_chat_template_is_refused(tiny: ModuleType, tmp_path: Path) -> None:
    from tuneline.model.loading import load_tokenizer

    tiny.save_tokenizer(tmp_path, template=None)
    with pytest.raises(ModelError, match="has no chat template; use the model's instruct variant"):
        load_tokenizer(tiny.model_config(tmp_path))


def test_a_tokenizer_without_eos_is_refused(tiny: ModuleType, tmp_path: Path) -> None:
    from tuneline.model.loading import load_tokenizer_from

    tiny.save_tokenizer(tmp_path, eos=None)
    with pytest.raises(ModelError, match="has no EOS token"):
        load_tokenizer_from(tmp_path)


@pytest.mark.parametrize("pad", [None, "<|im_end|>"])
def test_a_missing_pad_or_one_equal_to_eos_becomes_an_unused_token(
    tiny: ModuleType, tmp_path: Path, pad: str | None
) -> None:
    from tuneline.model.loading import load_tokenizer_from

    tiny.save_tokenizer(tmp_path, pad=pad)
    tokenizer = load_tokenizer_from(tmp_path)
    assert (tokenizer.pad_token, len(tokenizer)) == ("<|pad|>", 320)


def test_pad_equal_to_eos_is_refused_when_no_token_is_unused(tiny: ModuleType, tmp_path: Path) -> None:
    from tuneline.model.loading import load_tokenizer_from

    tiny.save_tokenizer(tmp_path, pad="<|pad|>", eos="<|pad|>")
    with pytest.raises(ModelError, match=r"pad token '<\|pad\|>' is missing or equals EOS"):
        load_tokenizer_from(tmp_path)


def test_a_missing_tensor_is_refused_instead_of_drawn_at_random(tiny: ModuleType, tmp_path: Path) -> None:
    from tuneline.model.loading import load_merged

    tiny.save_base(tmp_path)
    rewrite(tmp_path / "model.safetensors", lambda tensors: tensors.pop("model.layers.1.mlp.up_proj.weight"))
    with pytest.raises(ModelError, match=r"1 tensors .* missing or misshapen: model.layers.1.mlp.up_proj.weight"):
        load_merged(tmp_path, tiny.hardware())


def test_a_tensor_of_another_shape_is_refused_by_name(tiny: ModuleType, tmp_path: Path) -> None:
    import torch

    from tuneline.model.loading import load_base, load_merged

    tiny.save_base(tmp_path)
    name = "model.layers.0.mlp.down_proj.weight"
    rewrite(tmp_path / "model.safetensors", lambda tensors: tensors.update({name: torch.zeros(64, 96)}))
    config, machine = tiny.model_config(tmp_path), tiny.hardware()
    loads: list[Callable[[], Any]] = [lambda: load_base(config, machine, None), lambda: load_merged(tmp_path, machine)]
    for load in loads:
        with pytest.raises(ModelError, match=f"1 tensors of its weights are missing or misshapen: {name}$") as caught:
            load()
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize("method", ["bitsandbytes", "gptq", "fp8"])
def test_a_base_that_is_quantised_already_is_refused_before_its_weights_are_read(
    tiny: ModuleType, tmp_path: Path, method: str
) -> None:
    from tuneline.model.loading import load_base, load_base_for_training

    tiny.save_base(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(config | {"quantization_config": {"quant_method": method}}))
    (tmp_path / "model.safetensors").unlink()
    base, machine = tiny.model_config(tmp_path), tiny.hardware()
    loads: list[Callable[[], Any]] = [
        lambda: load_base(base, machine, None),
        lambda: load_base_for_training(base, machine, None, "adapter"),
    ]
    for load in loads:
        with pytest.raises(ModelError, match=rf"quantised already \({method} in its config.json\).*16 bits") as caught:
            load()
        assert "\n" not in str(caught.value)


def test_a_package_that_is_not_installed_is_named(tiny: ModuleType, tmp_path: Path) -> None:
    from importlib.util import find_spec

    from tuneline.model.loading import load_merged, one_line_errors

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
    from tuneline.model.loading import one_line_errors

    for revision in (None, "0" * 40):
        with (
            pytest.raises(ModelError, match=r"a/b: cannot be loaded: size mismatch$"),
            one_line_errors("a/b", revision),
        ):
            raise RuntimeError("\nsize mismatch\nfor x")


def test_cut_off_weights_are_refused_in_one_line(tiny: ModuleType, tmp_path: Path) -> None:
    from tuneline.model.loading import load_base

    tiny.save_base(tmp_path)
    weights = tmp_path / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:5000])
    with pytest.raises(ModelError, match="cannot be loaded") as caught:
        load_base(tiny.model_config(tmp_path), tiny.hardware(), None)
    assert "\n" not in str(caught.value)


def test_a_configured_device_that_is_absent_is_an_error_and_not_another_device(tiny: ModuleType) -> None:
    import torch

    from tuneline.model.loading import torch_device

    n_more = torch.cuda.device_count() + 1
    with pytest.raises(EnvironmentProblem, match=f"hardware.device: 'cuda' x {n_more} is configured"):
        torch_device(tiny.hardware(device="cuda", num_devices=n_more, memory_gib=24.0))


def test_weights_are_held_in_the_precision_only_where_they_are_frozen_on_an_accelerator(tiny: ModuleType) -> None:
    import torch

    from tuneline.model.loading import inference_dtype, training_dtype

    gpu = tiny.hardware(device="cuda", precision="bf16", memory_gib=24.0)
    assert inference_dtype(gpu) == training_dtype(gpu, "adapter") == torch.bfloat16
    assert training_dtype(gpu, "full") == torch.float32
    assert inference_dtype(tiny.hardware(precision="bf16")) == torch.float32


def test_stop_tokens_are_eos_and_those_of_the_generation_config(tiny: ModuleType, tmp_path: Path) -> None:
    from transformers import GenerationConfig

    from tuneline.model.loading import load_tokenizer, stop_token_ids

    tiny.save_base(tmp_path)
    config = tiny.model_config(tmp_path)
    assert stop_token_ids(config, load_tokenizer(config)) == (2,)
    generation: Any = GenerationConfig
    generation(eos_token_id=[2, 7]).save_pretrained(tmp_path)
    assert stop_token_ids(config, load_tokenizer(config)) == (2, 7)
    (tmp_path / "generation_config.json").unlink()
    assert stop_token_ids(config, load_tokenizer(config)) == (2,)


def test_a_broken_generation_config_is_refused(tiny: ModuleType, tmp_path: Path) -> None:
    from tuneline.model.loading import load_tokenizer, stop_token_ids

    tiny.save_base(tmp_path)
    config = tiny.model_config(tmp_path)
    (tmp_path / "generation_config.json").write_text("{")
    with pytest.raises(ModelError, match="cannot be loaded"):
        stop_token_ids(config, load_tokenizer(config))


def test_a_hub_model_may_have_no_generation_config_but_the_hub_must_say_so(
    tiny: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from huggingface_hub.errors import EntryNotFoundError, LocalEntryNotFoundError

    from tuneline.model import loading

    tokenizer = loaded_tokenizer(tiny, tmp_path)
    config = tiny.model_config(Path("nobody/nothing"), revision="0" * 40)

    def answers(error: Exception) -> None:
        def download(*args: Any, **kwargs: Any) -> str:
            raise error

        monkeypatch.setattr(loading, "hf_hub_download", download)

    answers(EntryNotFoundError("404"))
    assert loading.stop_token_ids(config, tokenizer) == (2,)
    answers(LocalEntryNotFoundError("no connection"))
    with pytest.raises(EnvironmentProblem, match=r"'nobody/nothing' .* cannot be loaded: no connection"):
        loading.stop_token_ids(config, tokenizer)


def loaded_tokenizer(tiny: ModuleType, folder: Path) -> Any:
    from tuneline.model.loading import load_tokenizer_from

    tiny.save_tokenizer(folder)
    return load_tokenizer_from(folder)
