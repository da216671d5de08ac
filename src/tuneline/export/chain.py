"""The chain from adapter to GGUF as one table: what each hand-over cost, from the reports of its stages."""

import csv
import io
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tuneline.config.schema import BudgetConfig, GgufType
from tuneline.errors import BudgetError, DataError
from tuneline.evaluation.names import interval_names, score_name
from tuneline.export.budget import is_held, lora_link, outside_budget, usual_cause

Figures = Mapping[str, float | int]

# Of each link, where it was measured. No wall-clock figures: those stay in reports/speed.
FIGURES = (
    "size_mib", "bits_per_weight", "max_abs_logit_diff", "mean_abs_logit_diff", "kl_mean_nats", "kl_median_nats",
    "kl_p99_nats", "top1_agreement", "perplexity_ratio", "perplexity_ratio_se", "ended_fraction",
)  # fmt: skip
PLOTTED = ("size_mib", "kl_mean_nats")
HOW_COMPARED = (
    "Adapter against merged model at every position, each GGUF against the merged model on the held-out answers; "
    "scores on the held-out examples, each paired with that of the model it was made from. ± is one standard error."
)


@dataclass(frozen=True, slots=True)
class Link:
    """One hand-over, named by what came out of it; `figures` compare that with what it was made from (`source`)."""

    source: str
    name: str
    figures: Figures
    budget: BudgetConfig | None  # export.budgets; None: another stage holds this link to its own

    @property
    def problems(self) -> list[str]:
        """What is outside its budget, each with figure and limit."""
        return [] if self.budget is None else outside_budget(self.figures, self.budget)


def read_chain(
    evaluated: Path,
    merge: Path,
    merged: Path,
    verified: Path,
    types: Iterable[GgufType],
    budgets: Mapping[GgufType, BudgetConfig],
    lora_base: GgufType | None = None,
) -> list[Link]:
    """The links in the order of the DAG; of folder `verified` only `types` are read, however many files lie there.

    `merge` is the comparison of logits, `merged` the merged model's score beside the tuned model's.
    Raises `DataError` for a report that is missing or unreadable.
    """
    figures = {name: _verified_figures(verified / f"{name}.json") for name in types}
    lora = None if lora_base is None else (lora_base, _verified_figures(verified / f"{lora_link(lora_base)}.json"))
    return chain(read_figures(evaluated), read_figures(merge), read_figures(merged), figures, budgets, lora)


def chain(
    evaluated: Figures,
    merge: Figures,
    merged: Figures,
    verified: Mapping[GgufType, Figures],
    budgets: Mapping[GgufType, BudgetConfig],
    lora: tuple[GgufType, Figures] | None = None,
) -> list[Link]:
    """The links of these reports; the last one is `lora`, the adapter in a GGUF of its own on the base in a type."""
    tuned = {name.removeprefix("tuned_"): value for name, value in evaluated.items() if name.startswith("tuned_")}
    return [
        Link("training", "adapter", tuned, None),
        Link("adapter", "merged", {**merged, **merge}, None),
        *(Link("merged", name, figures, budgets[name]) for name, figures in verified.items()),
        *([] if lora is None else [Link("adapter", lora_link(lora[0]), lora[1], budgets[lora[0]])]),
    ]


def read_figures(path: Path) -> Figures:
    """One flat report of a stage."""
    try:
        report: Any = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise DataError(f"{path}: no readable report ({error}); run `dvc repro`") from None
    match report:
        case dict() if all(isinstance(value, int | float) for value in report.values()):
            return report
    raise DataError(f"{path}: not one flat object of numbers; run `dvc repro`")


def _verified_figures(path: Path) -> Figures:
    found = read_figures(path)
    missing = sorted({*FIGURES, "ended_drop"} - {"perplexity_ratio_se"} - set(found))  # one row has no spread
    if missing:
        raise DataError(f"{path}: it lacks {', '.join(missing)}; run `dvc repro`, which verifies again")
    return found


def score_of(links: Sequence[Link]) -> str:
    """The metric that the task is held to."""
    return score_name({name for link in links for name in link.figures})


def columns(score: str, confidence: float) -> tuple[str, ...]:
    """The figures of a link, by name; the score with its interval and its paired test at the end."""
    return (*FIGURES, score, *interval_names(score, confidence), f"{score}_drop", f"{score}_drop_p_value")


def chain_metrics(links: Sequence[Link], confidence: float) -> dict[str, float | int]:
    """All figures in one flat mapping, each under the name of its link, and how many links are outside a budget."""
    names = columns(score_of(links), confidence)
    flat = {f"{link.name}_{name}": link.figures[name] for link in links for name in names if name in link.figures}
    return flat | {"n_links_outside_budget": sum(bool(link.problems) for link in links)}


