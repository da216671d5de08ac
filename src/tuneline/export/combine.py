"""Several trained things become one folder that looks like a phase's output; what came out is compared with each."""

import json
from collections.abc import Sequence
from pathlib import Path

from huggingface_hub import snapshot_download
from torch import nn
from transformers import PreTrainedTokenizerBase, PreTrainedTokenizerFast

from tuneline.config.schema import CombineConfig, ModelConfig
from tuneline.errors import BudgetError, ModelError
from tuneline.export.checkpoint import check_tensors, size_bytes
from tuneline.export.combine_adapters import attached, check_adapters, combine_adapters, with_weighted_sum
from tuneline.export.combine_models import combine_models, needs_base
from tuneline.export.divergence import Divergence, LogitsNV
from tuneline.export.reference import REFERENCE, Metrics, Rows, decisive, reference_logits
from tuneline.model.adapters import load_tuned
from tuneline.model.loading import is_adapter
from tuneline.model.sources import one_line_errors, require_base, require_folder
from tuneline.model.tokenizers import load_tokenizer_from

FETCHED = ("*.safetensors", "*.json", "*.jinja", "*.model", "*.txt")  # of a hub model: no pickles, no other formats


def combine(settings: CombineConfig, base: ModelConfig, seed: int, out: Path, rows: Rows) -> Metrics:
    """Write the combination into `out`, read it back, and compare it with each source on `rows`, all positions.

    `source_<place>_` figures are of the source in that place, as reference, against the combination. For adapters,
    `sum_` figures are of the base plus the weighted sum of the updates, which `cat` gives exactly.
    """
    check_sources(settings, base)
    match settings.family:
        case "adapter":
            combine_adapters(settings, base, seed, out)
        case "full":
            combine_models(settings, base_folder(base) if needs_base(settings) else Path(), seed, out)
    check_tensors(out)
    combined = _logits(load_tuned(out, base, REFERENCE, None), rows)
    metrics: Metrics = {"n_sources": len(settings.sources)}
    for number, source in enumerate(settings.sources):
        found = _distance(load_tuned(Path(source.path), base, REFERENCE, None), combined, rows)
        metrics |= _prefixed(f"source_{number}_", found)
    return metrics | _distance_from_sum(settings, base, combined, rows)


def float64_difference(
    settings: CombineConfig, base: ModelConfig, allowed: float, combined: Path, rows: Rows, metrics: Metrics
) -> Metrics:
    """The distance from the sum again, of the same weights with products in float64, where fp32 is over the budget.

    Why, see `merge.float64_difference`. Empty within the budget, and for what has none.
    """
    if not _is_exact(settings) or metrics["sum_relative_logit_diff"] <= allowed:
        return {}
    # The combination first, which is then let go: one model in float64 at a time.
    written = _logits(load_tuned(combined, base, REFERENCE, None).double(), rows)
    summed = with_weighted_sum(attached(settings, base).double(), [source.weight for source in settings.sources])
    return _prefixed("float64_sum_", _distance(summed, written, rows))


def check_combination(metrics: Metrics, settings: CombineConfig, allowed: float) -> None:
    """Raise `BudgetError` when adapters combined by cat are not the weighted sum of their updates."""
    if not _is_exact(settings):
        return
    name = decisive("sum_relative_logit_diff", metrics)
    if not metrics[name] <= allowed:
        raise BudgetError(
            f"combine (adapters -> combined): {name} is {metrics[name]:.3g}, "
            f"merge.max_relative_logit_diff allows {allowed:g}; cat is the exact sum, so a source was read wrongly"
        )


def _is_exact(settings: CombineConfig) -> bool:
    return settings.family == "adapter" and settings.combination_type == "cat"


