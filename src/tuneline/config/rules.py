"""Rules that compare two keys of params.yaml. Each broken one is `key: value, allowed ...; fix`."""

import re
from collections.abc import Iterator
from typing import get_args

from tuneline.config.explain import shown
from tuneline.config.schema import (
    AdapterCombination,
    AugmentConfig,
    CombineConfig,
    DataConfig,
    Device,
    Dtype,
    EndpointConfig,
    EvalConfig,
    ExportConfig,
    HardwareConfig,
    LoraConfig,
    ModelCombination,
    ModelConfig,
    Params,
    PhaseConfig,
    Precision,
    RecipeConfig,
    SourceConfig,
    TeacherJobConfig,
)

# fp16 needs a gradient scaler, which PyTorch has for CUDA; mixed precision on mps is incomplete.
_PRECISIONS: dict[Device, tuple[Precision, ...]] = {
    "cpu": ("fp32", "bf16"),
    "cuda": ("fp32", "bf16", "fp16"),
    "mps": ("fp32",),
}
# Where architectures have their embeddings, and how PEFT names modules.
_EMBEDDINGS = ("lm_head", "model.embed_tokens")
_DTYPES: dict[Precision, Dtype] = {"fp32": "float32", "bf16": "bfloat16", "fp16": "float16"}


def broken_rules(params: Params) -> Iterator[str]:
    """Every broken rule, one line each."""
    yield from _model(params.model)
    yield from _method(params)
    yield from _quantization(params)
    yield from _recipe(params.recipe, params.model)
    yield from _data(params.data)
    yield from _clean(params)
    yield from _augment(params)
    yield from _split(params)
    yield from _train(params)
    yield from _hardware(params.hardware)
    yield from _eval(params)
    yield from _merge(params)
    yield from _export(params.export, params.model)
    yield from _lora_export(params)


def _refused(key: str, value: object, allowed: str) -> str:
    return f"{key}: {shown(value)}, allowed {allowed}"


def _listed(words: tuple[str, ...] | list[str]) -> str:
    return ", ".join(words)


def _model(model: ModelConfig) -> Iterator[str]:
    if model.is_local:
        yield from _folder_model(model)
        return
    own_file = f"conf/model/{model.name}.yaml"
    if model.tracked_path != own_file:
        allowed = f"is {own_file} for a hub model (its pin), or model.name_or_path for a folder"
        yield _refused("model.tracked_path", model.tracked_path, allowed)
    if model.name_or_path.count("/") > 1:
        allowed = "is a hub id such as Qwen/Qwen3-8B; for a folder set model.tracked_path to the same path"
        yield _refused("model.name_or_path", model.name_or_path, allowed)
    if model.revision is None:
        allowed = f"is a commit, or {model.name_or_path} could change; run `tuneline pin {model.name}`"
        yield _refused("model.revision", model.revision, f"{allowed}, then `make params`")


def _folder_model(model: ModelConfig) -> Iterator[str]:
    if not model.name_or_path.startswith("models/"):
        allowed = f"for a folder is one in models/; a hub model has tracked_path conf/model/{model.name}.yaml"
        yield _refused("model.name_or_path", model.name_or_path, allowed)
    if model.revision is not None:
        yield _refused("model.revision", model.revision, "for a folder is null; DVC hashes its files")


def _method(params: Params) -> Iterator[str]:
    name, lora = params.method.name, params.lora
    expected = "full" if name == "full" else "adapter"
    if params.method.family != expected:
        yield _refused("method.family", params.method.family, f"with method {name} is {expected}")
    if name == "full" and lora is not None:
        yield "lora: set, allowed with method full is null; choose method=lora to train an adapter"
    if name != "full" and lora is None:
        yield f"lora: null, method {name} needs it; choose method=full to train without an adapter"
    if lora is not None:
        yield from _variants(name, lora)
        yield from _adapted_modules(lora.target_modules)


