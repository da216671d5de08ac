"""The experiment in one table, from the reports of its stages: `tuneline summary`, the end of `make repro`."""

import argparse
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from rich.box import SIMPLE_HEAD
from rich.table import Table

from tuneline.commands.console import open_console
from tuneline.config.params import read_params
from tuneline.config.schema import EvalTask, Params
from tuneline.evaluation.names import interval_names
from tuneline.export.chain import read_figures

PIPE_COLUMNS = 100
DASH = "-"

Metrics = Mapping[str, float]


@dataclass(frozen=True, slots=True)
class System:
    """One row: metrics of a model or GGUF, without the `base_` or `tuned_` that they have in a file."""

    name: str
    metrics: Metrics


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--params", type=Path, default=Path("params.yaml"), help="(params.yaml)")
    parser.add_argument("--reports", type=Path, default=Path("reports"), help="folder of reports (reports)")


def execute(arguments: argparse.Namespace) -> None:
    """Print the table; what has no report yet is a dash."""
    params = read_params(arguments.params)
    console = open_console(PIPE_COLUMNS)
    console.print(table(params, list(systems(params, arguments.reports)), held_out_size(arguments.reports)))
    for line in (*look_at(params, arguments.reports), "", *try_next(params)):
        console.print(line, highlight=False, markup=False, soft_wrap=True)


def systems(params: Params, reports: Path) -> Iterator[System]:
    """Base, tuned, merged, then every verified GGUF type, each with whatever has been measured."""
    evaluated = read_metrics(reports / "evaluate.json") | read_metrics(reports / "speed/evaluate.json")
    yield System("base", _without_prefix("base_", evaluated))
    yield System("tuned", _without_prefix("tuned_", evaluated))
    merged = read_metrics(reports / "evaluate_merged.json") | read_metrics(reports / "speed/evaluate_merged.json")
    yield System("merged", merged | _only("size_mib", read_metrics(reports / "merge.json")))
    for gguf in params.export.verified:
        measured = read_metrics(reports / f"verify/{gguf}.json")
        yield System(f"GGUF {gguf}", measured | read_metrics(reports / f"speed/verify-{gguf}.json"))
    for base in params.export.lora_bases:
        measured = read_metrics(reports / f"verify/lora_on_{base}.json")
        # its perplexity is a multiple of the adapter's, not of the merged model's
        rest = {name: value for name, value in measured.items() if not name.startswith("perplexity")}
        yield System(f"LoRA on {base}", rest | read_metrics(reports / f"speed/verify-lora_on_{base}.json"))


def table(params: Params, rows: list[System], n_examples: float | None) -> Table:
    """Scores with their interval, perplexity, size and speed.

    A GGUF's perplexity is measured on fewer rows than that of base and tuned, so it is shown as its ratio to the merged
    model's on the same rows.
    """
    size = DASH if n_examples is None else f"{n_examples:,.0f}"
    setting = f"{params.model.name} + {params.method.name} on {params.data.name}"
    level = f"{100 * params.eval.confidence:g}% intervals"
    score = _score_name(params.eval.task)
    shown = Table(
        title=f"{setting}: {size} held-out examples, {level}",
        box=SIMPLE_HEAD,
        padding=(0, 0, 0, 1),
        title_justify="left",
    )
    shown.add_column("model", no_wrap=True)
    names = [score.replace("_", " "), "perplexity", "size MiB", "tokens/s"]
    if score != "exact_match":
        names.insert(1, "exact match")
    for name in names:
        shown.add_column(name, justify="right")
    for system in rows:
        shown.add_row(system.name, *_cells(system.metrics, score, params.eval.confidence))
    return shown


def look_at(params: Params, reports: Path) -> list[str]:
    """The files worth opening first, of those that are there."""
    final = params.recipe.final
    load = "tuneline serve models/deploy"
    files = {
        f"{reports}/evaluate.png": "base against tuned, and what went wrong",
        f"{reports}/train/{final}.png": "the loss curve",
        f"{reports}/inspect/{final}.md": "what the model was trained on, token by token",
        "data/predictions/models/tuned.jsonl": "every answer, with its error",
        "models/deploy": f"the packaged model ({params.export.pick}): {load}",
    }
    present = {name: remark for name, remark in files.items() if Path(name).exists()}
    width = max(map(len, present), default=0)
    return ["Look at", *(f"  {name:<{width}}  {remark}" for name, remark in present.items())] if present else []


def try_next(params: Params) -> list[str]:
    """Commands for a second experiment and for comparing it with this one."""
    change = f"lora.r={params.lora.r * 2}" if params.lora is not None else "train.weight_decay=0.1"
    commands = {
        f"dvc exp run -S {change}": "a variation; only what depends on it runs again",
        "dvc exp show": "all experiments side by side",
        "dvc metrics diff": "what changed against the last commit",
    }
    width = max(map(len, commands))
    return ["Try next", *(f"  {command:<{width}}  {remark}" for command, remark in commands.items())]


def held_out_size(reports: Path) -> float | None:
    return read_metrics(reports / "evaluate.json").get("n_examples")


def read_metrics(path: Path) -> dict[str, float]:
    """The flat metrics in `path`; none when its stage has not run."""
    return dict(read_figures(path)) if path.is_file() else {}


def _score_name(task: EvalTask) -> str:
    """The metric that the task is about."""
    match task:
        case "text_to_sql":
            return "execution_accuracy"
        case "exact_match":
            return "exact_match"


def _cells(metrics: Metrics, score: str, confidence: float) -> list[str]:
    low, high = interval_names(score, confidence)
    scores = [_percent(metrics.get(score), metrics.get(low), metrics.get(high))]
    if score != "exact_match":
        scores.append(_percent(metrics.get("exact_match"), None, None))
    return [
        *scores,
        _perplexity(metrics),
        _number(metrics.get("size_mib"), ",.1f"),
        _number(metrics.get("generation_tokens_per_s"), ",.0f"),
    ]


def _percent(share: float | None, low: float | None, high: float | None) -> str:
    if share is None:
        return DASH
    interval = "" if low is None or high is None else f" ({100 * low:.1f}-{100 * high:.1f})"
    return f"{100 * share:.1f}%{interval}"


def _perplexity(metrics: Metrics) -> str:
    if "perplexity_ratio" in metrics:
        return f"{metrics['perplexity_ratio']:.3f}x merged"
    return _number(metrics.get("perplexity"), ".4g")


def _number(value: float | None, form: str) -> str:
    return DASH if value is None else format(value, form)


def _without_prefix(prefix: str, metrics: Metrics) -> dict[str, float]:
    return {name.removeprefix(prefix): value for name, value in metrics.items() if name.startswith(prefix)}


def _only(name: str, metrics: Metrics) -> dict[str, float]:
    return {name: metrics[name]} if name in metrics else {}
