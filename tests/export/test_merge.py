"""Merging: the sum is the one in the papers, and what is on disk is what was trained."""

import json
import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tests.export.conftest import PEFT_WARNING, model_config, save_adapter, save_model, save_tokenizer
from tuneline.config.schema import MergeConfig
from tuneline.errors import BudgetError, ModelError

if TYPE_CHECKING:
    import torch

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings(PEFT_WARNING)]

LAYER = "model.layers.1.mlp.up_proj"
BUDGET = MergeConfig(dtype="float32", check_examples=3, max_relative_logit_diff=1e-4)


def tensors(folder: Path) -> "dict[str, torch.Tensor]":
    from safetensors.torch import load_file

    (file,) = folder.glob("*.safetensors")
    return load_file(file)


def merge_new_adapter(base: Path, rows: list[list[int]], out: Path, **settings: Any) -> dict[str, float | int]:
    from tuneline.export.merge import merge

    save_adapter(base, out / "adapter", r=4, lora_alpha=8, **settings)
    (out / "merged").mkdir()
    return merge(out / "adapter", model_config(base), "float32", out / "merged", rows)


@pytest.mark.parametrize(("use_rslora", "scale"), [(False, 8 / 4), (True, 8 / math.sqrt(4))])
def test_merge_equals_base_plus_scaled_BA(  # noqa: N802  (the matrices' names)
    base: Path, rows: list[list[int]], tmp_path: Path, use_rslora: bool, scale: float
) -> None:
    import torch

    merge_new_adapter(base, rows, tmp_path, target_modules="all-linear", use_rslora=use_rslora)
    lora = tensors(tmp_path / "adapter")
    a, b = (lora[f"base_model.model.{LAYER}.lora_{part}.weight"] for part in "AB")
    expected = tensors(base)[f"{LAYER}.weight"] + scale * (b @ a)
    torch.testing.assert_close(tensors(tmp_path / "merged")[f"{LAYER}.weight"], expected)


def test_merged_dora_has_the_learned_norm_in_every_row(base: Path, rows: list[list[int]], tmp_path: Path) -> None:
    """DoRA (Liu et al. 2024, equation 5): W' = m (W + sBA) / ||W + sBA||, norms over each output's weights."""
    import torch

    merge_new_adapter(base, rows, tmp_path, target_modules="all-linear", use_dora=True)
    lora = tensors(tmp_path / "adapter")
    name = f"base_model.model.{LAYER}"
    a, b, m = (lora[f"{name}.lora_{part}"] for part in ("A.weight", "B.weight", "magnitude_vector"))
    v = tensors(base)[f"{LAYER}.weight"] + 2 * (b @ a)
    expected = m[:, None] * v / v.norm(dim=1, keepdim=True)
    torch.testing.assert_close(tensors(tmp_path / "merged")[f"{LAYER}.weight"], expected)


def test_tied_embeddings_stay_one_matrix(merged: Path, base: Path) -> None:
    import torch

    assert "lm_head.weight" not in tensors(merged)
    assert json.loads((merged / "config.json").read_text())["tie_word_embeddings"] is True
    assert torch.equal(tensors(merged)["model.embed_tokens.weight"], tensors(base)["model.embed_tokens.weight"])


def test_trained_chat_tokens_reach_both_tied_embeddings(base: Path, rows: list[list[int]], tmp_path: Path) -> None:
    import torch

    from tuneline.export.merge import check_merge

    metrics = merge_new_adapter(base, rows, tmp_path, target_modules="all-linear", trainable_token_indices=[1, 2])
    check_merge(metrics, BUDGET)
    before = tensors(base)["model.embed_tokens.weight"]
    after = tensors(tmp_path / "merged")["model.embed_tokens.weight"]
    changed = (before != after).any(dim=1).nonzero().flatten().tolist()
    assert changed == [1, 2]
    assert torch.isfinite(after).all()


@pytest.mark.filterwarnings("ignore::UserWarning")  # PEFT warns of it three times
def test_adapter_on_one_of_two_tied_embeddings_is_refused(base: Path, rows: list[list[int]], tmp_path: Path) -> None:
    from tuneline.export.merge import check_merge

    with pytest.raises((ModelError, BudgetError), match="tied"):
        check_merge(merge_new_adapter(base, rows, tmp_path, target_modules=["embed_tokens"]), BUDGET)


