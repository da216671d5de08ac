"""GGUF files, their importance matrix, and the adapter alone."""

from collections.abc import Iterator

from tuneline.config.explain import shown
from tuneline.config.rules.wording import listed, refused
from tuneline.config.schema import ExportConfig, ModelConfig, Params


def export_rules(export: ExportConfig, model: ModelConfig) -> Iterator[str]:
    expected = (export.outtype, *export.quants)
    if export.verified != expected:
        allowed = f"is outtype and quants: {listed(expected)}; set those"
        yield refused("export.verified", listed(export.verified), allowed)
    yield from _imatrix(export, model)
    if len(set(export.quants)) < len(export.quants):
        yield refused("export.quants", listed(export.quants), "is each type once")
    is_named = export.pick != "smallest_within_budget"
    if is_named and export.pick not in export.verified:
        allowed = f"is smallest_within_budget or a verified type: {listed(export.verified)}"
        yield refused("export.pick", export.pick, allowed)
    if export.all_within_budget != is_named:
        yield refused("export.all_within_budget", export.all_within_budget, f"is {shown(is_named)}, by export.pick")
    for name in sorted({*export.verified, *export.lora_bases} - set(export.budgets)):
        yield f"export.budgets.{name}: missing, each verified type needs one; add it to conf/export/gguf.yaml"
    yield from _context("export.n_ctx", export.n_ctx, model)


def lora_export_rules(params: Params) -> Iterator[str]:
    """The adapter alone as a GGUF: there has to be one, and llama.cpp has to be able to put it onto a base."""
    export, lora, combine = params.export, params.lora, params.merge.combine
    expected = () if export.lora_base is None else (export.lora_base,)
    if export.lora_bases != expected:
        allowed = f"is [{listed(expected)}], by export.lora_base; set that"
        yield refused("export.lora_bases", listed(export.lora_bases), allowed)
    if export.lora_base is None:
        return
    if lora is None or (combine is not None and combine.family == "full"):
        whole = "method full" if lora is None else "merge.combine.family full"
        yield refused("export.lora_base", export.lora_base, f"with {whole} is null: there is no adapter to ship alone")
    elif lora.use_dora:
        allowed = "with lora.use_dora is null, as llama.cpp knows no learned norms; ship the merged model"
        yield refused("export.lora_base", export.lora_base, allowed)
    elif lora.bias != "none":
        allowed = f"with lora.bias {lora.bias} is null, as llama.cpp's adapters hold no biases; set lora.bias to none"
        yield refused("export.lora_base", export.lora_base, allowed)


def _context(key: str, n_ctx: int, model: ModelConfig) -> Iterator[str]:
    """A context in llama.cpp: what the model addresses, and what llama.cpp computes as training did."""
    served = model.max_served_context
    if n_ctx > model.max_position_embeddings:
        yield refused(key, n_ctx, f"is at most model.max_position_embeddings = {model.max_position_embeddings} tokens")
    elif served is not None and n_ctx > served:
        allowed = f"is at most model.max_served_context = {served} tokens; beyond, llama.cpp serves another model"
        yield refused(key, n_ctx, allowed)


def _imatrix(export: ExportConfig, model: ModelConfig) -> Iterator[str]:
    is_on = export.imatrix is not None
    computed: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
        "calibrated": (export.calibrated, ("imatrix",) if is_on else ()),
        "plain": (export.plain, () if is_on else export.quants),
        "weighted": (export.weighted, export.quants if is_on else ()),
    }
    for name, (found, expected) in computed.items():
        if found != expected:
            allowed = f"is [{listed(expected)}], by export.imatrix and export.quants; set those"
            yield refused(f"export.{name}", listed(found), allowed)
    if export.imatrix is not None:
        yield from _context("export.imatrix.n_ctx", export.imatrix.n_ctx, model)
