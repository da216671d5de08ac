"""Merging: the sum is the one in the papers, and what is on disk is what was trained."""

import json
import math
import re
import shutil
from collections import namedtuple
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tests.export.conftest import PEFT_WARNING, model_config, save_adapter, save_model, save_tokenizer
from tuneline.config.schema import MergeConfig, ModelConfig, QuantizationConfig
from tuneline.errors import BudgetError, EnvironmentProblem, ModelError

if TYPE_CHECKING:
    import torch

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings(PEFT_WARNING)]

LAYER = "model.layers.1.mlp.up_proj"
REVISION = "0123456789abcdef0123456789abcdef01234567"
BUDGET = MergeConfig(
    tuned="models/phase/sft",
    tracked_path="models/phase/sft",
    stages=(),
    combine=None,
    dtype="float32",
    check_examples=3,
    max_relative_logit_diff=1e-4,
)


FOUR_BITS = QuantizationConfig(
    load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_use_double_quant=True, bnb_4bit_compute_dtype="bfloat16"
)


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


def test_rounding_over_the_budget_is_told_from_weights_by_float64(
    base: Path, adapter: Path, rows: list[list[int]], tmp_path: Path
) -> None:
    from tuneline.export.merge import check_merge, float64_difference, merge

    metrics = merge(adapter, model_config(base), "float32", tmp_path, rows)
    assert float64_difference(adapter, model_config(base), BUDGET, tmp_path, rows, metrics) == {}, "within it"
    largest = min(metrics["relative_logit_diff"], metrics["written_relative_logit_diff"])
    tight = BUDGET.model_copy(update={"max_relative_logit_diff": largest / 2})
    with pytest.raises(BudgetError, match=r": relative_logit_diff is"):
        check_merge(metrics, tight)
    found = float64_difference(adapter, model_config(base), tight, tmp_path, rows, metrics)
    check_merge(metrics | found, tight)


def test_another_weight_is_over_the_budget_in_float64_too(
    base: Path, adapter: Path, rows: list[list[int]], tmp_path: Path
) -> None:
    from safetensors.torch import save_file

    from tuneline.export.merge import check_merge, float64_difference, merge

    metrics = merge(adapter, model_config(base), "float32", tmp_path, rows)
    weights = tensors(tmp_path)
    weights[f"{LAYER}.weight"] *= 1.1
    save_file(weights, tmp_path / "model.safetensors", {"format": "pt"})
    over = metrics | {"written_relative_logit_diff": 1.0}  # as merge would have measured it
    found = float64_difference(adapter, model_config(base), BUDGET, tmp_path, rows, over)
    with pytest.raises(BudgetError, match=r"float64_written_relative_logit_diff is"):
        check_merge(over | found, BUDGET)


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
    with pytest.raises(
        ModelError,
        match=rf"tensor base_model.model.{LAYER}.lora_A.weight holds values that are not finite; train it again",
    ):
        merge(tmp_path / "adapter", model_config(base), "float32", tmp_path, rows)


def quantized(base: Path) -> Any:
    import torch
    from transformers import AutoModelForCausalLM, BitsAndBytesConfig

    config: Any = BitsAndBytesConfig(  # type: ignore[no-untyped-call]  # Transformers leaves it untyped
        load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_use_double_quant=True
    )
    return AutoModelForCausalLM.from_pretrained(
        base, quantization_config=config, device_map={"": "cpu"}, dtype=torch.float32
    )


def test_merging_into_a_quantised_base_is_refused_in_one_line(
    base: Path, adapter: Path, rows: list[list[int]], tmp_path: Path
) -> None:
    import shutil

    from tuneline.export.merge import merge

    quantized(base).save_pretrained(tmp_path / "base")
    save_tokenizer(tmp_path / "base")
    shutil.copytree(adapter, tmp_path / "adapter")
    config = json.loads((adapter / "adapter_config.json").read_text())
    config["base_model_name_or_path"] = str(tmp_path / "base")
    (tmp_path / "adapter/adapter_config.json").write_text(json.dumps(config))
    (tmp_path / "out").mkdir()
    with pytest.raises(ModelError, match=r"/base' is quantised already \(bitsandbytes .*in 16 bits") as caught:
        merge(tmp_path / "adapter", model_config(tmp_path / "base"), "float32", tmp_path / "out", rows)
    assert "\n" not in str(caught.value)
    assert list((tmp_path / "out").iterdir()) == []