def _variants(name: str, lora: LoraConfig) -> Iterator[str]:
    """The method's name has to say what is trained; qlora may be combined with both variants."""
    for key, value, method in (
        ("use_dora", lora.use_dora, "dora"),
        ("use_rslora", lora.use_rslora, "rslora"),
    ):
        if name == method and not value:
            yield _refused(f"lora.{key}", value, f"with method {name} is true; choose method=lora")
        if name == "lora" and value:
            yield _refused(f"lora.{key}", value, f"with method lora is false; choose method={method}")


def _adapted_modules(targets: str | tuple[str, ...]) -> Iterator[str]:
    """A changed embedding does not survive the way to a GGUF: tied ones are one matrix there."""
    try:
        taken = [name for name in _EMBEDDINGS if _is_target(name, targets)]
    except re.error as error:
        yield _refused("lora.target_modules", targets, f"is all-linear, a list or a regular expression: {error}")
        return
    if taken:
        allowed = f"leaves {' and '.join(taken)} out, which the merged model cannot hold; choose all-linear"
        yield _refused("lora.target_modules", targets, allowed)


def _is_target(module: str, targets: str | tuple[str, ...]) -> bool:
    """As PEFT decides it: a regular expression for the whole name, or names of which one is its end."""
    if isinstance(targets, str):
        return re.fullmatch(targets, module) is not None
    return any(module == target or module.endswith(f".{target}") for target in targets)


def _quantization(params: Params) -> Iterator[str]:
    name, quantization, precision = params.method.name, params.quantization, params.hardware.precision
    if quantization is None:
        if name == "qlora":
            yield "quantization: null, method qlora needs it; choose method=lora for a base in 16 or 32 bits"
        return
    if name != "qlora":
        yield f"quantization: set, allowed with method {name} is null; choose method=qlora"
    if params.hardware.device == "mps":
        yield "hardware.device: 'mps', allowed with method qlora is cuda or cpu; choose method=lora"
    if quantization.bnb_4bit_compute_dtype != _DTYPES[precision]:
        allowed = f"with hardware.precision {precision} is {_DTYPES[precision]}"
        yield _refused("quantization.bnb_4bit_compute_dtype", quantization.bnb_4bit_compute_dtype, allowed)


def _recipe(recipe: RecipeConfig, model: ModelConfig) -> Iterator[str]:
    if recipe.final not in recipe.phases:
        yield _refused("recipe.final", recipe.final, f"is a phase of the recipe: {_listed([*recipe.phases])}")
    origins = [model.tracked_path]
    for name, phase in recipe.phases.items():
        yield from _phase(f"recipe.phases.{name}", phase, origins, model.max_position_embeddings)
        origins.append(f"models/phase/{name}")


def _phase(key: str, phase: PhaseConfig, origins: list[str], addressable: int) -> Iterator[str]:
    if phase.init not in origins:
        yield _refused(f"{key}.init", phase.init, f"is the base or an earlier phase: {_listed(origins)}")
    if phase.max_length > addressable:
        allowed = f"is at most model.max_position_embeddings = {addressable} tokens"
        yield _refused(f"{key}.max_length", phase.max_length, allowed)
    if phase.max_steps < 1 and phase.max_steps != -1:
        allowed = "is a number of steps, or -1 to train num_train_epochs"
        yield _refused(f"{key}.max_steps", phase.max_steps, allowed)


def _data(data: DataConfig) -> Iterator[str]:
    names = [source.name for source in data.sources]
    for index, source in enumerate(data.sources):
        if source.name in names[:index]:
            yield _refused(f"data.sources[{index}].name", source.name, "is a name no other source has")
        yield from _origin(f"data.sources[{index}]", source, data.tracked_path)
    if all(source.role != "pool" for source in data.sources):
        yield "data.sources: nothing to train on, allowed is at least one source with role pool"
    yield from _mixture(data)
    if all(source.path is None for source in data.sources) and not data.tracked_path.startswith("conf/data/"):
        allowed = "for hub datasets is their own file in conf/data/, which holds the pins"
        yield _refused("data.tracked_path", data.tracked_path, allowed)


