"""The chain's reports: every link in its place, stale files left alone, what is outside told with its cause."""

import csv
import io
import json
from contextlib import nullcontext
from pathlib import Path

import pytest

from tuneline.commands.wiring import stages_of
from tuneline.config.params import read_params
from tuneline.config.schema import BudgetConfig, GgufType
from tuneline.errors import BudgetError, DataError
from tuneline.export.budget import check_link
from tuneline.export.chain import Link, chain_csv, chain_markdown, chain_metrics, check_chain, read_chain, sizes_csv
from tuneline.export.chain_picture import draw_chain, pareto
from tuneline.export.picking import pick
from tuneline.stages import parity

BUDGET = BudgetConfig(kl_mean_nats=0.01, top1_agreement=0.95, execution_accuracy_drop=0.02)
SCORE = {"execution_accuracy": 0.84, "execution_accuracy_ci95_low": 0.81, "execution_accuracy_ci95_high": 0.87}
SPEED_WORDS = ("second", "per_s", "load", "memory")


def gguf(size_mib: float, kl: float) -> dict[str, float]:
    return SCORE | {
        "size_mib": size_mib,
        "bits_per_weight": 8.5,
        "max_abs_logit_diff": 0.5,
        "mean_abs_logit_diff": 0.01,
        "kl_mean_nats": kl,
        "kl_median_nats": kl / 10,
        "kl_p99_nats": kl * 10,
        "top1_agreement": 0.99,
        "perplexity_ratio": 1.002,
        "perplexity_ratio_se": 0.0015,
        "ended_fraction": 1.0,
        "ended_drop": 0.0,
        "execution_accuracy_drop": 0.01,
        "execution_accuracy_drop_p_value": 0.5,
        "load_s": 3.0,
    }


@pytest.fixture
def reports(tmp_path: Path) -> Path:
    (tmp_path / "verify").mkdir()
    tuned = {f"tuned_{name}": value for name, value in SCORE.items()}
    write(tmp_path / "evaluate.json", tuned | {"base_execution_accuracy": 0.0})
    write(tmp_path / "merge.json", {"kl_mean_nats": 1e-12, "kl_p99_nats": 1e-11, "top1_agreement": 1.0, "size_mib": 15})
    paired = {"execution_accuracy_drop": 0.015, "execution_accuracy_drop_p_value": 0.25, "ended_fraction": 0.99}
    write(tmp_path / "evaluate_merged.json", SCORE | paired | {"n_examples": 600})
    for name, size, kl in (("f16", 7.6, 1e-6), ("q8_0", 4.0, 1e-3), ("q2_k", 1.5, 0.5)):
        write(tmp_path / "verify" / f"{name}.json", gguf(size, kl))
    return tmp_path


def write(path: Path, figures: dict[str, float]) -> None:
    path.write_text(json.dumps(figures))


def chain(reports: Path, types: tuple[GgufType, ...] = ("f16", "q8_0")) -> list[Link]:
    budgets: dict[GgufType, BudgetConfig] = dict.fromkeys(types, BUDGET)
    return read_chain(*paths_of(reports), types, budgets)


def paths_of(reports: Path) -> tuple[Path, Path, Path, Path]:
    """What read_chain takes, in its order."""
    files = (reports / "evaluate.json", reports / "merge.json", reports / "evaluate_merged.json")
    return (*files, reports / "verify")


def test_links_come_in_the_order_of_the_chain_without_files_of_an_earlier_list(reports: Path) -> None:
    assert [link.name for link in chain(reports)] == ["adapter", "merged", "f16", "q8_0"]


def test_the_adapter_in_a_file_of_its_own_is_the_last_link_when_it_is_asked_for(reports: Path) -> None:
    write(reports / "verify" / "lora_on_f16.json", gguf(8.0, 2e-6) | {"adapter_size_mib": 0.4})
    budgets: dict[GgufType, BudgetConfig] = {"f16": BUDGET}
    without, links = (read_chain(*paths_of(reports), ["f16"], budgets, lora_base) for lora_base in (None, "f16"))
    assert [link.name for link in without] == ["adapter", "merged", "f16"]
    assert "in a GGUF of its own" not in chain_markdown(without, 0.95)
    assert [(link.source, link.name) for link in links[2:]] == [("merged", "f16"), ("adapter", "lora_on_f16")]
    assert "| adapter -> lora_on_f16 | 8.0 |" in chain_markdown(links, 0.95)
    assert "lora_on_f16: the adapter in a GGUF of its own" in chain_markdown(links, 0.95)


