"""Rules that compare keys: each is broken once, and met once where that is not the shipped default."""

from collections.abc import Callable
from typing import Any

import pytest

from tuneline.config.schema import Params
from tuneline.errors import ConfigError

Check = Callable[[dict[str, Any]], Params]
Problem = Callable[[dict[str, Any]], str]

COMMIT = "0123456789abcdef0123456789abcdef01234567"
HUB_DATA = {"repo": "org/rows", "revision": COMMIT, "config": None, "split": "train"}
HUB_MODEL = {
    "model.name": "big",
    "model.name_or_path": "Org/Big-1.0",
    "model.tracked_path": "conf/model/big.yaml",
    "model.revision": COMMIT,
    "model.sha256": None,
    "recipe.phases.sft.init": "conf/model/big.yaml",
}
CUDA = {"hardware.device": "cuda", "hardware.memory_gib": 24.0, "hardware.precision": "bf16"}
FOUR_BITS = {
    "load_in_4bit": True,
    "bnb_4bit_quant_type": "nf4",
    "bnb_4bit_use_double_quant": True,
    "bnb_4bit_compute_dtype": "bfloat16",
}
QLORA = {**CUDA, "method.name": "qlora", "quantization": FOUR_BITS}
PHASE = {
    "objective": "pretrain",
    "init": "models/base/sqlama",
    "num_train_epochs": 1.0,
    "max_steps": -1,
    "learning_rate": 1e-3,
    "max_length": 384,
    "packing": True,
}
BUDGET = {"kl_mean_nats": 0.1, "top1_agreement": 0.9, "execution_accuracy_drop": 0.1}
SOURCE: dict[str, Any] = {
    "name": "extra",
    "path": "data/raw/text_to_sql/x.jsonl",
    "hub": None,
    "format": "auto",
    "role": "pool",
    "columns": {},
    "system_prompt": None,
    "task_prefix": None,
    "weight": None,
    "count": None,
}
REPLAY = {**SOURCE, "name": "old", "role": "replay"}
HELD_OUT = {**SOURCE, "name": "held_out", "role": "test"}


def quants(*names: str) -> dict[str, Any]:
    """The types to make, and what conf/ computes of them."""
    listed = list(names)
    return {"export.quants": listed, "export.plain": listed, "export.verified": ["f16", *listed]}


def lora_base(name: str | None) -> dict[str, Any]:
    """The base's type beside the adapter alone, and what conf/ computes of it."""
    return {"export.lora_base": name, "export.lora_bases": [] if name is None else [name]}


DEVICE_4BIT_CPU = {"hardware.device": "cpu", "hardware.precision": "bf16"}