def _origin(key: str, source: SourceConfig, tracked: str) -> Iterator[str]:
    if (source.path is None) == (source.hub is None):
        found = "both null" if source.path is None else "both set"
        yield f"{key}: path and hub {found}, allowed is one of them; set the other to null"
    if source.path is not None and not f"{source.path}/".startswith(f"{tracked}/"):
        allowed = f"is a file in data.tracked_path ({tracked}); elsewhere DVC would not see it change"
        yield _refused(f"{key}.path", source.path, allowed)


def _mixture(data: DataConfig) -> Iterator[str]:
    roles = [source.role for source in data.sources]
    fraction, n_rows = data.mixture.replay_fraction, data.mixture.n_rows
    for index, source in enumerate(data.sources):
        yield from _part_in_mixture(f"data.sources[{index}]", source)
    yield from _weights("pool", [source for source in data.sources if source.role == "pool"])
    yield from _weights("replay", [source for source in data.sources if source.role == "replay"])
    if n_rows is not None and not any(source.role == "pool" and source.weight is not None for source in data.sources):
        yield _refused("data.mixture.n_rows", n_rows, "is null when no pool source has a weight; give them weights")
    if fraction > 0 and "replay" not in roles:
        allowed = "is 0.0 when no source has role replay; give the source of general rows that role"
        yield _refused("data.mixture.replay_fraction", fraction, allowed)
    if fraction == 0 and "replay" in roles:
        allowed = f"is more than 0 when a source has role replay ({data.sources[roles.index('replay')].name})"
        yield _refused("data.mixture.replay_fraction", fraction, f"{allowed}; raise it or take the source out")


def _part_in_mixture(key: str, source: SourceConfig) -> Iterator[str]:
    if source.weight is not None and source.count is not None:
        yield f"{key}: weight and count both set, allowed is one of them; set the other to null"
    if source.role in ("test", "benchmark"):
        for name, value in (("weight", source.weight), ("count", source.count)):
            if value is not None:
                yield _refused(f"{key}.{name}", value, f"with role {source.role} is null; only training rows are mixed")
    if source.role == "replay" and source.count is not None:
        allowed = "with role replay is null: data.mixture.replay_fraction says how many; a weight shares them"
        yield _refused(f"{key}.count", source.count, allowed)


def _weights(role: str, sources: list[SourceConfig]) -> Iterator[str]:
    weights = [source.weight for source in sources if source.weight is not None]
    if weights and not any(weights):
        yield f"data.sources: the weights with role {role} sum to 0, allowed is more; raise one or set all to null"
    if role == "replay" and weights and len(weights) < len(sources):
        yield "data.sources: some with role replay have a weight, allowed is all or none; null draws from all alike"


def _clean(params: Params) -> Iterator[str]:
    length = params.clean.length
    if length.min_chars > length.max_chars:
        allowed = f"is at most clean.length.max_chars = {length.max_chars}"
        yield _refused("clean.length.min_chars", length.min_chars, allowed)


def _augment(params: Params) -> Iterator[str]:
    augment, pool = params.augment, [source.name for source in params.data.sources if source.role == "pool"]
    if augment.jobs and augment.endpoint is None:
        yield "augment.endpoint: null, the jobs need it; choose augment=paraphrase for one, or augment=off"
    yield from _augment_stages(augment)
    if augment.endpoint is not None:
        yield from _endpoint(augment.endpoint)
    names = [job.name for job in augment.jobs]
    for index, job in enumerate(augment.jobs):
        if job.name in names[:index]:
            yield _refused(f"augment.jobs[{index}].name", job.name, "is a name no other job has")
        yield from _teacher_job(f"augment.jobs[{index}]", job, pool)
    if "teacher" in params.data.meta_fields:
        yield "data.meta_fields: 'teacher' is where augment writes a row's origin; rename the key in your rows"