def test_the_adapters_own_gguf_outside_its_budget_is_told_with_its_own_cause(reports: Path) -> None:
    write(reports / "verify" / "lora_on_f16.json", gguf(8.0, 0.5))
    budgets: dict[GgufType, BudgetConfig] = {"f16": BUDGET}
    message = r"adapter -> lora_on_f16: kl_mean_nats is 0\.5.*usual causes: an adapter GGUF with another scale"
    with pytest.raises(BudgetError, match=message):
        check_chain(read_chain(*paths_of(reports), ["f16"], budgets, "f16"), outtype="f16", all_within_budget=False)


def test_merged_model_has_its_score_and_the_paired_test_against_the_adapter(reports: Path) -> None:
    metrics = chain_metrics(chain(reports), 0.95)
    assert metrics["merged_execution_accuracy"] == SCORE["execution_accuracy"]
    assert metrics["merged_execution_accuracy_drop"] == 0.015
    assert metrics["merged_execution_accuracy_drop_p_value"] == 0.25
    (row,) = [line for line in chain_markdown(chain(reports), 0.95).splitlines() if "| adapter -> merged" in line]
    assert "84.0% (81.0% to 87.0%) | 1.50% (0.25) | 99.0%" in row


def test_metrics_are_flat_and_hold_nothing_of_the_clock(reports: Path) -> None:
    metrics = chain_metrics(chain(reports), 0.95)
    assert metrics["q8_0_kl_mean_nats"] == 1e-3
    assert metrics["merged_kl_mean_nats"] == 1e-12
    assert metrics["adapter_execution_accuracy"] == 0.84
    assert metrics["n_links_outside_budget"] == 0
    assert [name for name in metrics if any(word in name for word in SPEED_WORDS)] == []


def test_table_has_one_row_a_link_and_leaves_empty_what_was_not_measured(reports: Path) -> None:
    rows = list(csv.DictReader(io.StringIO(chain_csv(chain(reports), 0.95))))
    assert [(row["made_from"], row["link"]) for row in rows[:3]] == [
        ("training", "adapter"),
        ("adapter", "merged"),
        ("merged", "f16"),
    ]
    assert [row["kl_mean_nats"] for row in rows] == ["", "1e-12", "1e-06", "0.001"]


def test_every_row_that_dvc_plots_has_a_size_and_a_divergence(reports: Path) -> None:
    """An empty cell would be a point at zero."""
    write(reports / "verify" / "lora_on_f16.json", gguf(8.0, 2e-6))
    budgets: dict[GgufType, BudgetConfig] = dict.fromkeys(("f16", "q8_0"), BUDGET)
    links = read_chain(*paths_of(reports), ["f16", "q8_0"], budgets, "f16")
    rows = list(csv.DictReader(io.StringIO(sizes_csv(links))))
    plotted = [(row["link"], float(row["size_mib"]), float(row["kl_mean_nats"])) for row in rows]
    assert plotted == [("f16", 7.6, 1e-6), ("q8_0", 4.0, 1e-3), ("lora_on_f16", 8.0, 2e-6)]


def test_dvc_plots_the_columns_of_that_file(reports: Path) -> None:
    (plot,) = [plot for plot in stages_of(Path("dvc.yaml"))["parity"]["plots"] if "template" in str(plot)]
    (settings,) = plot.values()
    header = sizes_csv(chain(reports)).splitlines()[0].split(",")
    assert {settings["x"], settings["y"]} <= set(header)


def test_link_outside_its_budget_is_named_with_its_cause_in_one_line(reports: Path) -> None:
    links = chain(reports, ("f16", "q8_0", "q2_k"))
    with pytest.raises(BudgetError) as caught:
        check_chain(links, outtype="f16", all_within_budget=True)
    message = str(caught.value)
    assert "merged -> q2_k: kl_mean_nats is 0.5, kl_mean_nats allows 0.01; usual causes: the type is too" in message
    assert "q8_0:" not in message
    assert "\n" not in message
    text = chain_markdown(links, 0.95)
    assert [line.split(" | ")[-1] for line in text.splitlines() if "-> q" in line and line[0] == "|"] == [
        "within |",
        "OUTSIDE |",
    ]
    assert chain_metrics(links, 0.95)["n_links_outside_budget"] == 1


