"""Combining: the result is what the formulas say, survives a round trip, and what cannot be combined is named."""

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tests.export.conftest import PEFT_WARNING, model_config, save_adapter, save_model, save_tokenizer
from tuneline.config.schema import CombineConfig, CombineSourceConfig
from tuneline.errors import BudgetError, ModelError

if TYPE_CHECKING:
    import torch

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings(PEFT_WARNING)]

MODEL_WAYS: dict[str, dict[str, Any]] = {
    "linear": {},
    "slerp": {},
    "task_arithmetic": {},
    "ties": {"density": 0.5, "majority_sign_method": "total"},
    "dare_ties": {"density": 0.5, "majority_sign_method": "total"},
}
ADAPTER_WAYS: dict[str, dict[str, Any]] = {
    "cat": {},
    "linear": {},
    "svd": {},
    "ties": {"density": 0.6, "majority_sign_method": "total"},
    "dare_linear": {"density": 0.6},
    "dare_ties": {"density": 0.6, "majority_sign_method": "total"},
    "magnitude_prune": {"density": 0.6},
}
LAYER = "model.layers.1.mlp.up_proj"
PREFIX = f"base_model.model.{LAYER}"


def settings(family: Any, way: Any, *sources: tuple[Path, float], **options: Any) -> CombineConfig:
    """Unchecked paths, because the schema wants them inside the repository."""
    chosen = tuple(CombineSourceConfig.model_construct(path=str(path), weight=weight) for path, weight in sources)
    values = {"density": None, "majority_sign_method": None, "svd_rank": None, **options}
    return CombineConfig.model_construct(family=family, combination_type=way, sources=chosen, **values)


def tensors(folder: Path) -> "dict[str, torch.Tensor]":
    from safetensors.torch import load_file

    return {name: tensor for file in folder.glob("*.safetensors") for name, tensor in load_file(file).items()}


def new_adapter(base: Path, folder: Path, seed: int, **options: Any) -> Path:
    import torch
    from safetensors.torch import load_file, save_file

    save_adapter(base, folder, **{"r": 4, "lora_alpha": 8, "target_modules": "all-linear"} | options)
    file = folder / "adapter_model.safetensors"
    generator = torch.Generator().manual_seed(seed)
    noise = {name: 0.05 * torch.randn(tensor.shape, generator=generator) for name, tensor in load_file(file).items()}
    save_file(noise, file, metadata={"format": "pt"})
    return folder


@pytest.fixture(scope="module")
def two(base: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    folder = tmp_path_factory.mktemp("adapters")
    return new_adapter(base, folder / "a", 1), new_adapter(base, folder / "b", 2)


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, Path]:
    """A base and two others of its shape, tied."""
    folders = [tmp_path_factory.mktemp(f"model{seed}") for seed in range(3)]
    for seed, folder in enumerate(folders):
        save_model(folder, seed, tied=True, hidden_size=64)
        save_tokenizer(folder)
    return folders[0], folders[1], folders[2]


def delta(folder: Path, scale: float) -> "torch.Tensor":
    weights = tensors(folder)
    return scale * (weights[f"{PREFIX}.lora_B.weight"] @ weights[f"{PREFIX}.lora_A.weight"])


def run_combine(chosen: CombineConfig, base: Path, rows: list[list[int]], out: Path) -> dict[str, float | int]:
    from tuneline.export.combine import combine

    out.mkdir()
    return combine(chosen, model_config(base), 42, out, rows)


def test_cat_is_the_weighted_sum_of_the_updates(
    base: Path, two: tuple[Path, Path], rows: list[list[int]], tmp_path: Path
) -> None:
    import torch

    from tuneline.export.combine import check_combination

    chosen = settings("adapter", "cat", (two[0], 0.7), (two[1], -0.4))
    metrics = run_combine(chosen, base, rows, tmp_path / "out")
    torch.testing.assert_close(delta(tmp_path / "out", 1), 0.7 * delta(two[0], 2) - 0.4 * delta(two[1], 2))
    check_combination(metrics, chosen, 1e-4)
    assert metrics["source_0_kl_mean_nats"] > 0
    with pytest.raises(BudgetError, match=r"combine \(adapters -> combined\): sum_relative_logit_diff is 0\.5"):
        check_combination({**metrics, "sum_relative_logit_diff": 0.5}, chosen, 1e-4)