def test_merge_of_the_fixture_is_within_its_budget_and_reports_its_size(
    base: Path, adapter: Path, rows: list[list[int]], tmp_path: Path
) -> None:
    from tuneline.export.merge import check_merge, merge

    metrics = merge(adapter, model_config(base), "float32", tmp_path, rows)
    check_merge(metrics, BUDGET)
    assert metrics["n_tokens"] == sum(map(len, rows))
    assert metrics["top1_agreement"] == 1.0
    # embeddings, 2 x (q + k + v + o, gate + up + down, two norms), last norm
    n_layer = 256 * (256 + 128 + 128 + 256) + 3 * 256 * 512 + 2 * 256
    assert metrics["n_parameters"] == 512 * 256 + 2 * n_layer + 256
    assert metrics["size_mib"] == pytest.approx(4 * metrics["n_parameters"] / 2**20, rel=0.01)


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_sixteen_bit_merge_is_exact_before_rounding(
    base: Path, adapter: Path, rows: list[list[int]], tmp_path: Path, dtype: Any
) -> None:
    import torch

    from tuneline.export.merge import check_merge, merge

    metrics = merge(adapter, model_config(base), dtype, tmp_path, rows)
    check_merge(metrics, BUDGET.model_copy(update={"dtype": dtype}))
    assert metrics["relative_logit_diff"] < 1e-4 < metrics["written_relative_logit_diff"]
    assert {tensor.dtype for tensor in tensors(tmp_path).values()} == {getattr(torch, dtype)}


def test_weights_beyond_float16_are_refused(base: Path, rows: list[list[int]], tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    from tuneline.export.merge import merge

    save_model(tmp_path / "big", 0, tied=True)
    save_tokenizer(tmp_path / "big")
    weights = load_file(tmp_path / "big/model.safetensors")
    weights["model.norm.weight"][0] = 1e5
    save_file(weights, tmp_path / "big/model.safetensors", metadata={"format": "pt"})
    (tmp_path / "out").mkdir()
    with pytest.raises(ModelError, match=r"merge.dtype: model.norm.weight .*bfloat16"):
        merge(tmp_path / "big", model_config(base), "float16", tmp_path / "out", rows)


def test_nan_in_the_adapter_is_refused(base: Path, adapter: Path, rows: list[list[int]], tmp_path: Path) -> None:
    import shutil

    from safetensors.torch import save_file

    from tuneline.export.merge import merge

    shutil.copytree(adapter, tmp_path / "adapter")
    weights = tensors(adapter)
    weights[f"base_model.model.{LAYER}.lora_A.weight"][0, 0] = math.nan
    save_file(weights, tmp_path / "adapter/adapter_model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ModelError, match=r"the adapter cannot be merged: NaNs.*train it again"):
        merge(tmp_path / "adapter", model_config(base), "float32", tmp_path, rows)


def test_full_fine_tune_is_copied(base: Path, rows: list[list[int]], tmp_path: Path) -> None:
    import torch

    from tuneline.export.merge import merge

    metrics = merge(base, model_config(base), "float32", tmp_path, rows)
    assert metrics["max_abs_logit_diff"] == metrics["written_max_abs_logit_diff"] == 0.0
    assert all(torch.equal(tensor, tensors(base)[name]) for name, tensor in tensors(tmp_path).items())


def test_two_merges_are_the_same_bytes(
    base: Path, adapter: Path, merged: Path, rows: list[list[int]], tmp_path: Path
) -> None:
    from tuneline.export.merge import merge

    merge(adapter, model_config(base), "float32", tmp_path, rows)
    files = sorted(file.name for file in tmp_path.iterdir())
    assert files == sorted(file.name for file in merged.iterdir())
    assert all((tmp_path / name).read_bytes() == (merged / name).read_bytes() for name in files)


def test_no_file_of_a_merged_model_names_the_folder_it_was_made_in(merged: Path) -> None:
    parent = str(merged.parent).encode()
    assert not [file.name for file in merged.iterdir() if parent in file.read_bytes()]


def test_merge_budget_error_names_link_figure_budget_and_cause() -> None:
    from tuneline.export.merge import check_merge

    broken = {"relative_logit_diff": 0.03, "written_relative_logit_diff": 0.03}
    with pytest.raises(BudgetError, match=r"adapter -> merged.*0\.03.*logit_diff allows 0\.0001.*another base"):
        check_merge(broken, BUDGET)
    with pytest.raises(BudgetError):
        check_merge({"relative_logit_diff": math.nan}, BUDGET)
