"""The model card: what the model is, how good, how made, how to run. Every figure comes from a report of a stage."""

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import yaml

from tuneline.config.schema import SourceConfig
from tuneline.evaluation.names import interval_names, score_name
from tuneline.export.chain import HOW_COMPARED, chain, chain_notes, chain_table, verdict
from tuneline.export.commit import Commit
from tuneline.export.experiment import Experiment

Figures = Mapping[str, float | int]

_BY = "n_rejected_by_"  # then the name of the rule, in the reports of ingest and clean


@dataclass(frozen=True, slots=True)
class Reports:
    """The metrics of the stages, as they are in reports/; `verified` by GGUF type, in the order of export.verified."""

    ingest: Figures
    clean: Figures
    split: Figures
    train: Figures
    evaluated: Figures
    merge: Figures
    merged: Figures  # the merged model's score beside the tuned model's
    verified: Mapping[str, Figures]
    taught: Mapping[str, Figures] = field(default_factory=dict)  # of the stages around a teacher, by stage
    lora: Figures | None = None  # of the adapter alone on the base in export.lora_base


def card(it: Experiment, reports: Reports) -> str:
    """README.md in the hub's format: YAML front matter, then Markdown."""
    sections = [
        _front_matter(it, reports),
        _introduction(it),
        _quality(it, reports),
        _parity(it, reports),
        _data(it, reports),
        _making(it, reports),
        _lineage(it),
        _running(it),
        _limits(it, reports),
    ]
    return "\n\n".join(sections) + "\n"


def _front_matter(it: Experiment, reports: Reports) -> str:
    base = it.model.name if it.model.is_local else it.model.name_or_path
    shipped = reports.verified[it.shipped]
    score = score_name(shipped)
    result = {
        "task": {"type": "text-generation"},
        "dataset": {"name": it.data.name, "type": it.data.name, "split": "test"},
        "metrics": [{"name": _words(score), "type": score, "value": shipped[score]}],
    }
    fields: dict[str, Any] = {
        "language": list(it.data.languages),
        "license": it.model.licence,
        "base_model": base,
        "base_model_relation": "quantized",
        "pipeline_tag": "text-generation",
        "library_name": "gguf",
        "tags": ["gguf", "llama.cpp", "tuneline", it.method.name, it.shipped],
        "datasets": [source.hub.repo for source in it.data.sources if source.hub is not None],
        "model-index": [{"name": it.title, "results": [result]}],
    }
    present = {key: value for key, value in fields.items() if value != []}
    return f"---\n{yaml.safe_dump(present, sort_keys=False, allow_unicode=True)}---"


def _introduction(it: Experiment) -> str:
    base = it.model.name_or_path
    pin = "" if it.model.revision is None else f" at revision `{it.model.revision}`"
    return (
        f"# {it.title}\n\n`{base}`{pin} ({it.model.licence}), tuned on {it.data.name} with "
        f"{_method(it)}{_combined(it)}, as a GGUF of type {it.shipped} for llama.cpp and Ollama."
    )


def _method(it: Experiment) -> str:
    match it.lora:
        case None:
            return "full fine-tuning"
        case lora:
            return f"{it.method.name} (rank {lora.r}, alpha {lora.lora_alpha:g})"


def _combined(it: Experiment) -> str:
    combine = it.merge.combine
    if combine is None:
        return ""
    sources = ", ".join(f"`{source.path}` ({source.weight:g})" for source in combine.sources)
    return f", combined by {combine.combination_type} of {sources}"


def _quality(it: Experiment, reports: Reports) -> str:
    evaluated, shipped = reports.evaluated, reports.verified[it.shipped]
    score = score_name(shipped)
    header = ["model", f"{_words(score)} ({100 * it.eval.confidence:g} % interval)", "exact match", "perplexity"]
    # A ratio for the file: its perplexity is over fewer answers than the two above, and not to be compared with them.
    ratio = f"{shipped['perplexity_ratio']:.4f} x merged"
    rows = [
        _quality_row("base", evaluated, "base_", score, it, f"{evaluated['base_perplexity']:.3f}"),
        _quality_row("tuned", evaluated, "tuned_", score, it, f"{evaluated['tuned_perplexity']:.3f}"),
        _quality_row(f"this file ({it.shipped})", shipped, "", score, it, ratio),
    ]
    return (
        f"## How good it is\n\n{evaluated['n_examples']} held-out examples, answered greedily; this file was asked "
        f"{shipped['n_examples']} of them. Its perplexity is given as a multiple of the merged model's, both on the "
        f"same {shipped['n_compared_examples']} examples ({shipped['n_tokens']} tokens of answers).\n\n"
        f"{_table(header, rows)}"
    )