def test_rounding_over_the_budget_is_told_from_a_wrong_sum_by_float64(
    base: Path, two: tuple[Path, Path], rows: list[list[int]], tmp_path: Path
) -> None:
    from safetensors.torch import load_file, save_file

    from tuneline.export.combine import check_combination, float64_difference

    chosen, out = settings("adapter", "cat", (two[0], 0.7), (two[1], -0.4)), tmp_path / "out"
    metrics = run_combine(chosen, base, rows, out)
    assert float64_difference(chosen, model_config(base), 1e-4, out, rows, metrics) == {}, "within it"
    allowed = metrics["sum_relative_logit_diff"] / 2
    with pytest.raises(BudgetError, match=r": sum_relative_logit_diff is"):
        check_combination(metrics, chosen, allowed)
    found = float64_difference(chosen, model_config(base), allowed, out, rows, metrics)
    check_combination(metrics | found, chosen, allowed)

    weights = load_file(out / "adapter_model.safetensors")
    save_file({name: 1.1 * weight for name, weight in weights.items()}, out / "adapter_model.safetensors")
    found = float64_difference(chosen, model_config(base), allowed, out, rows, metrics)
    with pytest.raises(BudgetError, match=r": float64_sum_relative_logit_diff is"):
        check_combination(metrics | found, chosen, 1e-4)


def test_only_cat_is_held_to_the_sum(base: Path, two: tuple[Path, Path], rows: list[list[int]], tmp_path: Path) -> None:
    from tuneline.export.combine import check_combination, float64_difference

    chosen = settings("adapter", "svd", (two[0], 0.7), (two[1], -0.4))
    metrics = run_combine(chosen, base, rows, tmp_path / "out")
    assert float64_difference(chosen, model_config(base), 0.0, tmp_path / "out", rows, metrics) == {}
    check_combination(metrics, chosen, 0.0)


def test_each_source_and_the_combination_are_loaded_once_to_be_compared(
    base: Path, two: tuple[Path, Path], rows: list[list[int]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from tuneline.export import combine
    from tuneline.model.adapters import load_tuned

    loaded: list[Path] = []

    def load_and_note(folder: Path, *settings: Any) -> Any:
        loaded.append(folder)
        return load_tuned(folder, *settings)

    monkeypatch.setattr(combine, "load_tuned", load_and_note)
    run_combine(settings("adapter", "cat", (two[0], 0.5), (two[1], 0.5)), base, rows, tmp_path / "out")
    assert sorted(loaded) == sorted([*two, tmp_path / "out"])


@pytest.mark.parametrize("way", ["linear", "svd", "ties", "dare_linear", "dare_ties", "magnitude_prune"])
def test_every_way_gives_a_folder_like_a_phase_output_twice_the_same(
    way: str, base: Path, two: tuple[Path, Path], rows: list[list[int]], tmp_path: Path
) -> None:
    from tests.export.test_merge import BUDGET
    from tuneline.export.merge import check_merge, merge

    options: dict[str, Any] = {} if way in ("linear", "svd") else {"density": 0.6}
    options |= {"majority_sign_method": "total"} if "ties" in way else {}
    chosen = settings("adapter", way, (two[0], 0.5), (two[1], 0.5), **options)
    run_combine(chosen, base, rows, tmp_path / "out")
    run_combine(chosen, base, rows, tmp_path / "again")
    files = sorted(file.name for file in (tmp_path / "out").iterdir())
    assert set(files) >= {"adapter_config.json", "adapter_model.safetensors", "tokenizer.json", "chat_template.jinja"}
    assert all((tmp_path / "out" / name).read_bytes() == (tmp_path / "again" / name).read_bytes() for name in files)
    (tmp_path / "merged").mkdir()
    check_merge(merge(tmp_path / "out", model_config(base), "float32", tmp_path / "merged", rows), BUDGET)


def test_adapters_of_other_ranks_scales_and_modules_are_combined_by_cat_and_svd(
    base: Path, two: tuple[Path, Path], rows: list[list[int]], tmp_path: Path
) -> None:
    other = new_adapter(base, tmp_path / "c", 3, r=2, use_rslora=True, target_modules=["q_proj", "up_proj"])
    sources = ((other, 0.5), (two[1], 0.5))
    for way, rank in (("cat", 6), ("svd", 6)):
        options = {"svd_rank": 6} if way == "svd" else {}
        metrics = run_combine(settings("adapter", way, *sources, **options), base, rows, tmp_path / way)
        assert metrics["sum_relative_logit_diff"] < 1e-4
        assert json.loads((tmp_path / way / "adapter_config.json").read_text())["r"] == rank


def test_trained_token_embeddings_are_summed_too(base: Path, rows: list[list[int]], tmp_path: Path) -> None:
    import torch

    folders = [new_adapter(base, tmp_path / name, i, trainable_token_indices=[1, 2]) for i, name in enumerate("ab")]
    chosen = settings("adapter", "cat", (folders[0], 0.3), (folders[1], 0.7))
    metrics = run_combine(chosen, base, rows, tmp_path / "out")
    assert metrics["sum_relative_logit_diff"] < 1e-4
    a, b, both = (
        next(tensor for name, tensor in tensors(folder).items() if "trainable_tokens" in name)
        for folder in (*folders, tmp_path / "out")
    )
    torch.testing.assert_close(both, 0.3 * a + 0.7 * b)  # the weights sum to one, so the base's rows cancel out


def refused(chosen: CombineConfig, base: Path, out: Path, match: str) -> None:
    with pytest.raises(ModelError, match=match) as raised:
        run_combine(chosen, base, [[1, 2, 3]], out)
    assert "\n" not in str(raised.value)


def test_adapters_of_other_ranks_are_refused_where_ranks_must_be_equal(
    base: Path, two: tuple[Path, Path], tmp_path: Path
) -> None:
    other = new_adapter(base, tmp_path / "c", 3, r=2)
    refused(settings("adapter", "linear", (two[0], 1), (other, 1)), base, tmp_path / "out", "rank 2, but 4 in .*cat")


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"use_dora": True}, "DoRA adapter"),
        ({"bias": "all"}, "bias 'all'"),
        ({"modules_to_save": ["lm_head"]}, "whole"),
    ],
)
@pytest.mark.filterwarnings("ignore::UserWarning")
def test_adapters_without_a_sum_are_refused(
    options: dict[str, Any], match: str, base: Path, two: tuple[Path, Path], tmp_path: Path
) -> None:
    save_adapter(base, tmp_path / "c", r=4, lora_alpha=8, target_modules=["q_proj"], **options)
    refused(settings("adapter", "cat", (two[0], 1), (tmp_path / "c", 1)), base, tmp_path / "out", match)