def test_after_qlora_the_distance_of_the_merged_model_from_the_trained_one_is_measured(
    base: Path, adapter: Path, merged: Path, rows: list[list[int]]
) -> None:
    """Against bitsandbytes, PEFT and Transformers asked directly."""
    import torch
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    from tuneline.export.merge import four_bit_distance

    found = four_bit_distance(adapter, model_config(base), FOUR_BITS, merged, rows)
    trained = PeftModel.from_pretrained(quantized(base), str(adapter))
    written = AutoModelForCausalLM.from_pretrained(merged)
    divergences, same = [], []
    for ids in rows:
        with torch.inference_mode():
            p, q = (model(torch.tensor([ids])).logits[0].log_softmax(-1) for model in (trained, written))
        divergences += (p.exp() * (p - q)).sum(dim=-1).tolist()
        same += (p.argmax(-1) == q.argmax(-1)).tolist()
    assert found["four_bit_kl_mean_nats"] == pytest.approx(sum(divergences) / len(divergences), rel=1e-3)
    assert found["four_bit_kl_mean_nats"] > 1e-4
    assert found["four_bit_top1_agreement"] == pytest.approx(sum(same) / len(same))


def test_without_qlora_or_an_adapter_there_is_no_distance_from_4_bits(
    base: Path, adapter: Path, merged: Path, rows: list[list[int]]
) -> None:
    from tuneline.export.merge import four_bit_distance

    assert four_bit_distance(adapter, model_config(base), None, merged, rows) == {}
    assert four_bit_distance(merged, model_config(base), FOUR_BITS, merged, rows) == {}