def _quality_row(name: str, figures: Figures, prefix: str, score: str, it: Experiment, perplexity: str) -> list[str]:
    interval = _interval(figures, prefix, score, it.eval.confidence)
    return [name, interval, _share(figures[f"{prefix}exact_match"]), perplexity]


def _parity(it: Experiment, reports: Reports) -> str:
    """The chain as the stage `parity` has it; of the types, those that were verified."""
    verified = {name: reports.verified[name] for name in it.export.verified}
    lora = None if reports.lora is None or it.export.lora_base is None else (it.export.lora_base, reports.lora)
    links = chain(reports.evaluated, reports.merge, reports.merged, verified, it.export.budgets, lora)
    merge, shipped = reports.merge, reports.verified[it.shipped]
    return (
        f"## Is it the model that was trained?\n\n{HOW_COMPARED}\n\n{chain_table(links, it.eval.confidence)}\n\n"
        f"{chain_notes(links)}{verdict(links)}\n\nThis file is {it.shipped}. "
        f"Adapter against merged model: largest logit difference {merge['relative_logit_diff']:.2g} of the largest "
        f"logit, over {merge['n_tokens']} tokens. Prompts were "
        f"compared as token ids: {shipped['n_templates_compared']} kinds of conversation and every held-out one, as "
        f"llama.cpp renders them, and {shipped['n_modelfile_compared']} kinds as the Modelfile does."
        f"{_lora(it, reports.lora)}"
    )


def _lora(it: Experiment, figures: Figures | None) -> str:
    """The adapter in a file of its own, where it is shipped."""
    if figures is None:
        return ""
    return (
        f"\n\n`lora/` holds the adapter alone ({figures['adapter_size_mib']:.1f} MiB) and the base in "
        f"{it.export.lora_base} that it is put onto: together KL {figures['kl_mean_nats']:.2g} nats from the adapter "
        f"as it was trained, the same top token at {_share(figures['top1_agreement'])}."
    )


def _data(it: Experiment, reports: Reports) -> str:
    split = reports.split
    sources = [[source.name, source.role, _origin(source)] for source in it.data.sources]
    rejected = [
        [stage, name.removeprefix(_BY).replace("_", " "), str(count)]
        for stage, report in {"ingest": reports.ingest, "clean": reports.clean, **reports.taught}.items()
        for name, count in sorted(report.items())
        if name.startswith(_BY) and count
    ]
    return (
        f"## Data\n\n{_table(['source', 'role', 'from'], sources)}\n\n"
        f"Licence of the data: {it.data.licence}. {reports.ingest['n_read']} rows read, {reports.clean['n_kept']} left "
        f"after cleaning; {_taught(it, reports)}{split['n_train']} for training, {split['n_val']} for validation, "
        f"{split['n_test']} for the test.\n\n{_table(['stage', 'rejected for', 'rows'], rejected)}\n\n"
        f"{_contamination(it, split)}"
    )


def _taught(it: Experiment, reports: Reports) -> str:
    if it.augment.endpoint is None:
        return ""
    n_rows = reports.taught["augment"]["n_kept"]
    return f"{n_rows} rows written by the teacher `{it.augment.endpoint.model}` joined them before the same cleaning; "


def _contamination(it: Experiment, split: Figures) -> str:
    """What was done about rows that give away held-out ones; with action `fail` there would be no package."""
    rules = it.split.contamination
    compared = ["equal prompts and answers"]
    compared += [] if rules.ngram is None else [f"{rules.ngram} words in a row"]
    compared += [] if rules.min_jaccard is None else [f"near copies (Jaccard {rules.min_jaccard:g})"]
    return (
        f"Contamination: training rows were compared with the held-out ones by {', '.join(compared)}; "
        f"{split['n_rejected_by_contamination']} were left out, none that was found is trained on."
    )