def _augment_stages(augment: AugmentConfig) -> Iterator[str]:
    """All of it is on, or all of it off: rows that nobody reads would be paid for, and missing ones be trained on."""
    is_read = augment.examples.startswith("data/augmented/")
    is_reported = augment.reported == "data/augmented"
    if not augment.jobs:
        if augment.endpoint is not None or augment.stages or is_read or is_reported:
            yield "augment.jobs: [], allowed beside an endpoint and stages is at least one; choose augment=off for none"
        return
    if not augment.stages:
        yield "augment.stages: [], allowed with jobs is [teacher]; choose augment=off to ask nothing"
    if not is_read:
        yield _refused("augment.examples", augment.examples, "with jobs is data/augmented/clean/examples.jsonl")
    if not is_reported:
        yield _refused("augment.reported", augment.reported, "with jobs is data/augmented")


def _endpoint(endpoint: EndpointConfig) -> Iterator[str]:
    """Neither line shows the value: it may be a key, or hold one."""
    if re.fullmatch(r"[A-Z_][A-Z0-9_]*", endpoint.api_key_env or "NONE") is None:
        allowed = "is the NAME of an environment variable, such as OPENAI_API_KEY; the key itself stays out of conf/"
        yield f"augment.endpoint.api_key_env: no such name, allowed {allowed}"
    if re.search(r"[@?#]", endpoint.base_url):
        allowed = "is scheme, host, port and path; a key goes into the variable that api_key_env names"
        yield f"augment.endpoint.base_url: holds credentials or a query, allowed {allowed}"


def _teacher_job(key: str, job: TeacherJobConfig, pool: list[str]) -> Iterator[str]:
    if job.source not in pool:
        yield _refused(f"{key}.source", job.source, f"is a source with role pool: {_listed(pool)}")
    if job.kind == "rewrite" and job.target is None:
        yield _refused(f"{key}.target", job.target, "with kind rewrite is answer or prompt")
    if job.kind == "generate" and job.target is not None:
        yield _refused(f"{key}.target", job.target, "with kind generate is null: it writes both")


def _split(params: Params) -> Iterator[str]:
    val, test = params.split.val_fraction, params.split.test_fraction
    given = any(source.role == "test" for source in params.data.sources)
    if given and test > 0:
        allowed = "is 0.0 when a source has role test; choose split=given_test"
        yield _refused("split.test_fraction", test, allowed)
    if not given and test == 0:
        allowed = "is more than 0 when no source has role test; choose split=holdout"
        yield _refused("split.test_fraction", test, allowed)
    if val + test >= 1:
        allowed = f"is less than 1 - split.test_fraction = {1 - test:g}; something has to be left to train on"
        yield _refused("split.val_fraction", val, allowed)


def _train(params: Params) -> Iterator[str]:
    train, hardware = params.train, params.hardware
    if train.global_batch_size % hardware.micro_batch_size:
        allowed = f"is a multiple of hardware.micro_batch_size = {hardware.micro_batch_size}; change either"
        yield _refused("train.global_batch_size", train.global_batch_size, allowed)
    if train.lr_scheduler_type == "constant" and train.warmup_ratio > 0:
        allowed = "with lr_scheduler_type constant is 0.0; choose constant_with_warmup to keep it"
        yield _refused("train.warmup_ratio", train.warmup_ratio, allowed)
    if train.early_stopping_patience is not None and params.split.val_fraction == 0:
        allowed = "is null without validation rows; raise split.val_fraction"
        yield _refused("train.early_stopping_patience", train.early_stopping_patience, allowed)


def _hardware(hardware: HardwareConfig) -> Iterator[str]:
    device, precision, attention = hardware.device, hardware.precision, hardware.attn_implementation
    if precision not in _PRECISIONS[device]:
        yield _refused("hardware.precision", precision, f"on {device} is {_listed(_PRECISIONS[device])}")
    if hardware.num_devices != 1:
        allowed = "is 1: one process trains on one device, and nothing here starts several"
        yield _refused("hardware.num_devices", hardware.num_devices, allowed)
    if device != "cuda":
        yield from _without_cuda(hardware)
    elif hardware.memory_gib is None:
        yield "hardware.memory_gib: null, device cuda needs the memory of one device; write it in GiB"
    if attention == "flash_attention_2" and (device != "cuda" or precision == "fp32"):
        allowed = f"on {device} in {precision} is sdpa, eager"
        yield _refused("hardware.attn_implementation", attention, allowed)