ALLOWED = {
    "a pinned hub model": HUB_MODEL,
    "full": {"method.name": "full", "method.family": "full", "lora": None},
    "dora": {"method.name": "dora", "lora.use_dora": True},
    "rslora": {"method.name": "rslora", "lora.use_rslora": True},
    "qlora on cuda": QLORA,
    "qlora on cpu": {**QLORA, **DEVICE_4BIT_CPU},
    "qlora with dora": {**QLORA, "lora.use_dora": True},
    "fp16 on cuda": {**CUDA, "hardware.precision": "fp16"},
    "flash attention on cuda": {**CUDA, "hardware.attn_implementation": "flash_attention_2"},
    "8-bit optimizer on cuda": {**CUDA, "hardware.optim": "paged_adamw_8bit"},
    "bf16 on cpu": {"hardware.precision": "bf16"},
    "mps": {"hardware.device": "mps", "hardware.memory_gib": 64.0},
    "a fixed number of steps": {"recipe.phases.sft.max_steps": 3},
    "no quants": {**quants(), "export.pick": "f16"},
    "the adapter alone": lora_base("f16"),
    "the adapter alone, of rslora": {**lora_base("q8_0"), "method.name": "rslora", "lora.use_rslora": True},
    "the adapter alone, of qlora": {**lora_base("q6_k"), **QLORA},
    "a constant rate": {"train.lr_scheduler_type": "constant", "train.warmup_ratio": 0.0},
    "some layers with an adapter": {"lora.target_modules": ["q_proj", "v_proj"]},
    "layers by a pattern": {"lora.target_modules": r".*\.(q|v)_proj"},
    "stopping early": {"train.early_stopping_patience": 3},
    "no validation": {"split.val_fraction": 0.0},
    "several harness tasks": {
        "eval.harness_tasks": ["hellaswag", "piqa"],
        "eval.harness_uncompared": ["piqa"],
        "data.sources": [SOURCE, HELD_OUT, {**HELD_OUT, "name": "hellaswag", "role": "benchmark"}],
    },
    "a hub dataset": {
        "data.sources.1.path": None,
        "data.sources.1.hub": HUB_DATA,
    },
    "weights": {
        "data.sources": [{**SOURCE, "weight": 0.5}, {**SOURCE, "name": "b", "weight": 0.0}, HELD_OUT],
        "data.mixture.n_rows": 100,
    },
    "a count": {"data.sources.0.count": 5},
    "replay": {"data.sources": [SOURCE, REPLAY, HELD_OUT], "data.mixture.replay_fraction": 0.1},
    "weighted replay": {
        "data.sources": [SOURCE, {**REPLAY, "weight": 2.0}, {**REPLAY, "name": "c", "weight": 1.0}, HELD_OUT],
        "data.mixture.replay_fraction": 0.1,
    },
    "a benchmark": {"data.sources": [SOURCE, {**HELD_OUT, "name": "b", "role": "benchmark"}, HELD_OUT]},
}


@pytest.mark.parametrize("changes", ALLOWED.values(), ids=ALLOWED)
def test_allowed(changes: dict[str, Any], check: Check) -> None:
    check(changes)


