"""Weights: what is incomplete, foreign or quantised is refused in one line."""

import json
from collections.abc import Callable
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
