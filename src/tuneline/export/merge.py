"""Adapter and base become one model on disk, and what was written is compared with what was trained."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path

import torch
from huggingface_hub import hf_hub_download, try_to_load_from_cache
from huggingface_hub.errors import RemoteEntryNotFoundError
from peft import PeftModel, get_peft_model_state_dict
from safetensors import safe_open
from transformers import PreTrainedModel, PreTrainedTokenizerBase
from transformers.core_model_loading import revert_weight_conversion

from tuneline.config.schema import Dtype, MergeConfig, ModelConfig, QuantizationConfig
from tuneline.errors import BudgetError, EnvironmentProblem, ModelError
from tuneline.export.checkpoint import Checkpoint, check_tensors
from tuneline.export.divergence import Divergence, LogitsNV
from tuneline.export.reference import REFERENCE, Metrics, Rows, decisive, reference_logits
from tuneline.export.room import check_room
from tuneline.export.tokens import Sides, check_same_tokenizer
from tuneline.model.adapters import load_tuned
from tuneline.model.loading import is_adapter, load_full, load_merged, load_shape
from tuneline.model.sources import at_revision, first_line, require_folder
from tuneline.model.tokenizers import load_tokenizer, load_tokenizer_from

MIB = 2**20
SENTENCEPIECE = "tokenizer.model"
TRAINED = Sides("the base's tokenizer", "the tuned model's", "files that were changed after training; train it again")
WRITTEN = Sides("the base's tokenizer", "what was written", "a tokenizer that cannot be saved as it is")


def merge(tuned_folder: Path, base: ModelConfig, dtype: Dtype, out: Path, rows: Rows) -> Metrics:
    """Write `base` with the adapter in `tuned_folder` (or the full model there) as a standalone model into `out`.

    The adapter is always added to the unquantised base, in fp32; only then is the sum rounded to `dtype`. Figures
    without a prefix compare the tuned model with that sum, those with `written_` with the rounded model read back
    from disk. Both on the token sequences `rows`, all positions.

    The tuned model here is the adapter beside the unquantised base, after QLoRA too; see `four_bit_distance`.
    """
    require_folder(tuned_folder)
    check_room(out / "model.safetensors", load_shape(base).num_parameters() * torch_dtype(dtype).itemsize)
    check_tensors(tuned_folder)
    tokenizer = load_tokenizer(base)
    check_same_tokenizer(f"merge ({tuned_folder})", TRAINED, tokenizer, load_tokenizer_from(tuned_folder))
    tuned = load_tuned(tuned_folder, base, REFERENCE, None)
    _refuse_unused(tuned, tuned_folder)
    trained_logits = _all_logits(tuned, rows)
    merged = _merged(tuned)
    metrics = _compare(trained_logits, merged, rows)
    round_weights(merged, dtype)
    write_model(merged, load_tokenizer_from(tuned_folder), base, out)
    check_same_tokenizer(f"merge ({tuned_folder} -> {out})", WRITTEN, tokenizer, load_tokenizer_from(out))
    del tuned, merged  # before the written model is read back: room for one fp32 copy is enough
    written = load_merged(out, REFERENCE)
    read_back = {f"written_{name}": value for name, value in _compare(trained_logits, written, rows).items()}
    return metrics | read_back | _size(written, out)


def check_merge(metrics: Mapping[str, float | int], budget: MergeConfig) -> None:
    """Raise `BudgetError` when adapter and merged model disagree by more than fp32 rounding explains.

    The adapter is meant on the unquantised base. For QLoRA this says that the sum is right, not that it answers like
    the model that was trained: that is reported (`four_bit_distance`) and not held to a budget, since the base's own
    rounding to 4 bits is in it.
    """
    for single in _budgeted(budget):
        name = decisive(single, metrics)
        if not metrics[name] <= budget.max_relative_logit_diff:
            raise BudgetError(
                f"merge (adapter -> merged): {name} is {metrics[name]:.3g}, "
                f"merge.max_relative_logit_diff allows {budget.max_relative_logit_diff:g}; usual causes: the adapter "
                "was trained on another base or revision, or it changes one of two tied embeddings"
            )


def _budgeted(budget: MergeConfig) -> list[str]:
    return ["relative_logit_diff"] + (["written_relative_logit_diff"] if budget.dtype == "float32" else [])


def float64_difference(
    tuned_folder: Path, base: ModelConfig, budget: MergeConfig, merged: Path, rows: Rows, metrics: Metrics
) -> Metrics:
    """The comparison again, of the same fp32 weights with products in float64, where `metrics` are over budget.

    Some rows magnify the rounding of fp32 products beyond the budget; what is left in float64 is of the weights.
    Empty within the budget. Needs room for two copies of the model, one in float64.
    """
    if all(metrics[name] <= budget.max_relative_logit_diff for name in _budgeted(budget)):
        return {}
    trained_logits = _all_logits(load_tuned(tuned_folder, base, REFERENCE, None).double(), rows)
    found = _compare(trained_logits, _merged(load_tuned(tuned_folder, base, REFERENCE, None)).double(), rows)
    if budget.dtype == "float32":
        written = _compare(trained_logits, load_merged(merged, REFERENCE).double(), rows)
        found |= {f"written_{name}": value for name, value in written.items()}
    return {f"float64_{name}": value for name, value in found.items()}


def four_bit_distance(
    tuned_folder: Path, base: ModelConfig, quantization: QuantizationConfig | None, merged: Path, rows: Rows
) -> Metrics:
    """How far the merged model on disk is from the adapter beside the 4-bit base that it was trained on (QLoRA).

    Empty where nothing was quantised, or no adapter was trained. Products are computed in fp32, so that the figures
    are of the weights alone and the same on every machine.
    """
    if quantization is None or not is_adapter(tuned_folder):
        return {}
    exact = quantization.model_copy(update={"bnb_4bit_compute_dtype": "float32"})
    trained_logits = _all_logits(load_tuned(tuned_folder, base, REFERENCE, exact), rows)
    metrics = _compare(trained_logits, load_merged(merged, REFERENCE), rows)
    return {f"four_bit_{name}": value for name, value in metrics.items()}


def _refuse_unused(tuned: PreTrainedModel | PeftModel, folder: Path) -> None:
    """PEFT leaves out, without a word, what the file holds for modules that adapter_config.json does not name."""
    if isinstance(tuned, PeftModel):
        unused = sorted(set(Checkpoint(folder).file_of) - set(get_peft_model_state_dict(tuned)))
        if unused:
            raise ModelError(
                f"{folder}: the adapter does not fit its base: adapter_config.json has no place for {unused[0]}; "
                "train it again"
            )


def _merged(tuned: PreTrainedModel | PeftModel) -> PreTrainedModel:
    if not isinstance(tuned, PeftModel):
        return tuned
    try:
        model = tuned.merge_and_unload(safe_merge=True)  # safe: it looks for NaN before it changes a weight
    except ValueError as error:
        raise ModelError(f"merge (adapter -> merged): the adapter cannot be merged: {error}; train it again") from error
    assert isinstance(model, PreTrainedModel)
    _check_tied(model)
    return model


def _check_tied(model: PreTrainedModel) -> None:
    """Where the architecture shares input and output embeddings, merging must have left them equal."""
    if not model.config.get_text_config().tie_word_embeddings:
        return
    weights = dict(model.named_parameters(remove_duplicate=False))
    outputs = [name for name in weights if name.endswith("lm_head.weight")]
    inputs = [name for name in weights if name.endswith("embed_tokens.weight")]
    if any(not torch.equal(weights[a], weights[b]) for a in outputs for b in inputs):
        raise ModelError(
            "lora.target_modules: the adapter changes only one of the base's two tied embeddings, and no single matrix "
            "can hold both; leave embed_tokens and lm_head out of it"
        )
    model.tie_weights()


def round_weights(model: PreTrainedModel, dtype: Dtype) -> None:
    """Change the weights in place. Raises `ModelError` when one is beyond what `dtype` can hold."""
    target = torch_dtype(dtype)
    for _, weight in model.named_parameters():
        weight.data = weight.data.to(target)
    for name, weight in model.named_parameters():
        if not bool(torch.isfinite(weight).all()):
            raise ModelError(f"merge.dtype: {name} is not finite in {dtype}; choose bfloat16 or float32")


def torch_dtype(dtype: Dtype) -> torch.dtype:
    match dtype:
        case "float32":
            return torch.float32
        case "bfloat16":
            return torch.bfloat16
        case "float16":
            return torch.float16


def write_model(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, base: ModelConfig, out: Path) -> None:
    """A standalone model folder, read back and compared; `tokenizer.model` is that of `base`, where it has one."""
    model.save_pretrained(out)
    tokenizer.save_pretrained(out)
    _copy_sentencepiece(base, out)
    _check_written(model, out)


def _copy_sentencepiece(base: ModelConfig, out: Path) -> None:
    """Transformers no longer saves `tokenizer.model`; llama.cpp's converter needs it for Gemma, Mistral and Phi."""
    found = _sentencepiece_file(base)
    if found is not None:
        (out / SENTENCEPIECE).write_bytes(found.read_bytes())