def changed_copy(folder: Path, to: Path, config: dict[str, Any]) -> Path:
    shutil.copytree(folder, to)
    file = to / "adapter_config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | config))
    return to


@pytest.mark.parametrize("config", [{"base_model_name_or_path": "org/other"}, {"revision": "abc"}])
def test_an_adapter_for_another_base_or_revision_is_refused_with_both_names(
    config: dict[str, Any], base: Path, two: tuple[Path, Path], tmp_path: Path
) -> None:
    other = changed_copy(two[1], tmp_path / "c", config)
    chosen = settings("adapter", "cat", (two[0], 1), (other, 1))
    refused(chosen, base, tmp_path / "out", rf"trained on .*{next(iter(config.values()))}.*{base}")


@pytest.mark.parametrize("place", [0, 1])
def test_an_adapter_file_with_a_missing_tensor_is_refused(
    place: int, base: Path, two: tuple[Path, Path], tmp_path: Path
) -> None:
    from safetensors.torch import save_file

    shutil.copytree(two[place], tmp_path / "c")
    weights = tensors(two[place])
    del weights[f"{PREFIX}.lora_A.weight"]
    save_file(weights, tmp_path / "c/adapter_model.safetensors", metadata={"format": "pt"})
    order = [(tmp_path / "c", 1.0), (two[1 - place], 1.0)]
    chosen = settings("adapter", "cat", *(order if place == 0 else order[::-1]))
    refused(chosen, base, tmp_path / "out", "up_proj.lora_A")


def test_a_tensor_that_is_not_finite_is_named(base: Path, two: tuple[Path, Path], tmp_path: Path) -> None:
    from safetensors.torch import save_file

    shutil.copytree(two[1], tmp_path / "c")
    weights = tensors(two[1])
    weights[f"{PREFIX}.lora_A.weight"][0, 0] = float("inf")
    save_file(weights, tmp_path / "c/adapter_model.safetensors", metadata={"format": "pt"})
    chosen = settings("adapter", "cat", (two[0], 1), (tmp_path / "c", 1))
    refused(chosen, base, tmp_path / "out", rf"tensor {PREFIX}.lora_A.weight holds values that are not finite")


