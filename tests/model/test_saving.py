"""Saving: finite weights only, and nothing that differs from run to run or machine to machine."""

import json
from pathlib import Path
from types import ModuleType

import pytest

from tuneline.errors import ModelError

pytestmark = pytest.mark.slow


def test_a_weight_that_is_not_finite_is_refused_by_name(tiny: ModuleType, base: Path) -> None:
    import torch

    from tuneline.model.loading import load_base
    from tuneline.model.saving import check_finite

    model = load_base(tiny.model_config(base), tiny.hardware(), None)
    check_finite(model)
    with torch.no_grad():
        model.model.norm.weight[3] = float("nan")
    with pytest.raises(ModelError, match=r"weights of model.norm.weight are not finite"):
        check_finite(model)


def test_a_tokenizer_is_saved_alike_whether_it_was_found_offline_or_not(
    tiny: ModuleType, base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from transformers import tokenization_utils_base

    from tuneline.model.tokenizers import load_tokenizer, load_tokenizer_from

    for name, offline in (("offline", True), ("online", False)):
        monkeypatch.setattr(tokenization_utils_base, "is_offline_mode", lambda offline=offline: offline)
        load_tokenizer(tiny.model_config(base)).save_pretrained(tmp_path / name)
        load_tokenizer_from(tmp_path / name).save_pretrained(tmp_path / name / "again")
    first, *others = [path.read_bytes() for path in sorted(tmp_path.rglob("tokenizer_config.json"))]
    assert others == [first] * 3
    assert b"local" not in first


def test_an_adapter_folder_names_its_base_as_configured_and_lists_modules_in_order(
    tiny: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from tuneline.model.methods import initial_model
    from tuneline.model.saving import save_model
    from tuneline.model.tokenizers import load_tokenizer

    monkeypatch.chdir(tmp_path)
    base = tiny.save_base(Path("models/base/tiny"))
    config = tiny.model_config(base)
    lora = tiny.lora(target_modules=["v_proj", "q_proj", "down_proj", "k_proj"])
    save_model(
        initial_model(base, config, tiny.LORA, lora, None, tiny.hardware(), 0), load_tokenizer(config), Path("out")
    )
    written = json.loads(Path("out/adapter_config.json").read_text())
    assert written["base_model_name_or_path"] == "models/base/tiny"
    assert written["target_modules"] == ["down_proj", "k_proj", "q_proj", "v_proj"]
    assert sorted(path.name for path in Path("out").iterdir()) == [
        "adapter_config.json",
        "adapter_model.safetensors",
        "chat_template.jinja",
        "tokenizer.json",
        "tokenizer_config.json",
    ]
