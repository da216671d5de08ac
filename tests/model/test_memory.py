"""The memory estimate against numbers counted by hand."""

from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from tuneline.config.schema import MethodConfig, QuantizationConfig
from tuneline.errors import BudgetError, ModelError

pytestmark = pytest.mark.slow

QLORA = MethodConfig(name="qlora", family="adapter")
NF4 = QuantizationConfig(
    load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_use_double_quant=True, bnb_4bit_compute_dtype="bfloat16"
)


def gpu(tiny: ModuleType, **changed: Any) -> Any:
    return tiny.hardware(**{"device": "cuda", "memory_gib": 24.0, "precision": "bf16", **changed})


def shape(n_trainable: int) -> Any:
    """A model of 1,000,000 weights, 800,000 of them in linear maps: 3 layers, H 10, I 20, Q 10, K 5, V 100."""
    from tuneline.model.memory import ModelShape

    return ModelShape(
        n_parameters=1_000_000,
        n_quantizable=800_000,
        n_trainable=n_trainable,
        n_layers=3,
        hidden=10,
        intermediate=20,
        query=10,
        key_value=5,
        n_heads=2,
        vocab=100,
    )


def test_full_fine_tuning_takes_16_bytes_a_weight_and_a_16_bit_copy(tiny: ModuleType) -> None:
    from tuneline.model.memory import estimate_memory

    estimate = estimate_memory(shape(1_000_000), tiny.FULL, None, gpu(tiny), 8)
    assert (estimate.weights, estimate.gradients, estimate.optimizer) == (5_600_000, 4_000_000, 8_000_000)


def test_lora_holds_the_base_in_16_bits_and_trains_the_adapter_in_32(tiny: ModuleType) -> None:
    from tuneline.model.memory import estimate_memory

    estimate = estimate_memory(shape(1000), tiny.LORA, None, gpu(tiny, optim="paged_adamw_8bit"), 8)
    assert (estimate.weights, estimate.gradients, estimate.optimizer) == (2_004_000, 4000, 2000)


def test_qlora_packs_the_linear_maps_and_keeps_the_rest_in_32_bits(tiny: ModuleType) -> None:
    from tuneline.model.memory import estimate_memory

    estimate = estimate_memory(shape(1000), QLORA, NF4, gpu(tiny), 8)
    assert estimate.weights == pytest.approx(800_000 * 4.127 / 8 + 200_000 * 4 + 4000)


def test_activations_are_counted_per_layer_or_per_checkpoint(tiny: ModuleType) -> None:
    from tuneline.model.memory import estimate_memory

    # bf16: norms 2*6*10, inputs 2*2*10, attention 2*(20+10), MLP 4*2*20 = 380 bytes a token and layer
    n_tokens = 4 * 8
    kept = estimate_memory(shape(1000), tiny.LORA, None, gpu(tiny), 8)
    assert kept.activations == 3 * 380 * n_tokens
    recomputed = estimate_memory(shape(1000), tiny.LORA, None, gpu(tiny, gradient_checkpointing=True), 8)
    assert recomputed.activations == (3 * 2 * 10 + 380) * n_tokens
    eager = estimate_memory(shape(1000), tiny.LORA, None, gpu(tiny, attn_implementation="eager"), 8)
    assert eager.activations == 3 * (380 + 8 * 2 * 8) * n_tokens
    assert kept.logits == 4 * n_tokens * 100


def test_the_shape_is_read_off_the_architecture(tiny: ModuleType, base: Path) -> None:
    from tuneline.model.memory import ModelShape, model_shape

    linear = 2 * (2 * 64 * 64 + 2 * 64 * 32 + 3 * 64 * 128)
    assert model_shape(tiny.model_config(base), tiny.LORA, tiny.lora(r=4)) == ModelShape(
        n_parameters=linear + 320 * 64 + 5 * 64,  # tied embedding, 2 norms a layer and the last
        n_quantizable=linear,
        n_trainable=2 * 4 * (2 * 128 + 2 * 96 + 3 * 192),
        n_layers=2,
        hidden=64,
        intermediate=128,
        query=64,
        key_value=32,
        n_heads=4,
        vocab=320,
    )


def test_what_cannot_fit_is_refused_with_its_numbers_and_what_to_change(tiny: ModuleType, base: Path) -> None:
    from tuneline.model.memory import check_memory

    config = tiny.model_config(base)
    check_memory(config, tiny.LORA, tiny.lora(), None, gpu(tiny), 64)
    check_memory(config, tiny.LORA, tiny.lora(), None, tiny.hardware(), 64)
    with pytest.raises(BudgetError, match=r"hardware.memory_gib: 0.5, but method lora needs about 1\.0 GiB") as caught:
        check_memory(config, tiny.LORA, tiny.lora(), None, gpu(tiny, memory_gib=0.5), 64)
    assert "gradient_checkpointing: true; or lower hardware.micro_batch_size" in str(caught.value)
    assert "choose method=qlora" in str(caught.value)


def test_target_modules_that_are_not_in_the_model_are_refused_before_weights_are_loaded(
    tiny: ModuleType, base: Path
) -> None:
    from tuneline.model.memory import check_memory

    lora = tiny.lora(target_modules=["nowhere"])
    with pytest.raises(ModelError, match=r"lora: no adapter fits .*nowhere") as caught:
        check_memory(tiny.model_config(base), tiny.LORA, lora, None, gpu(tiny), 64)
    assert "\n" not in str(caught.value)


def test_an_architecture_that_is_no_language_model_is_refused_in_one_line(tiny: ModuleType, tmp_path: Path) -> None:
    from tuneline.model.memory import check_memory

    (tmp_path / "config.json").write_text('{"model_type": "clip"}')
    with pytest.raises(ModelError, match="cannot be loaded: Unrecognized configuration class") as caught:
        check_memory(tiny.model_config(tmp_path), tiny.LORA, tiny.lora(), None, gpu(tiny), 64)
    assert "\n" not in str(caught.value)