def test_a_pickle_is_refused_by_name_and_never_read(base: Path, two: tuple[Path, Path], tmp_path: Path) -> None:
    import pickle

    shutil.copytree(two[1], tmp_path / "c")
    (tmp_path / "c/adapter_model.safetensors").unlink()

    class Bomb:
        def __reduce__(self) -> tuple[Any, ...]:
            return Path.touch, (tmp_path / "exploded",)

    (tmp_path / "c/adapter_model.bin").write_bytes(pickle.dumps(Bomb()))
    chosen = settings("adapter", "cat", (two[0], 1), (tmp_path / "c", 1))
    refused(chosen, base, tmp_path / "out", r"adapter_model\.bin: a pickle, which is never read")
    assert not (tmp_path / "exploded").exists()


def test_another_vocabulary_is_refused_with_the_token(base: Path, two: tuple[Path, Path], tmp_path: Path) -> None:
    from transformers import AutoTokenizer

    shutil.copytree(two[1], tmp_path / "c")
    tokenizer: Any = AutoTokenizer.from_pretrained(two[1])
    tokenizer.add_tokens(["<|new|>"])
    tokenizer.save_pretrained(tmp_path / "c")
    chosen = settings("adapter", "cat", (two[0], 1), (tmp_path / "c", 1))
    refused(chosen, base, tmp_path / "out", r"tokenizer differs .*'<\|new\|>' has id")


def test_an_adapter_and_a_model_are_not_combined(base: Path, two: tuple[Path, Path], tmp_path: Path) -> None:
    chosen = settings("adapter", "cat", (two[0], 1), (base, 1))
    refused(chosen, base, tmp_path / "out", "its family is full, but merge.combine.family is adapter")


def test_linear_of_whole_models_is_their_average_and_embeddings_stay_tied(
    models: tuple[Path, Path, Path], rows: list[list[int]], tmp_path: Path
) -> None:
    import torch

    _, one, two = models
    metrics = run_combine(settings("full", "linear", (one, 1.0), (two, 3.0)), models[0], rows, tmp_path / "out")
    a, b, both = tensors(one), tensors(two), tensors(tmp_path / "out")
    assert both.keys() == a.keys()
    assert "lm_head.weight" not in both
    for name in a:
        torch.testing.assert_close(both[name], (a[name] + 3 * b[name]) / 4)
    assert metrics["source_0_kl_mean_nats"] > metrics["source_1_kl_mean_nats"] > 0


@pytest.mark.parametrize("way", ["linear", "slerp"])
def test_all_weight_on_the_first_model_gives_it_back_bit_for_bit(
    way: str, models: tuple[Path, Path, Path], rows: list[list[int]], tmp_path: Path
) -> None:
    chosen = settings("full", way, (models[1], 1.0), (models[2], 0.0))
    metrics = run_combine(chosen, models[0], rows, tmp_path / "out")
    assert (tmp_path / "out/model.safetensors").read_bytes() == (models[1] / "model.safetensors").read_bytes()
    assert metrics["source_0_max_abs_logit_diff"] == 0


def test_task_arithmetic_of_whole_models_is_taken_from_the_base(
    models: tuple[Path, Path, Path], rows: list[list[int]], tmp_path: Path
) -> None:
    import torch

    base, one, two = models
    run_combine(settings("full", "task_arithmetic", (one, 1.0), (two, -0.5)), base, rows, tmp_path / "out")
    for name, origin in tensors(base).items():
        expected = origin + (tensors(one)[name] - origin) - 0.5 * (tensors(two)[name] - origin)
        torch.testing.assert_close(tensors(tmp_path / "out")[name], expected)


def test_a_base_in_16_bits_serves_models_in_32(
    models: tuple[Path, Path, Path], rows: list[list[int]], tmp_path: Path
) -> None:
    import torch
    from safetensors.torch import save_file

    base, one, two = models
    shutil.copytree(base, tmp_path / "base")
    halved = {name: tensor.bfloat16() for name, tensor in tensors(base).items()}
    save_file(halved, tmp_path / "base/model.safetensors", metadata={"format": "pt"})
    chosen = settings("full", "task_arithmetic", (one, 1.0), (two, -0.5))
    run_combine(chosen, tmp_path / "base", rows, tmp_path / "out")
    for name, origin in halved.items():
        expected = origin.float() + (tensors(one)[name] - origin) - 0.5 * (tensors(two)[name] - origin)
        torch.testing.assert_close(tensors(tmp_path / "out")[name], expected)


