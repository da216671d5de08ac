"""Methods: which weights are trained, and from where."""

from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from tuneline.config.schema import MethodConfig, QuantizationConfig
from tuneline.errors import ModelError

pytestmark = pytest.mark.slow

NF4 = QuantizationConfig(
    load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_use_double_quant=True, bnb_4bit_compute_dtype="float32"
)


def started(tiny: ModuleType, base: Path, method: str, init: Path | None = None, seed: int = 0, **lora: Any) -> Any:
    from tuneline.model.methods import initial_model

    family = "full" if method == "full" else "adapter"
    return initial_model(
        init or base,
        tiny.model_config(base),
        MethodConfig(name=method, family=family),  # type: ignore[arg-type]  # checked at run time
        None if method == "full" else tiny.lora(**lora),
        NF4 if method == "qlora" else None,
        tiny.hardware(),
        seed,
    )


def trained_names(model: Any) -> set[str]:
    return {name for name, parameter in model.named_parameters() if parameter.requires_grad}


def save(model: Any, tiny: ModuleType, base: Path, folder: Path) -> Path:
    from tuneline.model.saving import save_model
    from tuneline.model.tokenizers import load_tokenizer

    save_model(model, load_tokenizer(tiny.model_config(base)), folder)
    return folder


def test_full_trains_every_weight_in_fp32(tiny: ModuleType, base: Path) -> None:
    model = started(tiny, base, "full")
    assert trained_names(model) == {name for name, _ in model.named_parameters()}
    assert {str(parameter.dtype) for parameter in model.parameters()} == {"torch.float32"}


@pytest.mark.parametrize("method", ["lora", "dora", "rslora", "qlora"])
def test_adapter_methods_train_the_adapter_on_every_linear_map_and_nothing_else(
    tiny: ModuleType, base: Path, method: str
) -> None:
    model = started(tiny, base, method, use_dora=method == "dora", use_rslora=method == "rslora")
    kinds = ("lora_A", "lora_B", "lora_magnitude") if method == "dora" else ("lora_A", "lora_B")
    names = trained_names(model)
    assert all(any(kind in name for kind in kinds) for name in names)
    assert len(names) == 2 * 7 * len(kinds), "2 layers of 7 linear maps"


def test_lora_of_rank_r_has_r_times_inputs_plus_outputs_weights(tiny: ModuleType, base: Path) -> None:
    model = started(tiny, base, "lora", r=3)
    # hidden 64, key-value 32, intermediate 128: q, o 64+64; k, v 64+32; gate, up, down 64+128
    assert model.num_parameters(only_trainable=True) == 2 * 3 * (2 * 128 + 2 * 96 + 3 * 192)


@pytest.mark.parametrize(("method", "scaling"), [("lora", 8 / 4), ("rslora", 8 / 4**0.5)])
def test_the_update_is_scaled_by_alpha_over_r_or_its_root(
    tiny: ModuleType, base: Path, method: str, scaling: float
) -> None:
    model = started(tiny, base, method, r=4, lora_alpha=8.0, use_rslora=method == "rslora")
    assert model.base_model.model.model.layers[0].mlp.up_proj.scaling["default"] == scaling


def test_qlora_packs_the_linear_maps_into_four_bits(tiny: ModuleType, base: Path) -> None:
    weight = started(tiny, base, "qlora").base_model.model.model.layers[0].mlp.up_proj.base_layer.weight
    assert weight.element_size() * weight.numel() == 128 * 64 // 2


def test_target_modules_may_be_a_list(tiny: ModuleType, base: Path) -> None:
    names = trained_names(started(tiny, base, "lora", target_modules=["q_proj", "v_proj"]))
    assert {name.split(".")[-4] for name in names} == {"q_proj", "v_proj"}


def test_target_modules_that_are_not_in_the_model_are_refused(tiny: ModuleType, base: Path) -> None:
    with pytest.raises(ModelError, match=r"lora: no adapter fits .*nowhere"):
        started(tiny, base, "lora", target_modules=["nowhere"])


def test_the_seed_alone_decides_a_fresh_adapter(tiny: ModuleType, base: Path) -> None:
    import torch

    def first_a(seed: int) -> torch.Tensor:
        parameters = dict(started(tiny, base, "lora", seed=seed).named_parameters())
        first: torch.Tensor = parameters[next(name for name in sorted(parameters) if "lora_A" in name)]
        return first

    assert torch.equal(first_a(1), first_a(1))
    assert not torch.equal(first_a(1), first_a(2))


def test_a_later_phase_goes_on_training_the_adapter_of_the_earlier(
    tiny: ModuleType, base: Path, tmp_path: Path
) -> None:
    import torch

    first = started(tiny, base, "lora")
    with torch.no_grad():
        for name, parameter in first.named_parameters():
            if "lora_B" in name:
                parameter.fill_(0.25)
    second = started(tiny, base, "lora", init=save(first, tiny, base, tmp_path), seed=9)
    assert trained_names(second) == trained_names(first)
    assert all(torch.equal(p, dict(first.named_parameters())[name]) for name, p in second.named_parameters())


def test_full_does_not_start_from_an_adapter_nor_an_adapter_from_a_full_model(
    tiny: ModuleType, base: Path, tmp_path: Path
) -> None:
    adapter = save(started(tiny, base, "lora"), tiny, base, tmp_path / "adapter")
    full = save(started(tiny, base, "full"), tiny, base, tmp_path / "full")
    with pytest.raises(ModelError, match="holds an adapter, but method full starts from a whole model"):
        started(tiny, base, "full", init=adapter)
    with pytest.raises(ModelError, match="holds no adapter, but method lora goes on training one"):
        started(tiny, base, "lora", init=full)