def chain_csv(links: Sequence[Link], confidence: float) -> str:
    """One row a link; what was not measured on it is empty."""
    return _csv(links, columns(score_of(links), confidence))


def sizes_csv(links: Sequence[Link]) -> str:
    """What each GGUF's bytes buy, for `dvc plots`, which draws an empty cell as a zero: the adapter has no size."""
    return _csv([link for link in links if link.budget is not None], PLOTTED)


def _csv(links: Sequence[Link], names: Sequence[str]) -> str:
    text = io.StringIO()
    table = csv.writer(text, lineterminator="\n")
    table.writerow(["link", "made_from", *names])
    table.writerows([link.name, link.source, *(_plain(link.figures.get(name)) for name in names)] for link in links)
    return text.getvalue()


def chain_markdown(links: Sequence[Link], confidence: float) -> str:
    """The table for people, and under it every link that is outside its budget with the usual cause."""
    return (
        f"# The parity chain\n\n{HOW_COMPARED}\n\n{chain_table(links, confidence)}\n\n"
        f"{chain_notes(links)}{verdict(links)}\n"
    )


def chain_table(links: Sequence[Link], confidence: float) -> str:
    """One row a link, in Markdown; a dash where a figure was not measured on it."""
    score = score_of(links)
    header = [
        "link", "MiB", "bits/weight", "KL mean (nats)", "KL p99", "same top token", "perplexity ratio",
        f"{score.replace('_', ' ')} ({100 * confidence:g} % interval)", "lost (McNemar p)", "ends by itself", "verdict",
    ]  # fmt: skip
    lines = [header, ["---"] * len(header), *(_row(link, score, confidence) for link in links)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def chain_notes(links: Sequence[Link]) -> str:
    """Paragraphs on links that not every chain has."""
    notes = [note for link in links for note in _notes(link)]
    return "".join(f"{note}\n\n" for note in notes)


def _notes(link: Link) -> Iterator[str]:
    if "four_bit_kl_mean_nats" in link.figures:
        yield (
            "Trained beside the base in 4 bits (QLoRA) and merged into the unquantised one, which answers a little "
            "differently: KL {four_bit_kl_mean_nats:.2g} nats in the mean, {four_bit_kl_p99_nats:.2g} at the 99th "
            "percentile, same top token {four_bit_top1_agreement:.1%}. No budget holds it."
        ).format_map(link.figures)
    if link.source == "adapter" and link.budget is not None:
        yield f"{link.name}: the adapter in a GGUF of its own, on the base's, against the adapter in PyTorch."


def check_chain(links: Sequence[Link], *, outtype: str, all_within_budget: bool) -> None:
    """Raise one `BudgetError` with every link that has to hold its budget, as the budgets are now, and does not.

    Where the choice among the types is left to figures (`check_link`), the other types are only shown as outside.
    """
    held = [link for link in links if link.source == "adapter" or is_held(link.name, outtype, all_within_budget)]
    broken = _broken(held)
    if broken:
        raise BudgetError(f"parity: {' | '.join(broken)}")


def _broken(links: Sequence[Link]) -> list[str]:
    return [
        f"{link.source} -> {link.name}: {'; '.join(link.problems)}; {usual_cause(link.name)}"
        for link in links
        if link.problems
    ]


def _row(link: Link, score: str, confidence: float) -> list[str]:
    found = link.figures
    low, high = interval_names(score, confidence)
    return [
        f"{link.source} -> {link.name}",
        _shown("{size_mib:.1f}", found),
        _shown("{bits_per_weight:.2f}", found),
        _shown("{kl_mean_nats:.2g}", found),
        _shown("{kl_p99_nats:.2g}", found),
        _shown("{top1_agreement:.2%}", found),
        _shown("{perplexity_ratio:.4f} ± {perplexity_ratio_se:.4f}", found),
        _shown(f"{{{score}:.1%}} ({{{low}:.1%}} to {{{high}:.1%}})", found),
        _shown(f"{{{score}_drop:.2%}} ({{{score}_drop_p_value:.2g}})", found),
        _shown("{ended_fraction:.1%}", found),
        "OUTSIDE" if link.problems else "within" if link.budget is not None else "",
    ]


def _shown(layout: str, figures: Figures) -> str:
    """A cell; a dash where one of its figures was not measured on this link."""
    try:
        return layout.format_map(figures)
    except KeyError:
        return "-"


def verdict(links: Sequence[Link]) -> str:
    """In words: every link is within its budget, or which are not and why that usually is."""
    broken = _broken(links)
    if broken:
        return "Outside its budget:\n\n" + "\n".join(f"- {line}" for line in broken)
    return "Every link is within its budget (`export.budgets`; for the merged model `merge.max_relative_logit_diff`)."


def _plain(value: float | int | None) -> str:
    return "" if value is None else f"{value:.6g}" if isinstance(value, float) else str(value)
