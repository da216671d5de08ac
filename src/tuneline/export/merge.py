"""Adapter and base become one model on disk, and what was written is compared with what was trained."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from huggingface_hub import hf_hub_download, try_to_load_from_cache
from huggingface_hub.errors import RemoteEntryNotFoundError
from peft import PeftModel
from safetensors import safe_open
from transformers import PreTrainedModel

from tuneline.config.schema import Dtype, MergeConfig, ModelConfig
from tuneline.errors import BudgetError, EnvironmentProblem, ModelError
from tuneline.export.checkpoint import check_tensors
from tuneline.export.divergence import Divergence, LogitsNV
from tuneline.export.reference import REFERENCE, reference_logits
from tuneline.export.room import check_room
from tuneline.model.adapters import load_tuned
from tuneline.model.loading import at_revision, first_line, load_merged, load_tokenizer_from, require_folder

Rows = Sequence[Sequence[int]]  # token ids of held-out conversations
Metrics = dict[str, float | int]

MIB = 2**20
SENTENCEPIECE = "tokenizer.model"


def merge(tuned_folder: Path, base: ModelConfig, dtype: Dtype, out: Path, rows: Rows) -> Metrics:
    """Write `base` with the adapter in `tuned_folder` (or the full model there) as a standalone model into `out`.

    The adapter is always added to the unquantised base, in fp32; only then is the sum rounded to `dtype`. Figures
    without a prefix compare the tuned model with that sum, those with `written_` with the rounded model read back
    from disk. Both on the token sequences `rows`, all positions.

    The tuned model here is the adapter beside the unquantised base, after QLoRA too: how far that is from the 4-bit
    base it was trained on is not measured here. The task's scores tell: evaluate takes the 4-bit base, verify what
    was made from the merged model.
    """
    require_folder(tuned_folder)
    check_tensors(tuned_folder)
    rows = [ids[: base.max_position_embeddings] for ids in rows]
    tuned = load_tuned(tuned_folder, base, REFERENCE, None)
    check_room(out / "model.safetensors", tuned.num_parameters() * _torch_dtype(dtype).itemsize)
    trained_logits = _all_logits(tuned, rows)
    merged = _merged(tuned)
    metrics = _compare(trained_logits, merged, rows)
    _round(merged, dtype)
    _write(merged, tuned_folder, base, out)
    del tuned, merged  # before the written model is read back: room for one fp32 copy is enough
    written = load_merged(out, REFERENCE)
    read_back = {f"written_{name}": value for name, value in _compare(trained_logits, written, rows).items()}
    return metrics | read_back | _size(written, out)


def check_merge(metrics: Mapping[str, float | int], budget: MergeConfig) -> None:
    """Raise `BudgetError` when adapter and merged model disagree by more than fp32 rounding explains.

    The adapter is meant on the unquantised base. For QLoRA this says that the sum is right, not that it answers like
    the model that was trained.
    """
    names = ["relative_logit_diff"] + (["written_relative_logit_diff"] if budget.dtype == "float32" else [])
    for name in names:
        if not metrics[name] <= budget.max_relative_logit_diff:
            raise BudgetError(
                f"merge (adapter -> merged): {name} is {metrics[name]:.3g}, "
                f"merge.max_relative_logit_diff allows {budget.max_relative_logit_diff:g}; usual causes: the adapter "
                "was trained on another base or revision, or it changes one of two tied embeddings"
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


def _round(model: PreTrainedModel, dtype: Dtype) -> None:
    """Change the weights in place. Raises `ModelError` when one is beyond what `dtype` can hold."""
    target = _torch_dtype(dtype)
    for _, weight in model.named_parameters():
        weight.data = weight.data.to(target)
    for name, weight in model.named_parameters():
        if not bool(torch.isfinite(weight).all()):
            raise ModelError(f"merge.dtype: {name} is not finite in {dtype}; choose bfloat16 or float32")


def _torch_dtype(dtype: Dtype) -> torch.dtype:
    match dtype:
        case "float32":
            return torch.float32
        case "bfloat16":
            return torch.bfloat16
        case "float16":
            return torch.float16


def _write(model: PreTrainedModel, tuned_folder: Path, base: ModelConfig, out: Path) -> None:
    model.save_pretrained(out)
    load_tokenizer_from(tuned_folder).save_pretrained(out)
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
    """Every tensor on disk is, bit for bit, the one in memory (safetensors has no checksum of its own)."""
    in_memory = model.state_dict()
    for file in sorted(out.glob("*.safetensors")):
        with safe_open(file, framework="pt") as tensors:
            for name in tensors.keys():  # noqa: SIM118  (no mapping)
                if not torch.equal(tensors.get_tensor(name), in_memory[name]):
                    raise ModelError(f"{file}: tensor {name} was not written as it is in memory; is the disk sound?")


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