def _sentencepiece_file(base: ModelConfig) -> Path | None:
    """None when the base is known to have none. Raises `EnvironmentProblem` when the hub cannot be asked."""
    if base.revision is None:
        file = Path(base.name_or_path) / SENTENCEPIECE
        return file if file.is_file() else None
    # the cache remembers which files a commit does not have; hf_hub_download would ask again
    known = try_to_load_from_cache(base.name_or_path, SENTENCEPIECE, revision=base.revision)
    if known is not None:
        return Path(known) if isinstance(known, str) else None
    try:
        return Path(hf_hub_download(base.name_or_path, SENTENCEPIECE, revision=base.revision))
    except RemoteEntryNotFoundError:
        return None
    except OSError as error:
        command = f"hf download {base.name_or_path} {SENTENCEPIECE} --revision {base.revision}"
        raise EnvironmentProblem(
            f"model.name_or_path: cannot tell whether {at_revision(base.name_or_path, base.revision)} has a "
            f"{SENTENCEPIECE}, which the GGUF may need: {first_line(error)}; with network, run once: `{command}` "
            "(the cache remembers a file that is not there, too)"
        ) from error


def _check_written(model: PreTrainedModel, out: Path) -> None:
    """Every tensor in memory is, bit for bit, on disk (safetensors has no checksum of its own), and no other is.

    Transformers cuts joined experts apart as it saves and joins them as it loads. Those are compared as they lie on
    disk, and once more as they are read back.
    """
    in_memory = model.state_dict()
    apart = revert_weight_conversion(model, in_memory)
    written = set[str]()
    for file, name, load in _tensors_on_disk(out):
        if name not in apart:
            raise ModelError(f"{file}: tensor {name} is none of the model's; is the disk sound?")
        _check_equal(file, name, load(), apart[name])
        written.add(name)
    stored = {apart[name].data_ptr() for name in written}  # of two tied tensors, one is written
    if lost := sorted(name for name in apart.keys() - written if apart[name].data_ptr() not in stored):
        raise ModelError(f"{out}: tensor {lost[0]} was not written; is the disk sound?")
    if joined := sorted(in_memory.keys() - apart.keys()):
        read_back = load_full(out, REFERENCE, model.dtype).state_dict()
        for name in joined:
            # a module that Transformers keeps in fp32 is read as such: what bfloat16 held is still the same
            _check_equal(out, name, read_back[name].to(in_memory[name].dtype), in_memory[name])


