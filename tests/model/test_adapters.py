"""Adapters read back: only onto the base they were trained on, and only whole."""

from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from tests.model.test_loading import rewrite
from tuneline.errors import ModelError

pytestmark = pytest.mark.slow


def saved_adapter(tiny: ModuleType, base: Path, folder: Path) -> Path:
    from tuneline.model.methods import initial_model
    from tuneline.model.saving import save_model
    from tuneline.model.tokenizers import load_tokenizer

    config = tiny.model_config(base)
    model = initial_model(base, config, tiny.LORA, tiny.lora(), None, tiny.hardware(), seed=0)
    save_model(model, load_tokenizer(config), folder)
    return folder


def test_an_adapter_of_another_base_is_refused(tiny: ModuleType, base: Path, tmp_path: Path) -> None:
    from tuneline.model.adapters import load_tuned

    adapter = saved_adapter(tiny, base, tmp_path / "adapter")
    other = tiny.save_base(tmp_path / "other")
    with pytest.raises(ModelError, match=r"the adapter was trained on .*, but model.name_or_path is .*other"):
        load_tuned(adapter, tiny.model_config(other), tiny.hardware(), None)


def test_an_adapter_that_lacks_a_tensor_is_refused(tiny: ModuleType, base: Path, tmp_path: Path) -> None:
    from tuneline.model.adapters import load_tuned

    adapter = saved_adapter(tiny, base, tmp_path)
    rewrite(adapter / "adapter_model.safetensors", lambda tensors: tensors.pop(sorted(tensors)[0]))
    with pytest.raises(ModelError, match="the adapter does not fit its base"):
        load_tuned(adapter, tiny.model_config(base), tiny.hardware(), None)


def test_a_tuned_model_is_base_plus_adapter_in_eval_mode(tiny: ModuleType, base: Path, tmp_path: Path) -> None:
    import torch

    from tuneline.model.adapters import load_tuned
    from tuneline.model.loading import load_base

    def raise_b(tensors: dict[str, Any]) -> None:
        for name in tensors:
            if "lora_B" in name:
                tensors[name] += 0.1

    adapter = saved_adapter(tiny, base, tmp_path)
    config, hardware, ids_BT = tiny.model_config(base), tiny.hardware(), torch.arange(3, 20)[None]
    plain = load_base(config, hardware, None)
    fresh = load_tuned(adapter, config, hardware, None)
    assert torch.equal(fresh(ids_BT).logits, plain(ids_BT).logits), "an untrained adapter (B = 0) changes nothing"
    rewrite(adapter / "adapter_model.safetensors", raise_b)
    tuned = load_tuned(adapter, config, hardware, None)
    assert not tuned.training
    assert not torch.allclose(tuned(ids_BT).logits, plain(ids_BT).logits)