def test_a_merge_that_does_not_fit_the_disk_is_refused_before_anything_is_written(
    base: Path, rows: list[list[int]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage(10**9, 10**9 - 1000, 1000))
    with pytest.raises(EnvironmentProblem, match=r"needs up to [\d,]+ bytes, 1,000 are free"):
        merge_new_adapter(base, rows, tmp_path)
    assert list((tmp_path / "merged").iterdir()) == []


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


@pytest.mark.parametrize("name", ["lm_head.weight", "model.norm.weight"])
def test_a_tensor_that_reached_the_disk_changed_is_named(
    base: Path, rows: list[list[int]], tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from transformers import PreTrainedModel

    from tuneline.export.merge import merge

    save_model(tmp_path / "untied", 0, tied=False)
    save_tokenizer(tmp_path / "untied")
    save_pretrained = PreTrainedModel.save_pretrained

    def save_and_flip_a_bit(model: PreTrainedModel, folder: Path) -> None:
        save_pretrained(model, folder)
        flip_lowest_bit(folder / "model.safetensors", name)

    monkeypatch.setattr(PreTrainedModel, "save_pretrained", save_and_flip_a_bit)
    (tmp_path / "out").mkdir()
    with pytest.raises(ModelError, match=rf"model\.safetensors: tensor {name} was not written as it is in memory"):
        merge(tmp_path / "untied", model_config(base), "float32", tmp_path / "out", rows)


def flip_lowest_bit(file: Path, name: str) -> None:
    """Of the first number of tensor `name`: the format is a length in 8 bytes, a JSON header, and the numbers."""
    data = bytearray(file.read_bytes())
    n_header = int.from_bytes(data[:8], "little")
    start, _ = json.loads(data[8 : 8 + n_header])[name]["data_offsets"]
    data[8 + n_header + start] ^= 1
    file.write_bytes(data)


def hub_model(folder: Path) -> ModelConfig:
    return model_config(folder).model_copy(update={"name_or_path": "google/gemma", "revision": REVISION})


@pytest.fixture
def hub_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The empty cache of one hub model, and a hub that is not reached."""
    import huggingface_hub.constants

    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    cache = tmp_path / "hub/models--google--gemma"
    (cache / "snapshots" / REVISION).mkdir(parents=True)
    return cache


def test_a_sentencepiece_file_that_the_hub_cannot_be_asked_for_is_not_left_out(base: Path, hub_cache: Path) -> None:
    from tuneline.export import merge

    with pytest.raises(EnvironmentProblem, match=rf"tokenizer\.model.*`hf download google/gemma .*{REVISION}`"):
        merge._copy_sentencepiece(hub_model(base), hub_cache)


def test_a_hub_model_without_a_sentencepiece_file_needs_none(base: Path, hub_cache: Path) -> None:
    from tuneline.export import merge

    (hub_cache / ".no_exist" / REVISION).mkdir(parents=True)
    (hub_cache / ".no_exist" / REVISION / "tokenizer.model").touch()  # how the hub's client remembers a 404
    merge._copy_sentencepiece(hub_model(base), hub_cache)
    assert not (hub_cache / "tokenizer.model").exists()


def test_a_hub_that_says_there_is_no_sentencepiece_file_is_believed(
    base: Path, hub_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from huggingface_hub.errors import RemoteEntryNotFoundError

    from tuneline.export import merge

    def not_found(*_: object, **__: object) -> str:
        raise RemoteEntryNotFoundError.__new__(RemoteEntryNotFoundError)  # its own constructor wants the response

    monkeypatch.setattr(merge, "hf_hub_download", not_found)
    merge._copy_sentencepiece(hub_model(base), hub_cache)
    assert not (hub_cache / "tokenizer.model").exists()


def test_the_sentencepiece_file_of_a_hub_model_is_copied(base: Path, hub_cache: Path, tmp_path: Path) -> None:
    from tuneline.export import merge

    (hub_cache / "snapshots" / REVISION / "tokenizer.model").write_bytes(b"pieces")
    merge._copy_sentencepiece(hub_model(base), tmp_path)
    assert (tmp_path / "tokenizer.model").read_bytes() == b"pieces"


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


def mixture_of_experts(kind: str) -> Any:
    """A tiny one, whose experts are one tensor in memory and many on disk."""
    import torch
    import transformers

    torch.manual_seed(0)
    sizes: dict[str, Any] = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "vocab_size": 64}
    heads: dict[str, Any] = {"num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 8, "pad_token_id": 0}
    match kind:
        case "mixtral":
            return transformers.MixtralForCausalLM(transformers.MixtralConfig(num_local_experts=4, **sizes, **heads))
    config = transformers.Qwen3MoeConfig(num_experts=4, moe_intermediate_size=16, **sizes, **heads)
    return transformers.Qwen3MoeForCausalLM(config)


KINDS = pytest.mark.parametrize("kind", ["mixtral", "qwen3-moe"])


def an_expert(folder: Path) -> str:
    """The last of the names on disk that no tensor in memory has, of the first layer."""
    return max(name for name in tensors(folder) if name.startswith("model.layers.0.") and ".experts.3." in name)


@KINDS
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_an_expert_that_reached_the_disk_changed_is_named(kind: str, dtype: Any, tmp_path: Path) -> None:
    from tuneline.export.merge import _check_written, round_weights

    model = mixture_of_experts(kind)
    round_weights(model, dtype)
    model.save_pretrained(tmp_path)
    _check_written(model, tmp_path)
    name = an_expert(tmp_path)
    assert name not in model.state_dict()
    flip_lowest_bit(tmp_path / "model.safetensors", name)
    message = rf"model\.safetensors: tensor {re.escape(name)} was not written as it is in memory"
    with pytest.raises(ModelError, match=message):
        _check_written(model, tmp_path)


@KINDS
def test_an_expert_that_was_not_written_or_is_none_of_the_models_is_named(kind: str, tmp_path: Path) -> None:
    from safetensors.torch import save_file

    from tuneline.export.merge import _check_written

    model = mixture_of_experts(kind)
    model.save_pretrained(tmp_path)
    name, weights = an_expert(tmp_path), tensors(tmp_path)
    lost = weights.pop(name)
    save_file(weights, tmp_path / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ModelError, match=rf"tensor {re.escape(name)} was not written; is the disk sound"):
        _check_written(model, tmp_path)
    foreign = name.replace(".experts.3.", ".experts.4.")
    both = {**weights, name: lost, foreign: lost.clone()}
    save_file(both, tmp_path / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ModelError, match=rf"model\.safetensors: tensor {re.escape(foreign)} is none of the model's"):
        _check_written(model, tmp_path)


@KINDS
def test_experts_that_are_read_back_otherwise_than_they_are_in_memory_are_named(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As by a loader that joins them in another order: every number on disk is right."""
    from tuneline.export import merge
    from tuneline.model.loading import load_full

    def load_and_swap_experts(*settings: Any) -> Any:
        read_back = load_full(*settings)
        joined = read_back.model.layers[1].mlp.experts.down_proj
        joined.data[[0, 1]] = joined.data[[1, 0]]
        return read_back

    model = mixture_of_experts(kind)
    model.save_pretrained(tmp_path)
    monkeypatch.setattr(merge, "load_full", load_and_swap_experts)
    with pytest.raises(ModelError, match=r"tensor model\.layers\.1\.mlp\.experts\.down_proj was not written as"):
        merge._check_written(model, tmp_path)


def test_a_tensor_that_was_not_written_is_named(merged: Path, tmp_path: Path) -> None:
    from safetensors.torch import save_file
    from transformers import AutoModelForCausalLM

    from tuneline.export.merge import _check_written

    model = AutoModelForCausalLM.from_pretrained(merged)
    weights = tensors(merged)
    save_file(weights, tmp_path / "model.safetensors")
    _check_written(model, tmp_path)  # of two tied embeddings, one is enough
    del weights[f"{LAYER}.weight"]
    save_file(weights, tmp_path / "model.safetensors")
    with pytest.raises(ModelError, match=rf"tensor {LAYER}\.weight was not written; is the disk sound"):
        _check_written(model, tmp_path)