REFUSED = {
    "hub model without revision": ({**HUB_MODEL, "model.revision": None}, "model.revision: null"),
    "revision of a folder": ({"model.revision": COMMIT}, "model.revision: '0123"),
    "folder without hashes": ({"model.sha256": None}, "model.sha256: null, allowed for a folder has the hash of each"),
    "folder with no hash": ({"model.sha256": {}}, "model.sha256: {}, allowed for a folder has the hash of each"),
    "hub model with hashes": (
        {**HUB_MODEL, "model.sha256": {"config.json": 64 * "0"}},
        "model.sha256: {'config.json': '000",
    ),
    "hub model watched elsewhere": (
        {**HUB_MODEL, "model.name": "other"},
        "model.tracked_path: 'conf/model/big.yaml', allowed is conf/model/other.yaml",
    ),
    "folder watched as a hub model": (
        {**HUB_MODEL, "model.name_or_path": "models/base/big"},
        "model.name_or_path: 'models/base/big', allowed is a hub id",
    ),
    "hub id watched as a folder": (
        {"model.name_or_path": "Org/Big", "model.tracked_path": "Org/Big", "recipe.phases.sft.init": "Org/Big"},
        "model.name_or_path: 'Org/Big', allowed for a folder is one in models/",
    ),
    "family of full": ({"method.name": "full", "lora": None}, "method.family: 'adapter', allowed with method full"),
    "family of lora": ({"method.family": "full"}, "method.family: 'full', allowed with method lora is adapter"),
    "full with lora": ({"method.name": "full", "method.family": "full"}, "lora: set, allowed with method full is null"),
    "lora without lora": ({"lora": None}, "lora: null, method lora needs it"),
    "dora in lora": ({"lora.use_dora": True}, "lora.use_dora: true, allowed with method lora is false"),
    "rslora in lora": ({"lora.use_rslora": True}, "lora.use_rslora: true, allowed with method lora is false"),
    "dora without dora": ({"method.name": "dora"}, "lora.use_dora: false, allowed with method dora is true"),
    "rslora without rslora": ({"method.name": "rslora"}, "lora.use_rslora: false, allowed with method rslora"),
    "qlora without 4 bits": ({"method.name": "qlora"}, "quantization: null, method qlora needs it"),
    "4 bits without qlora": ({**QLORA, "method.name": "lora"}, "quantization: set, allowed with method lora is null"),
    "4 bits in another type": (
        {**QLORA, "hardware.precision": "fp16"},
        "quantization.bnb_4bit_compute_dtype: 'bfloat16', allowed with hardware.precision fp16 is float16",
    ),
    "qlora on mps": (
        {
            **QLORA,
            "hardware.device": "mps",
            "hardware.precision": "fp32",
            "quantization": {**FOUR_BITS, "bnb_4bit_compute_dtype": "float32"},
        },
        "hardware.device: 'mps', allowed with method qlora is cuda or cpu",
    ),
    "final phase unknown": ({"recipe.final": "dpo"}, "recipe.final: 'dpo', allowed is a phase of the recipe: sft"),
    "init unknown": (
        {"recipe.phases.sft.init": "models/phase/sft"},
        "recipe.phases.sft.init: 'models/phase/sft', allowed is the base or an earlier phase: models/base/sqlama",
    ),
    "init from a later phase": (
        {"recipe.phases.sft.init": "models/phase/late", "recipe.phases.late": PHASE},
        "recipe.phases.sft.init: 'models/phase/late'",
    ),
    "rows longer than the model": ({"recipe.phases.sft.max_length": 513}, "recipe.phases.sft.max_length: 513"),
    "no steps": ({"recipe.phases.sft.max_steps": 0}, "recipe.phases.sft.max_steps: 0, allowed is a number of steps"),
    "two sources of one name": ({"data.sources.2.name": "pool"}, "data.sources[2].name: 'pool'"),
    "path and hub": ({"data.sources.0.hub": HUB_DATA}, "data.sources[0]: path and hub both set"),
    "neither path nor hub": ({"data.sources.0.path": None}, "data.sources[0]: path and hub both null"),
    "file that DVC does not watch": (
        {"data.sources.0.path": "data/raw/text_to_sql_old/x.jsonl"},
        "data.sources[0].path: 'data/raw/text_to_sql_old/x.jsonl', allowed is a file in data.tracked_path",
    ),
    "hub data without their pin watched": (
        {"data.sources": [{**SOURCE, "path": None, "hub": HUB_DATA, "role": "pool"}], "split.test_fraction": 0.1},
        "data.tracked_path: 'data/raw/text_to_sql', allowed for hub datasets",
    ),
    "nothing to train on": ({"data.sources": [{**SOURCE, "role": "test"}]}, "data.sources: nothing to train on"),
    "nothing to train on but replay": (
        {"data.sources": [REPLAY, HELD_OUT], "data.mixture.replay_fraction": 0.5},
        "data.sources: nothing to train on",
    ),
    "weight and count": (
        {"data.sources.0.weight": 1.0, "data.sources.0.count": 5},
        "data.sources[0]: weight and count both set",
    ),
    "weight of test rows": (
        {"data.sources.1.weight": 1.0},
        "data.sources[1].weight: 1.0, allowed with role test is null",
    ),
    "count of benchmark rows": (
        {"data.sources": [SOURCE, {**HELD_OUT, "name": "b", "role": "benchmark", "count": 7}, HELD_OUT]},
        "data.sources[1].count: 7, allowed with role benchmark is null",
    ),
    "weights that sum to zero": (
        {"data.sources": [{**SOURCE, "weight": 0.0}, HELD_OUT]},
        "data.sources: the weights with role pool sum to 0, allowed is more; raise one or set all to null",
    ),
    "a total of nothing weighted": ({"data.mixture.n_rows": 5}, "data.mixture.n_rows: 5, allowed is null"),
    "a share of no replay": (
        {"data.mixture.replay_fraction": 0.1},
        "data.mixture.replay_fraction: 0.1, allowed is 0.0 when no source has role replay",
    ),
    "replay without a share": (
        {"data.sources": [SOURCE, REPLAY, HELD_OUT]},
        "data.mixture.replay_fraction: 0.0, allowed is more than 0 when a source has role replay (old)",
    ),
    "a count of replay rows": (
        {"data.sources": [SOURCE, {**REPLAY, "count": 3}, HELD_OUT], "data.mixture.replay_fraction": 0.1},
        "data.sources[1].count: 3, allowed with role replay is null",
    ),
    "replay weights of zero": (
        {"data.sources": [SOURCE, {**REPLAY, "weight": 0.0}, HELD_OUT], "data.mixture.replay_fraction": 0.1},
        "data.sources: the weights with role replay sum to 0",
    ),
    "replay half weighted": (
        {
            "data.sources": [SOURCE, {**REPLAY, "weight": 1.0}, {**REPLAY, "name": "c"}, HELD_OUT],
            "data.mixture.replay_fraction": 0.1,
        },
        "data.sources: some with role replay have a weight, allowed is all or none",
    ),
    "no test rows": ({"data.sources": [SOURCE]}, "split.test_fraction: 0.0, allowed is more than 0"),
    "test rows twice": ({"split.test_fraction": 0.1}, "split.test_fraction: 0.1, allowed is 0.0"),
    "nothing left to train on": (
        {"data.sources": [SOURCE], "split.test_fraction": 0.5, "split.val_fraction": 0.5},
        "split.val_fraction: 0.5, allowed is less than 1 - split.test_fraction = 0.5",
    ),
    "shortest above longest": ({"clean.length.min_chars": 4001}, "clean.length.min_chars: 4001"),
    "batch not divisible": ({"train.global_batch_size": 24}, "train.global_batch_size: 24, allowed is a multiple"),
    "stopping early without validation": (
        {"train.early_stopping_patience": 3, "split.val_fraction": 0.0},
        "train.early_stopping_patience: 3, allowed is null without validation rows",
    ),
    "an adapter on the output": (
        {"lora.target_modules": ["q_proj", "lm_head"]},
        "lora.target_modules: ('q_proj', 'lm_head'), allowed leaves lm_head out",
    ),
    "an adapter on the embeddings": (
        {"lora.target_modules": ["embed_tokens"]},
        "lora.target_modules: ('embed_tokens',), allowed leaves model.embed_tokens out",
    ),
    "a pattern that takes the embeddings": (
        {"lora.target_modules": ".*(lm_head|embed_tokens|q_proj)"},
        "lora.target_modules: '.*(lm_head|embed_tokens|q_proj)', allowed leaves lm_head and model.embed_tokens out",
    ),
    "no pattern": ({"lora.target_modules": "(q_proj"}, "lora.target_modules: '(q_proj', allowed is all-linear, a list"),
    "warm-up that nothing does": ({"train.lr_scheduler_type": "constant"}, "train.warmup_ratio: 0.05"),
    "fp16 on cpu": ({"hardware.precision": "fp16"}, "hardware.precision: 'fp16', allowed on cpu is fp32, bf16"),
    "bf16 on mps": (
        {"hardware.device": "mps", "hardware.precision": "bf16"},
        "hardware.precision: 'bf16', allowed on mps is fp32",
    ),
    "two processors": ({"hardware.num_devices": 2}, "hardware.num_devices: 2, allowed is 1: one process"),
    "two GPUs": ({**CUDA, "hardware.num_devices": 2}, "hardware.num_devices: 2, allowed is 1: one process"),
    "8-bit optimizer on cpu": ({"hardware.optim": "paged_adamw_8bit"}, "hardware.optim: 'paged_adamw_8bit'"),
    "flash attention on cpu": (
        {"hardware.attn_implementation": "flash_attention_2"},
        "hardware.attn_implementation: 'flash_attention_2', allowed on cpu in fp32 is sdpa, eager",
    ),
    "flash attention in fp32": (
        {**CUDA, "hardware.precision": "fp32", "hardware.attn_implementation": "flash_attention_2"},
        "hardware.attn_implementation: 'flash_attention_2', allowed on cuda in fp32 is sdpa, eager",
    ),
    "cuda of unknown size": ({**CUDA, "hardware.memory_gib": None}, "hardware.memory_gib: null"),
    "queries without a database": ({"data.meta_fields": []}, "eval.task: 'text_to_sql' needs 'database'"),
    "the same harness task twice": (
        {"eval.harness_tasks": ["piqa", "piqa"], "eval.harness_uncompared": ["piqa"]},
        "eval.harness_tasks: 'piqa, piqa', allowed is each task once",
    ),
    "a harness task that may be trained on": (
        {"eval.harness_tasks": ["piqa"], "data.sources": [SOURCE, HELD_OUT, {**HELD_OUT, "name": "piqa_test"}]},
        "eval.harness_tasks: 'piqa' is compared with no training row, allowed is a task whose rows are a source with",
    ),
    "an uncompared task that is not run": (
        {"eval.harness_uncompared": ["piqa"]},
        "eval.harness_uncompared: 'piqa', allowed is a task of eval.harness_tasks",
    ),
    "an uncompared task that is a benchmark": (
        {
            "eval.harness_tasks": ["piqa"],
            "eval.harness_uncompared": ["piqa"],
            "data.sources": [SOURCE, HELD_OUT, {**HELD_OUT, "name": "piqa", "role": "benchmark"}],
        },
        "eval.harness_uncompared: 'piqa', allowed is a task of eval.harness_tasks whose rows are no benchmark",
    ),
    "answer longer than the context": ({"eval.max_new_tokens": 512}, "eval.max_new_tokens: 512"),
    "verified by hand": ({"export.verified": ["f16", "q8_0"]}, "export.verified: 'f16, q8_0', allowed is outtype"),
    "the same quant twice": (
        quants("q8_0", "q8_0"),
        "export.quants: 'q8_0, q8_0', allowed is each type once",
    ),
    "pick not made": ({"export.pick": "q6_k"}, "export.pick: 'q6_k', allowed is smallest_within_budget or a verified"),
    "the smallest, and yet all": (
        {"export.pick": "smallest_within_budget"},
        "export.all_within_budget: true, allowed is false, by export.pick",
    ),
    "quants with an importance matrix that nobody computes": (
        {"export.weighted": ["q8_0"]},
        "export.weighted: 'q8_0', allowed is [], by export.imatrix",
    ),
    "type without budget": (
        quants("q8_0", "q5_0"),
        "export.budgets.q5_0: missing",
    ),
    "the adapter alone, where there is none": (
        {**lora_base("f16"), "method.name": "full", "method.family": "full", "lora": None},
        "export.lora_base: 'f16', allowed with method full is null: there is no adapter",
    ),
    "the adapter alone, of dora": (
        {**lora_base("f16"), "method.name": "dora", "lora.use_dora": True},
        "export.lora_base: 'f16', allowed with lora.use_dora is null",
    ),
    "the adapter alone, with biases": (
        {**lora_base("f16"), "lora.bias": "all"},
        "export.lora_base: 'f16', allowed with lora.bias all is null",
    ),
    "the adapter alone, by hand": (
        {"export.lora_bases": ["f16"]},
        "export.lora_bases: 'f16', allowed is [], by export.lora_base",
    ),
    "the adapter alone, without budget": (lora_base("q5_0"), "export.budgets.q5_0: missing"),
    "context longer than the model": ({"export.n_ctx": 513}, "export.n_ctx: 513, allowed is at most"),
    "context in which llama.cpp serves another model": (
        {"export.n_ctx": 400, "eval.max_new_tokens": 64, "model.max_served_context": 256},
        "export.n_ctx: 400, allowed is at most model.max_served_context = 256 tokens; beyond, llama.cpp serves another",
    ),
}


