"""Loading: what is incomplete, foreign or absent is refused in one line."""

from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

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
