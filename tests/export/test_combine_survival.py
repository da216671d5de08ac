"""In every way to combine, what is easily lost stays: tied embeddings, an added token, shards, and the very numbers."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tests.export.conftest import PEFT_WARNING, model_config, save_model, save_tokenizer
from tests.export.test_combine import ADAPTER_WAYS, MODEL_WAYS, new_adapter, run_combine, settings, tensors
from tests.export.test_merge import BUDGET

if TYPE_CHECKING:
    from torch import Tensor

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings(PEFT_WARNING)]

ADDED = "<|new|>"
WEIGHTS = (0.6, 0.4)


def save_added_token(folder: Path) -> int:
    """The id of the new token, for which the model has no row yet."""
    from transformers import AutoTokenizer

    save_tokenizer(folder)
    tokenizer: Any = AutoTokenizer.from_pretrained(folder)
    tokenizer.add_special_tokens({"additional_special_tokens": [ADDED]})
    tokenizer.save_pretrained(folder)
    return int(tokenizer.convert_tokens_to_ids(ADDED))


def save_grown_model(folder: Path, seed: int, shard_size: str) -> Path:
    """Tied embeddings with a row for the added token, in as many files as `shard_size` gives."""
    import torch
    from transformers import AutoModelForCausalLM

    save_model(folder, seed, tied=True, hidden_size=64)
    new_id = save_added_token(folder)
    model: Any = AutoModelForCausalLM.from_pretrained(folder)
    model.resize_token_embeddings(512 + 8, mean_resizing=False)
    model.get_input_embeddings().weight.data[new_id] = torch.randn(64)
    (folder / "model.safetensors").unlink()
    model.save_pretrained(folder, max_shard_size=shard_size)
    return folder


def expected(way: str, base: "Tensor", models: "list[Tensor]", masks: "list[Tensor]") -> "Tensor":
    """The papers' formulas, on the whole tensor at once."""
    import torch

    taus = [model - base for model in models]
    match way:
        case "linear":
            return torch.stack([w * model for w, model in zip(WEIGHTS, models, strict=True)]).sum(dim=0)
        case "slerp":
            x, y = (model.double() for model in models)
            angle = torch.acos((x * y).sum() / x.norm() / y.norm())
            if float((x * y).sum() / x.norm() / y.norm()) > 0.9995:
                return (0.6 * x + 0.4 * y).float()
            return ((torch.sin(0.6 * angle) * x + torch.sin(0.4 * angle) * y) / torch.sin(angle)).float()
        case "task_arithmetic":
            return base + 0.6 * taus[0] + 0.4 * taus[1]
        case "ties":
            bounds = [tau.abs().flatten().kthvalue(tau.numel() - tau.numel() // 2 + 1).values for tau in taus]
            return base + mean_of_agreeing([tau * (tau.abs() >= b) for tau, b in zip(taus, bounds, strict=True)])
        case _:
            return base + mean_of_agreeing([2 * tau * mask for tau, mask in zip(taus, masks, strict=True)])


def mean_of_agreeing(taus: "list[Tensor]") -> "Tensor":
    import torch

    weighted = torch.stack([w * tau for w, tau in zip(WEIGHTS, taus, strict=True)])
    agrees = weighted.sign() == weighted.sum(dim=0).sign()
    mass = (torch.tensor(WEIGHTS).reshape(-1, *[1] * taus[0].dim()) * agrees * (weighted != 0)).sum(dim=0)
    return (weighted * agrees).sum(dim=0) / mass.clamp(min=1e-30)


@pytest.mark.parametrize("way", MODEL_WAYS)
def test_models_combined_in_blocks_are_what_the_formulas_give_with_tied_embeddings_added_token_and_shards(
    way: str, rows: list[list[int]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    from tuneline.export import checkpoint, formulas

    monkeypatch.setattr(checkpoint, "BLOCK", 1000)  # so that these tensors have several
    sizes = {"base": "1GB", "one": "100KB", "two": "150KB"}
    base, *both = [save_grown_model(tmp_path / name, seed, size) for seed, (name, size) in enumerate(sizes.items())]
    chosen = settings("full", way, *zip(both, WEIGHTS, strict=True), **MODEL_WAYS[way])
    run_combine(chosen, base, rows, tmp_path / "out")

    found, shards = tensors(tmp_path / "out"), sorted(file.name for file in both[0].glob("*.safetensors"))
    assert sorted(file.name for file in (tmp_path / "out").glob("*.safetensors")) == shards
    assert len(shards) > 1
    index = json.loads((tmp_path / "out/model.safetensors.index.json").read_text())["weight_map"]
    assert index.keys() == found.keys()
    assert "lm_head.weight" not in found
    sources = [tensors(folder) for folder in (base, *both)]
    for name, tensor in found.items():
        drawn = [formulas.mask_generator(42, str(folder), name) for folder in both]
        masks = [(torch.rand(tensor.shape, generator=each) < 0.5).float() for each in drawn]
        origin, *tuned = [source[name] for source in sources]
        torch.testing.assert_close(tensor, expected(way, origin, tuned, masks), rtol=1e-5, atol=1e-6)

    new_id = AutoTokenizer.from_pretrained(both[0]).convert_tokens_to_ids(ADDED)
    assert AutoTokenizer.from_pretrained(tmp_path / "out").convert_tokens_to_ids(ADDED) == new_id
    loaded: Any = AutoModelForCausalLM.from_pretrained(tmp_path / "out")
    assert loaded.get_output_embeddings().weight is loaded.get_input_embeddings().weight
    assert loaded.get_input_embeddings().weight.shape[0] == 512 + 8
    assert bool(torch.isfinite(loaded(torch.tensor([[new_id, 3, new_id]])).logits).all())


@pytest.mark.parametrize("way", ADAPTER_WAYS)
def test_adapters_combined_on_a_sharded_base_keep_its_tied_embeddings_and_the_added_token_that_they_train(
    way: str, rows: list[list[int]], tmp_path: Path
) -> None:
    import torch
    from transformers import AutoTokenizer

    from tuneline.export.merge import check_merge, merge

    base = save_grown_model(tmp_path / "base", 0, "100KB")
    new_id = AutoTokenizer.from_pretrained(base).convert_tokens_to_ids(ADDED)
    both = [new_adapter(base, tmp_path / name, i, trainable_token_indices=[1, new_id]) for i, name in enumerate("ab")]
    for folder in both:
        save_added_token(folder)
    chosen = settings("adapter", way, *zip(both, WEIGHTS, strict=True), **ADAPTER_WAYS[way])
    run_combine(chosen, base, rows, tmp_path / "combined")
    (tmp_path / "merged").mkdir()
    check_merge(merge(tmp_path / "combined", model_config(base), "float32", tmp_path / "merged", rows), BUDGET)

    assert AutoTokenizer.from_pretrained(tmp_path / "merged").convert_tokens_to_ids(ADDED) == new_id
    found = tensors(tmp_path / "merged")
    assert "lm_head.weight" not in found
    before, after = (folder["model.embed_tokens.weight"] for folder in (tensors(base), found))
    assert (before != after).any(dim=1).nonzero().flatten().tolist() == [1, new_id]
    trained = [next(t for name, t in tensors(folder).items() if "trainable_tokens" in name) for folder in both]
    origin = before[[1, new_id]]
    summed = origin + sum(w * (own - origin) for w, own in zip(WEIGHTS, trained, strict=True))
    torch.testing.assert_close(after[[1, new_id]], summed)