@pytest.mark.parametrize(("changes", "message"), REFUSED.values(), ids=REFUSED)
def test_refused(changes: dict[str, Any], message: str, problem: Problem) -> None:
    assert problem(changes).startswith(message)


def test_an_unpinned_model_is_told_the_command_that_pins_it(problem: Problem) -> None:
    assert "`tuneline pin big`" in problem({**HUB_MODEL, "model.revision": None})


def test_a_hub_revision_is_a_full_commit(problem: Problem) -> None:
    for revision in ("main", COMMIT[:7], COMMIT.upper()):
        assert "40 lower-case hex digits" in problem({**HUB_MODEL, "model.revision": revision})


def test_a_chain_may_start_at_any_earlier_phase(check: Check) -> None:
    # a later phase may build on the base or on any phase before it; dicts keep their order
    late = {**PHASE, "init": "models/phase/sft"}
    params = check({"recipe.phases.late": late, "recipe.final": "late", "merge.tuned": "models/phase/late"})
    assert list(params.recipe.phases) == ["sft", "late"]


def test_all_broken_rules_are_told_at_once(check: Check) -> None:
    with pytest.raises(ConfigError) as caught:
        check({"lora": None, "export.n_ctx": 9999, "train.global_batch_size": 33})
    lines = str(caught.value).splitlines()
    assert lines[0] == "params.yaml: 3 problems"
    assert [line.split(":")[0].strip() for line in lines[1:]] == ["lora", "train.global_batch_size", "export.n_ctx"]