def test_dare_of_models_depends_on_the_seed_and_not_on_the_order_or_the_shards(
    models: tuple[Path, Path, Path], tmp_path: Path
) -> None:
    import torch

    from tuneline.export.combine_models import combine_models

    base, one, two = models
    options = {"density": 0.5, "majority_sign_method": "total"}
    results = []
    for number, (first, second, seed) in enumerate([(one, two, 1), (two, one, 1), (one, two, 2)]):
        out = tmp_path / str(number)
        out.mkdir()
        combine_models(settings("full", "dare_ties", (first, 0.5), (second, 0.5), **options), base, seed, out)
        results.append(tensors(out))
    for name in results[0]:
        torch.testing.assert_close(results[0][name], results[1][name])
    assert any(not torch.equal(results[0][name], results[2][name]) for name in results[0])


def sharded(folder: Path, to: Path, size: str) -> Path:
    from transformers import AutoModelForCausalLM

    AutoModelForCausalLM.from_pretrained(folder).save_pretrained(to, max_shard_size=size)
    save_tokenizer(to)
    return to


def test_a_sharded_model_stays_sharded_and_may_be_cut_otherwise_in_each_source(
    models: tuple[Path, Path, Path], rows: list[list[int]], tmp_path: Path
) -> None:
    import torch

    one, two = sharded(models[1], tmp_path / "one", "100KB"), sharded(models[2], tmp_path / "two", "150KB")
    assert len(list(one.glob("*.safetensors"))) > len(list(two.glob("*.safetensors"))) > 1
    run_combine(settings("full", "linear", (one, 1.0), (two, 1.0)), models[0], rows, tmp_path / "out")
    assert {file.name for file in one.iterdir()} == {file.name for file in (tmp_path / "out").iterdir()}
    for name, tensor in tensors(tmp_path / "out").items():
        torch.testing.assert_close(tensor, (tensors(models[1])[name] + tensors(models[2])[name]) / 2)


def test_models_of_another_shape_type_or_with_a_tensor_missing_are_refused_by_tensor(
    models: tuple[Path, Path, Path], tmp_path: Path
) -> None:
    from safetensors.torch import save_file

    _, one, two = models
    save_model(tmp_path / "wide", 0, tied=True, hidden_size=128)
    save_tokenizer(tmp_path / "wide")
    refused(
        settings("full", "linear", (one, 1), (tmp_path / "wide", 1)), one, tmp_path / "a",
        r"wide/model\.safetensors: tensor model.embed_tokens.weight is 512x128 F32, but 512x64 F32 in .*\.safetensors;",
    )  # fmt: skip
    shutil.copytree(two, tmp_path / "half")
    halved = {name: tensor.bfloat16() for name, tensor in tensors(two).items()}
    save_file(halved, tmp_path / "half/model.safetensors", metadata={"format": "pt"})
    refused(settings("full", "linear", (one, 1), (tmp_path / "half", 1)), one, tmp_path / "b", "BF16, but .* F32")
    shutil.copytree(two, tmp_path / "less")
    fewer = {name: tensor for name, tensor in tensors(two).items() if name != "model.norm.weight"}
    save_file(fewer, tmp_path / "less/model.safetensors", metadata={"format": "pt"})
    refused(
        settings("full", "linear", (one, 1), (tmp_path / "less", 1)), one, tmp_path / "c",
        r"less/model\.safetensors: tensor model.norm.weight is missing, .*/model\.safetensors has it",
    )  # fmt: skip


@pytest.mark.parametrize(("key", "value"), [("rms_norm_eps", 0.25), ("attention_bias", True)])
def test_models_of_equal_shapes_that_compute_otherwise_are_refused_by_the_setting(
    models: tuple[Path, Path, Path], tmp_path: Path, key: str, value: object
) -> None:
    _, one, two = models
    shutil.copytree(two, tmp_path / "other")
    config = json.loads((two / "config.json").read_text())
    (tmp_path / "other/config.json").write_text(json.dumps(config | {key: value, "use_cache": False}))
    refused(
        settings("full", "linear", (one, 1), (tmp_path / "other", 1)), one, tmp_path / "a",
        rf"other/config\.json: {key} is {value}, but .* in .*/config\.json; only fine-tunes of one model",
    )  # fmt: skip