def _without_cuda(hardware: HardwareConfig) -> Iterator[str]:
    if hardware.optim == "paged_adamw_8bit":
        allowed = f"on {hardware.device} is adamw_torch, adamw_torch_fused"
        yield _refused("hardware.optim", hardware.optim, allowed)


def _eval(params: Params) -> Iterator[str]:
    if params.eval.task == "text_to_sql" and "database" not in params.data.meta_fields:
        allowed = "needs 'database' in data.meta_fields, to know where a query runs; choose eval=exact_match"
        yield f"eval.task: 'text_to_sql' {allowed}"
    if params.eval.max_new_tokens >= params.export.n_ctx:
        allowed = f"is less than export.n_ctx = {params.export.n_ctx}, which holds prompt and answer"
        yield _refused("eval.max_new_tokens", params.eval.max_new_tokens, allowed)
    if len(set(params.eval.harness_tasks)) < len(params.eval.harness_tasks):
        yield _refused("eval.harness_tasks", _listed(params.eval.harness_tasks), "is each task once")
    yield from _harness_rows(params.eval, [source.name for source in params.data.sources if source.role == "benchmark"])


def _harness_rows(settings: EvalConfig, benchmarks: list[str]) -> Iterator[str]:
    """lm-eval reads its tasks' rows by itself: what is trained on can only be compared with those that are a source."""
    for task in dict.fromkeys(settings.harness_tasks):
        if task not in benchmarks and task not in settings.harness_uncompared:
            yield (
                f"eval.harness_tasks: '{task}' is compared with no training row, allowed is a task whose rows are a"
                f" source with role benchmark and name {task}; add it to data.sources, or the task to"
                " eval.harness_uncompared"
            )
    for task in settings.harness_uncompared:
        if task not in settings.harness_tasks or task in benchmarks:
            allowed = "is a task of eval.harness_tasks whose rows are no benchmark source; take it out"
            yield _refused("eval.harness_uncompared", task, allowed)


# Which options a way to combine reads; the others have to be null.
_COMBINE_OPTIONS: dict[str, tuple[str, ...]] = {
    "ties": ("density", "majority_sign_method"),
    "dare_ties": ("density", "majority_sign_method"),
    "dare_linear": ("density",),
    "magnitude_prune": ("density",),
}
_COMBINATIONS = {"adapter": get_args(AdapterCombination), "full": get_args(ModelCombination)}


def _merge(params: Params) -> Iterator[str]:
    merge, phase = params.merge, f"models/phase/{params.recipe.final}"
    if merge.combine is None:
        if (merge.tuned != phase and params.recipe.final in params.recipe.phases) or merge.stages:
            yield f"merge.combine: null, allowed with it is merge.tuned {phase} and no stages; choose merge=default"
        return
    if merge.tuned != "models/combined" or not merge.stages:
        yield "merge.tuned: allowed beside merge.combine is models/combined, with merge.stages [combined]"
    yield from _combine(merge.combine)
    for index, source in enumerate(merge.combine.sources):
        if source.path != phase and not f"{source.path}/".startswith(f"{merge.tracked_path}/"):
            allowed = f"is {phase} or a folder in merge.tracked_path ({merge.tracked_path})"
            yield _refused(f"merge.combine.sources[{index}].path", source.path, allowed)


def _combine(combine: CombineConfig) -> Iterator[str]:
    way, allowed_ways = combine.combination_type, _COMBINATIONS[combine.family]
    if way not in allowed_ways:
        allowed = f"with family {combine.family} is {_listed(allowed_ways)}"
        yield _refused("merge.combine.combination_type", way, allowed)
    yield from _combine_weights(combine)
    for name, value in (("density", combine.density), ("majority_sign_method", combine.majority_sign_method)):
        if (value is not None) != (name in _COMBINE_OPTIONS.get(way, ())):
            yield _refused(f"merge.combine.{name}", value, f"with {way} is {'null' if value is not None else 'set'}")
    if combine.svd_rank is not None and way != "svd":
        yield _refused("merge.combine.svd_rank", combine.svd_rank, f"with {way} is null; only svd reads it")