COMBINE: dict[str, object] = {
    "family": "adapter",
    "combination_type": "cat",
    "sources": [{"path": "models/phase/sft", "weight": 0.5}, {"path": "models/sources/other", "weight": 0.5}],
    "density": None,
    "majority_sign_method": None,
    "svd_rank": None,
}


@pytest.mark.parametrize(
    ("combine", "merge", "line"),
    [
        ({}, {"tuned": "models/phase/sft"}, "merge.tuned: allowed beside merge.combine is models/combined"),
        ({"combination_type": "slerp"}, {}, "merge.combine.combination_type: 'slerp', allowed with family adapter is"),
        ({"combination_type": "ties"}, {}, "merge.combine.density: null, allowed with ties is set"),
        ({"density": 0.5}, {}, "merge.combine.density: 0.5, allowed with cat is null"),
        ({"svd_rank": 4}, {}, "merge.combine.svd_rank: 4, allowed with cat is null"),
        ({}, {"tracked_path": "models/x"}, "merge.combine.sources[1].path: 'models/sources/other', allowed is"),
    ],
)
def test_what_cannot_be_combined_is_refused_by_key(
    combine: dict[str, Any], merge: dict[str, Any], line: str, check: Check
) -> None:
    whole = {"tuned": "models/combined", "tracked_path": "models/sources", "stages": ["combined"], **merge}
    changes = {f"merge.{key}": value for key, value in whole.items()} | {"merge.combine": {**COMBINE, **combine}}
    with pytest.raises(ConfigError) as caught:
        check(changes)
    assert line in str(caught.value)


def test_a_combination_of_whole_models_has_no_adapter_to_ship_alone(check: Check) -> None:
    whole = {"merge.tuned": "models/combined", "merge.tracked_path": "models/sources", "merge.stages": ["combined"]}
    combine = {**COMBINE, "family": "full", "combination_type": "linear"}
    with pytest.raises(ConfigError, match=r"export\.lora_base: 'f16', allowed with merge\.combine\.family full is"):
        check({**whole, "merge.combine": combine, **lora_base("f16")})