def test_a_dropped_head_of_an_untied_model_is_named(tmp_path: Path) -> None:
    from safetensors.torch import save_file

    for seed, name in enumerate(["one", "two"]):
        save_model(tmp_path / name, seed, tied=False, hidden_size=64)
        save_tokenizer(tmp_path / name)
    fewer = {name: tensor for name, tensor in tensors(tmp_path / "two").items() if name != "lm_head.weight"}
    save_file(fewer, tmp_path / "two/model.safetensors", metadata={"format": "pt"})
    chosen = settings("full", "linear", (tmp_path / "one", 1), (tmp_path / "two", 1))
    refused(chosen, tmp_path / "one", tmp_path / "out", r"two/model\.safetensors: tensor lm_head.weight is missing")


def test_what_adapters_need_on_the_disk_is_their_sum_and_what_models_need_is_one(two: tuple[Path, Path]) -> None:
    from tuneline.export.combine import needed_bytes

    sizes = [(folder / "adapter_model.safetensors").stat().st_size for folder in two]
    assert needed_bytes(settings("adapter", "cat", (two[0], 1), (two[1], 1))) == sum(sizes)
    assert needed_bytes(settings("full", "linear", (two[0], 1), (two[1], 1))) == sizes[0]


PEAK = """
import json, re, sys
from pathlib import Path
from tests.export.test_combine import settings
from tuneline.export.combine_models import combine_models
root, way, options = Path(sys.argv[1]), sys.argv[2], json.loads(sys.argv[3])
# of this process alone: ru_maxrss may be that of the process it was started by
def peak(): return 1024 * int(re.search(r"VmHWM:\\s*(\\d+)", Path("/proc/self/status").read_text())[1])
for names, out in ((("small", "small"), "small_out"), (("one", "two"), "out")):
    chosen = settings("full", way, *[(root / name, 0.5) for name in names], **options)
    before = peak()
    (root / out / way).mkdir(parents=True)
    combine_models(chosen, root / "base" if names[0] == "one" else root / "small", 1, root / out / way)
print(peak() - before)
"""
SHARD = 32 * 2**20  # bytes


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three models of 12 shards, in each of which are four tensors, or one that fills it; and a small one."""
    import torch
    from safetensors.torch import save_file
    from transformers import LlamaConfig

    root = tmp_path_factory.mktemp("large")
    for folder, n_shards, n_values in (
        ("base", 12, SHARD // 4),
        ("one", 12, SHARD // 4),
        ("two", 12, SHARD // 4),
        ("small", 2, 64),
    ):
        (root / folder).mkdir()
        LlamaConfig(tie_word_embeddings=False).save_pretrained(root / folder)
        placed: dict[str, str] = {}
        for shard in range(n_shards):
            file = f"model-{shard + 1:05}-of-{n_shards:05}.safetensors"
            n_tensors = 1 if shard % 2 else 4
            values = torch.randn(n_tensors, n_values // n_tensors // 16, 16)
            content = {f"layer{shard:02}.{part}": tensor.clone() for part, tensor in enumerate(values)}
            placed |= dict.fromkeys(content, file)
            save_file(content, root / folder / file)
        index = {"metadata": {}, "weight_map": placed}
        (root / folder / "model.safetensors.index.json").write_text(json.dumps(index))
    return root


@pytest.mark.parametrize("way", MODEL_WAYS)
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="peak memory is read from /proc")
def test_peak_memory_is_at_most_a_shard_of_each_model_and_the_one_written(way: str, large: Path) -> None:
    """Models of 384 MiB. The base is one of them, where changes of it are combined."""
    command = [sys.executable, "-c", PEAK, str(large), way, json.dumps(MODEL_WAYS[way])]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    n_models = 2 if way in ("linear", "slerp") else 3
    found = int(done.stdout)
    print(f"{way}: {found / 2**20:.0f} MiB")
    assert found < (n_models + 1) * SHARD, f"{found / 2**20:.0f} MiB"
    assert sum(file.stat().st_size for file in (large / "out" / way).glob("*.safetensors")) > 12 * SHARD
    shutil.rmtree(large / "out" / way)