def _check_equal(place: Path, name: str, found: torch.Tensor, in_memory: torch.Tensor) -> None:
    if found.dtype != in_memory.dtype or not torch.equal(found, in_memory):
        raise ModelError(f"{place}: tensor {name} was not written as it is in memory; is the disk sound?")


def _tensors_on_disk(out: Path) -> Iterator[tuple[Path, str, Callable[[], torch.Tensor]]]:
    """File and name of each, and how to read it; one file is open at a time."""
    for file in sorted(out.glob("*.safetensors")):
        with safe_open(file, framework="pt") as tensors:
            for name in tensors.keys():  # noqa: SIM118  (no mapping)
                yield file, name, partial(tensors.get_tensor, name)


def _all_logits(model: torch.nn.Module, rows: Rows) -> list[LogitsNV]:
    return [reference_logits(model, ids, range(len(ids))) for ids in rows]


def _compare(trained_logits: Sequence[LogitsNV], model: torch.nn.Module, rows: Rows) -> Metrics:
    divergence = Divergence()
    for logits_TV, ids in zip(trained_logits, rows, strict=True):
        divergence.add(logits_TV, reference_logits(model, ids, range(len(ids))))
    return divergence.metrics()


def _size(model: PreTrainedModel, out: Path) -> Metrics:
    n_bytes = sum(file.stat().st_size for file in out.glob("*.safetensors"))
    return {"n_parameters": model.num_parameters(), "size_mib": n_bytes / MIB}