def _combine_weights(combine: CombineConfig) -> Iterator[str]:
    weights = [source.weight for source in combine.sources]
    averages = combine.family == "full" and combine.combination_type in ("linear", "slerp")
    if averages and (min(weights) < 0 or sum(weights) == 0):
        yield f"merge.combine.sources: weights {weights}, allowed for an average are not negative and not all 0"
    if combine.combination_type == "slerp" and len(weights) != 2:
        yield f"merge.combine.sources: {len(weights)}, allowed with slerp are 2: an arc has two ends"


def _export(export: ExportConfig, model: ModelConfig) -> Iterator[str]:
    expected = (export.outtype, *export.quants)
    if export.verified != expected:
        allowed = f"is outtype and quants: {_listed(expected)}; set those"
        yield _refused("export.verified", _listed(export.verified), allowed)
    yield from _imatrix(export, model)
    if len(set(export.quants)) < len(export.quants):
        yield _refused("export.quants", _listed(export.quants), "is each type once")
    is_named = export.pick != "smallest_within_budget"
    if is_named and export.pick not in export.verified:
        allowed = f"is smallest_within_budget or a verified type: {_listed(export.verified)}"
        yield _refused("export.pick", export.pick, allowed)
    if export.all_within_budget != is_named:
        yield _refused("export.all_within_budget", export.all_within_budget, f"is {shown(is_named)}, by export.pick")
    for name in sorted({*export.verified, *export.lora_bases} - set(export.budgets)):
        yield f"export.budgets.{name}: missing, each verified type needs one; add it to conf/export/gguf.yaml"
    yield from _context("export.n_ctx", export.n_ctx, model)


def _lora_export(params: Params) -> Iterator[str]:
    """The adapter alone as a GGUF: there has to be one, and llama.cpp has to be able to put it onto a base."""
    export, lora, combine = params.export, params.lora, params.merge.combine
    expected = () if export.lora_base is None else (export.lora_base,)
    if export.lora_bases != expected:
        allowed = f"is [{_listed(expected)}], by export.lora_base; set that"
        yield _refused("export.lora_bases", _listed(export.lora_bases), allowed)
    if export.lora_base is None:
        return
    if lora is None or (combine is not None and combine.family == "full"):
        whole = "method full" if lora is None else "merge.combine.family full"
        yield _refused("export.lora_base", export.lora_base, f"with {whole} is null: there is no adapter to ship alone")
    elif lora.use_dora:
        allowed = "with lora.use_dora is null, as llama.cpp knows no learned norms; ship the merged model"
        yield _refused("export.lora_base", export.lora_base, allowed)
    elif lora.bias != "none":
        allowed = f"with lora.bias {lora.bias} is null, as llama.cpp's adapters hold no biases; set lora.bias to none"
        yield _refused("export.lora_base", export.lora_base, allowed)


def _context(key: str, n_ctx: int, model: ModelConfig) -> Iterator[str]:
    """A context in llama.cpp: what the model addresses, and what llama.cpp computes as training did."""
    served = model.max_served_context
    if n_ctx > model.max_position_embeddings:
        yield _refused(key, n_ctx, f"is at most model.max_position_embeddings = {model.max_position_embeddings} tokens")
    elif served is not None and n_ctx > served:
        allowed = f"is at most model.max_served_context = {served} tokens; beyond, llama.cpp serves another model"
        yield _refused(key, n_ctx, allowed)


def _imatrix(export: ExportConfig, model: ModelConfig) -> Iterator[str]:
    is_on = export.imatrix is not None
    computed: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
        "calibrated": (export.calibrated, ("imatrix",) if is_on else ()),
        "plain": (export.plain, () if is_on else export.quants),
        "weighted": (export.weighted, export.quants if is_on else ()),
    }
    for name, (found, expected) in computed.items():
        if found != expected:
            allowed = f"is [{_listed(expected)}], by export.imatrix and export.quants; set those"
            yield _refused(f"export.{name}", _listed(found), allowed)
    if export.imatrix is not None:
        yield from _context("export.imatrix.n_ctx", export.imatrix.n_ctx, model)