def _making(it: Experiment, reports: Reports) -> str:
    training = [[key, _figure(value)] for key, value in sorted(reports.train.items())]
    phases = " -> ".join(f"{name} ({phase.objective})" for name, phase in it.recipe.phases.items())
    return (
        f"## How it was made\n\nRecipe `{it.recipe.name}`: {phases}, on {it.hardware.name} with seed {it.seed}.\n\n"
        f"Phase `{it.recipe.final}`:\n\n{_table(['figure', 'value'], training)}"
    )


def _lineage(it: Experiment) -> str:
    return (
        f"## Lineage\n\n{_made_of(it.commit)}\n`provenance.json` holds the hash of every input and of every file here, "
        "all settings, and the versions of the libraries."
    )


def _made_of(commit: Commit) -> str:
    if commit.sha1 is None:
        return f"Of which commit it was made is not known: {commit.reason}."
    added = ", and of changes that were not committed" if commit.dirty else ""
    return f"Made of the code, configuration and data of commit `{commit.sha1}`{added}."


def _origin(source: SourceConfig) -> str:
    return f"`{source.path}`" if source.hub is None else f"`{source.hub.repo}` at `{source.hub.revision}`"


def _running(it: Experiment) -> str:
    apart = "" if it.export.lora_base is None else "tuneline serve . --lora  # with other folders: their adapters too\n"
    return (
        "## Run it\n\n```sh\n"
        f"tuneline serve .\n{apart}"
        f"ollama create {it.title} -f Modelfile && ollama run {it.title}\n"
        f"llama-server -m {it.gguf_name} --jinja -c {it.export.n_ctx} --temp 0\n{_vllm(it)}```{_spoken(it)}"
    )


def _vllm(it: Experiment) -> str:
    return "vllm serve vllm  # the merged weights, not this file\n" if it.export.vllm else ""


def _spoken(it: Experiment) -> str:
    """The Modelfile and `tuneline chat` send it by themselves; clients of an interface must."""
    prompt = it.data.system_prompt
    return "" if prompt is None else f"\n\nClients send this system prompt, as in training: {json.dumps(prompt)}"


def _limits(it: Experiment, reports: Reports) -> str:
    lines = [
        f"Tuned and measured on {it.data.name} only{_languages(it)}; what it does elsewhere, and whether that is safe, "
        "was not looked at.",
        *_known_faults(it, reports.verified[it.shipped]),
        f"Prompt and answer together have {it.export.n_ctx} tokens{_longest(it)}.",
        "Measured with greedy decoding and this file's own chat template; sampling gives other figures.",
        "llama.cpp does not normalise Unicode: send text in form NFC.",
        f"It inherits the licence ({it.model.licence}) and the limits of its base model.",
    ]
    return "## Known limits\n\n" + "\n".join(f"- {line}" for line in lines)


def _languages(it: Experiment) -> str:
    return f" (languages: {', '.join(it.data.languages)})" if it.data.languages else ""


def _longest(it: Experiment) -> str:
    longest = it.model.max_served_context
    return "" if longest is None else f"; do not raise it beyond {longest}, llama.cpp then computes otherwise"


def _known_faults(it: Experiment, shipped: Figures) -> Iterator[str]:
    """What the figures of this file say against it."""
    score = score_name(shipped)
    yield f"{_share(1 - shipped[score])} of its answers to held-out examples are wrong ({_words(score)})."
    if (running_on := 1 - shipped["ended_fraction"]) > 0:
        yield f"{_share(running_on)} of its answers did not end by themselves in {it.eval.max_new_tokens} tokens."
    if n_refused := shipped["n_templates_refused"]:
        n_tried = shipped["n_templates_compared"] + n_refused
        yield (
            f"Its chat template cannot show {n_refused} of {n_tried} kinds of conversation that were tried (with a "
            "system prompt, several turns, tools): none of these was trained."
        )
    if n_fallback := shipped["n_fallback_tensors"]:
        yield f"{n_fallback} matrices are of another type than {it.shipped}, whose blocks their rows do not fill."


def _interval(figures: Figures, prefix: str, score: str, confidence: float) -> str:
    low, high = (figures[f"{prefix}{name}"] for name in interval_names(score, confidence))
    return f"{_share(figures[f'{prefix}{score}'])} ({100 * low:.1f} to {100 * high:.1f})"


def _figure(value: float | int) -> str:
    return f"{value:,}" if isinstance(value, int) else f"{value:.4g}"


def _share(value: float | int) -> str:
    return f"{100 * value:.1f} %"


def _words(name: str) -> str:
    return name.replace("_", " ")


def _table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