def check_sources(settings: CombineConfig, base: ModelConfig) -> None:
    """Raise `ModelError` naming what keeps the sources from being combined, before anything is computed."""
    folders = [Path(source.path) for source in settings.sources]
    for folder in folders:
        require_folder(folder)
        if is_adapter(folder) != (settings.family == "adapter"):
            found = "adapter" if is_adapter(folder) else "full"
            raise ModelError(f"{folder}: its family is {found}, but merge.combine.family is {settings.family}")
    if settings.family == "adapter":
        check_adapters(settings, base)
    _check_tokenizers(folders)
    for folder in folders:
        check_tensors(folder)


def needed_bytes(settings: CombineConfig) -> int:
    """What the result takes: as much as one of the models, or all of the adapters, whose ranks may add up."""
    sizes = [size_bytes(Path(source.path)) for source in settings.sources]
    return sum(sizes) if settings.family == "adapter" else sizes[0]


def base_folder(base: ModelConfig) -> Path:
    """Where the base's files lie: the folder itself, or the snapshot of a hub model's commit."""
    require_base(base)
    if base.revision is None:
        return Path(base.name_or_path)
    with one_line_errors(base.name_or_path, base.revision):
        return Path(snapshot_download(base.name_or_path, revision=base.revision, allow_patterns=list(FETCHED)))


def _check_tokenizers(folders: Sequence[Path]) -> None:
    first, *others = [load_tokenizer_from(folder) for folder in folders]
    for folder, other in zip(folders[1:], others, strict=True):
        if difference := _difference(first, other):
            raise ModelError(f"{folder}: its tokenizer differs from that of {folders[0]}: {difference}; train on one")


def _difference(first: PreTrainedTokenizerBase, other: PreTrainedTokenizerBase) -> str | None:
    one, two = first.get_vocab(), other.get_vocab()
    if changed := sorted(token for token in one.keys() | two.keys() if one.get(token) != two.get(token)):
        token = changed[0]
        return f"token {token!r} has id {two.get(token)} instead of {one.get(token)} ({len(changed)} differ)"
    if first.eos_token != other.eos_token or first.pad_token != other.pad_token:
        return f"EOS {other.eos_token!r}, pad {other.pad_token!r} instead of {first.eos_token!r}, {first.pad_token!r}"
    if first.chat_template != other.chat_template:
        return "the chat template"
    return _difference_in_parts(first, other)


def _difference_in_parts(first: PreTrainedTokenizerBase, other: PreTrainedTokenizerBase) -> str | None:
    """What tokenizers with the same vocabulary may still cut differently by; None where they have no such parts."""
    if not isinstance(first, PreTrainedTokenizerFast) or not isinstance(other, PreTrainedTokenizerFast):
        return None
    one, two = (json.loads(tokenizer.backend_tokenizer.to_str()) for tokenizer in (first, other))
    parts = {"normalizer": "the normalizer", "pre_tokenizer": "the pre-tokenizer", "model": "the merges"}
    return next((words for part, words in parts.items() if one[part] != two[part]), None)


def _logits(model: nn.Module, rows: Rows) -> list[LogitsNV]:
    """Of the combination, which is loaded once: these are kept, whatever the number of sources."""
    return [reference_logits(model, ids, range(len(ids))) for ids in rows]


def _distance_from_sum(settings: CombineConfig, base: ModelConfig, combined: Sequence[LogitsNV], rows: Rows) -> Metrics:
    if settings.family == "full":
        return {}
    summed = with_weighted_sum(attached(settings, base), [source.weight for source in settings.sources])
    return _prefixed("sum_", _distance(summed, combined, rows))


def _distance(model: nn.Module, combined: Sequence[LogitsNV], rows: Rows) -> Metrics:
    divergence = Divergence()
    for logits_TV, ids in zip(combined, rows, strict=True):
        divergence.add(reference_logits(model, ids, range(len(ids))), logits_TV)
    return divergence.metrics()


def _prefixed(prefix: str, metrics: Metrics) -> Metrics:
    return {f"{prefix}{name}": value for name, value in metrics.items()}