def test_a_type_that_pick_passes_over_is_shown_as_outside_and_does_not_end_the_chain(reports: Path) -> None:
    """The stages verify, parity and package over the same figures: what one lets through, the next does too."""
    types: tuple[GgufType, ...] = ("f16", "q8_0", "q2_k")
    budgets: dict[GgufType, BudgetConfig] = dict.fromkeys(types, BUDGET)
    files = {name: reports / "verify" / f"{name}.json" for name in types}
    figures: dict[str, dict[str, float]] = {name: json.loads(file.read_text()) for name, file in files.items()}
    for name in types:
        check_link(name, figures[name], BUDGET, outtype="f16", all_within_budget=False)
    links = chain(reports, types)
    check_chain(links, outtype="f16", all_within_budget=False)
    assert "OUTSIDE |" in chain_markdown(links, 0.95)
    assert pick("smallest_within_budget", types, figures, budgets) == "q8_0"


def test_the_converted_file_outside_its_budget_ends_the_chain_whatever_is_picked(reports: Path) -> None:
    write(reports / "verify" / "f16.json", gguf(7.6, 0.5))
    with pytest.raises(BudgetError, match=r"merged -> f16: kl_mean_nats is 0\.5"):
        check_chain(chain(reports), outtype="f16", all_within_budget=False)


def test_the_stage_parity_takes_the_rule_from_export_pick(reports: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    types: tuple[GgufType, ...] = ("f16", "q8_0", "q2_k")
    arguments = (
        f"--params params.yaml --evaluated {reports}/evaluate.json --merge-report {reports}/merge.json "
        f"--evaluated-merged {reports}/evaluate_merged.json --verified {reports}/verify "
        f"--metrics {reports}/m.json --table {reports}/t.csv --sizes {reports}/s.csv "
        f"--picture {reports}/p.png --text {reports}/t.md"
    )
    monkeypatch.setattr("sys.argv", ["parity", *arguments.split()])
    params = read_params(Path("params.yaml"))
    for held in (False, True):
        update = {"verified": types, "budgets": dict.fromkeys(types, BUDGET), "outtype": "f16", "lora_base": None}
        export = params.export.model_copy(update=update | {"all_within_budget": held})
        read = params.model_copy(update={"export": export})
        monkeypatch.setattr(parity, "read_params", lambda path, read=read: read)
        with pytest.raises(BudgetError, match="merged -> q2_k") if held else nullcontext():
            parity.main()
        assert json.loads((reports / "m.json").read_text())["n_links_outside_budget"] == 1


def test_text_shows_ratio_with_error_and_score_with_interval(reports: Path) -> None:
    text = chain_markdown(chain(reports), 0.95)
    assert "1.0020 ± 0.0015" in text
    assert "84.0% (81.0% to 87.0%)" in text
    assert "Every link is within its budget" in text
    check_chain(chain(reports), outtype="f16", all_within_budget=True)


def test_text_says_what_changing_the_base_after_qlora_cost(reports: Path) -> None:
    assert "QLoRA" not in chain_markdown(chain(reports), 0.95)
    figures = json.loads((reports / "merge.json").read_text())
    found = {"four_bit_kl_mean_nats": 0.0123, "four_bit_kl_p99_nats": 0.2, "four_bit_top1_agreement": 0.9712}
    write(reports / "merge.json", figures | found)
    assert "KL 0.012 nats in the mean" in chain_markdown(chain(reports), 0.95)


@pytest.mark.parametrize("content", ["[]", '{"a": "b"}', "{"])
def test_report_that_is_none_is_named(reports: Path, content: str) -> None:
    (reports / "verify" / "q8_0.json").write_text(content)
    with pytest.raises(DataError, match=r"q8_0\.json: .*run `dvc repro`"):
        chain(reports)


def test_report_of_an_earlier_release_is_refused_with_what_it_lacks(reports: Path) -> None:
    figures = gguf(4.0, 1e-3)
    del figures["ended_drop"]
    write(reports / "verify" / "q8_0.json", figures)
    with pytest.raises(DataError, match=r"q8_0\.json: it lacks ended_drop"):
        chain(reports)


def test_file_that_a_smaller_one_beats_is_not_on_the_pareto_line() -> None:
    sizes_and_losses = [(1.0, 0.5), (2.0, 0.1), (3.0, 0.2), (4.0, 0.1), (5.0, 0.01)]
    files = [Link("merged", str(size), gguf(size, kl), BUDGET) for size, kl in sizes_and_losses]
    assert [link.name for link in pareto(files)] == ["1.0", "2.0", "5.0"]


def test_same_figures_give_the_same_picture(reports: Path) -> None:
    for name in ("a.png", "b.png"):
        draw_chain(reports / name, chain(reports, ("f16", "q8_0", "q2_k")), 0.95)
    assert (reports / "a.png").read_bytes() == (reports / "b.png").read_bytes()
