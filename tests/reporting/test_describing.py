"""The figures of the data report, against counts by hand."""

import csv
import json
import random
from pathlib import Path

import pytest

from tests.reporting.stage_files import EMAIL, PHONE, Files, count_words, dialogue, small_experiment
from tuneline.data.records import TEACHER_KEY, Example, Json, Message, make_example, rejection
from tuneline.errors import DataError
from tuneline.reporting.describing import Description, describe, metrics, write_report


def table(path: Path) -> list[list[str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.reader(file))


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the small experiment's report."""
    folder = tmp_path_factory.mktemp("experiment")
    return written(small_experiment().described(folder), folder / "report")


def written(found: Description, folder: Path) -> Path:
    folder.mkdir()
    write_report(found, folder)
    return folder


def test_counts_are_those_of_the_files(report: Path) -> None:
    counts = json.loads((report / "counts.json").read_text(encoding="utf-8"))
    expected = {
        "ingest_n_read": 12,
        "ingest_n_kept": 10,
        "ingest_n_rejected": 2,
        "ingest_n_rejected_by_reader": 1,
        "ingest_n_rejected_from_pool_by_format": 1,
        "ingest_n_kept_from_bench": 1,
        "clean_n_read": 10,
        "clean_n_kept": 6,
        "clean_n_rejected_by_exact_duplicates": 1,
        "split_n_read": 6,
        "split_n_kept": 4,
        "split_n_rejected_by_contamination": 1,
        "split_n_on_no_side": 1,  # the benchmark's row
        "split_n_repeated": 0,
        "split_n_train": 2,
        "split_n_test_from_test": 1,
        "split_n_test_from_pool": 0,
        "duplicates_n_clusters": 1,
        "duplicates_n_copies": 2,
        "duplicates_largest_cluster_rows": 3,
        "contamination_n_pairs": 2,
        "contamination_n_pairs_exact": 1,
        "train_characters_max": len("Is 1 even?") + len("yes"),
        "train_characters_median": len("Is 1 even?") + len("no"),
        "train_tokens_p95": 4,
        "val_words_max": 4,
    }
    assert {key: counts[key] for key in expected} == expected


def test_kept_and_rejected_add_up_in_every_stage_rule_and_source(report: Path) -> None:
    counts = json.loads((report / "counts.json").read_text(encoding="utf-8"))
    for stage in ("ingest", "clean"):
        assert counts[f"{stage}_n_read"] == counts[f"{stage}_n_kept"] + counts[f"{stage}_n_rejected"]
    assert counts["split_n_read"] + counts["split_n_repeated"] == (
        counts["split_n_kept"] + counts["split_n_rejected"] + counts["split_n_on_no_side"]
    )
    header, *rules = table(report / "rules.csv")
    assert header == ["stage", "rule", "source", "n"]
    n_by_stage = {stage: sum(int(row[3]) for row in rules if row[0] == stage) for stage in ("ingest", "clean", "split")}
    assert n_by_stage == {stage: counts[f"{stage}_n_rejected"] for stage in n_by_stage}


def test_the_waterfall_leads_from_rows_read_to_training_rows(files: Files, tmp_path: Path) -> None:
    flow = files.described(tmp_path).flow
    steps = list(flow.steps())
    assert flow.n_read + sum(step.change for step in steps) == len(files.sides["train"])
    assert [step.name for step in steps[-4:]] == ["contamination", "for the test", "for validation", "on no side"]


def test_repeated_training_rows_are_counted_beside_those_left_out(files: Files, tmp_path: Path) -> None:
    files.sides["train"] = [*files.sides["train"], *files.sides["train"][:1]]
    counts = metrics(files.described(tmp_path))
    assert (counts["split_n_repeated"], counts["split_n_on_no_side"]) == (1, 1)


def taught(line: int, question: str, answer: str) -> Example:
    messages = (Message("user", question), Message("assistant", answer))
    return make_example("pool", line, messages, None, {TEACHER_KEY: {"model": "m"}})


def test_rows_of_a_teacher_are_a_step_of_their_own(files: Files, tmp_path: Path) -> None:
    new = [taught(1, "Is one even?", "no"), taught(2, "Is two even?", "yes")]
    files.with_teacher = [*files.clean, *new]
    files.sides["train"] = [*files.sides["train"], *new]
    found = files.described(tmp_path)
    steps = {step.name: step.change for step in found.flow.steps()}
    assert steps["written by a teacher"] == 2
    assert "repeated" not in steps
    assert "dropped beside the teacher's rows" not in steps
    assert found.flow.n_read + sum(steps.values()) == 4
    counts = metrics(found)
    names = ("clean_n_read", "clean_n_kept", "clean_n_added", "split_n_read", "split_n_repeated")
    assert [counts[name] for name in names] == [10, 6, 2, 8, 0]


def test_clean_rows_dropped_beside_a_teachers_are_one_step(files: Files, tmp_path: Path) -> None:
    new = taught(1, "Is one even?", "no")
    files.with_teacher = [*files.clean[1:], new]
    files.sides["train"] = [files.clean[1], new]
    found = files.described(tmp_path)
    steps = {step.name: step.change for step in found.flow.steps()}
    assert (steps["written by a teacher"], steps["dropped beside the teacher's rows"]) == (1, -1)
    assert found.flow.n_read + sum(steps.values()) == 2
    counts = metrics(found)
    assert (counts["clean_n_dropped_beside_added"], counts["split_n_read"], counts["split_n_repeated"]) == (1, 6, 0)
    assert counts["split_n_read"] == counts["split_n_kept"] + counts["split_n_rejected"] + counts["split_n_on_no_side"]


def test_rows_rejected_behind_the_teacher_and_their_copies_are_reported(files: Files, tmp_path: Path) -> None:
    copied, private = taught(1, "Is one even?", "no"), taught(2, f"Write to {EMAIL}", "Done.")
    files.with_teacher = [*files.clean, taught(3, "Is two even?", "yes")]
    files.unusable = [rejection(private, "augment", "format", f"not JSON near {EMAIL}")]
    files.unclean_with_teacher = [rejection(copied, "clean", "exact_duplicates", "a copy of pool:1")]
    copy: dict[str, Json] = {"place": "pool:1", "rule": "exact_duplicates", "jaccard": 1.0}
    files.clusters_with_teacher = [{"kept": "pool:1", "kept_id": "0", "copies": [copy]}]
    found = files.described(tmp_path)
    counts = metrics(found)
    assert (counts["augment_n_rejected_by_format"], counts["clean_augmented_n_rejected_by_exact_duplicates"]) == (1, 1)
    assert (counts["duplicates_n_clusters"], counts["duplicates_n_copies"]) == (2, 3)
    folder = written(found, tmp_path / "report")
    assert ["augment", "format", "pool", "1"] in table(folder / "rules.csv")
    shown = (folder / "rejected.md").read_text(encoding="utf-8")
    assert "## augment: format" in shown
    assert "## clean_augmented: exact_duplicates" in shown
    assert EMAIL not in shown


def test_counts_come_from_the_reports_of_the_stages(files: Files, tmp_path: Path) -> None:
    """So the rows of ingest and clean need not be read again, nor be a dependency twice."""
    folders = files.write(tmp_path)
    files.ingested.pop()
    found = describe(folders, count_words, lambda rows, _: rows)
    assert found.flow.tallies["ingest"].kept == {"pool": 8, "test": 1, "bench": 1}  # "none" kept no row
    for written, reason in (("[]", "no metrics of a stage"), ("{", "no metrics of a stage"), (None, "No such file")):
        folders.clean_report.unlink() if written is None else folders.clean_report.write_text(written, "utf-8")
        with pytest.raises(DataError, match=rf"clean\.json: .*{reason}.*run the stage that writes"):
            describe(folders, count_words, lambda rows, _: rows)


def test_sources_have_a_row_each_with_every_stage(report: Path) -> None:
    assert table(report / "sources.csv") == [
        ["source", "read", "ingested", "clean", "train", "val", "test"],
        ["bench", "1", "1", "1", "0", "0", "0"],
        ["pool", "10", "8", "4", "2", "1", "0"],
        ["test", "1", "1", "1", "0", "0", "1"],
    ]


def test_lengths_are_in_bins_that_hold_every_row(report: Path) -> None:
    header, *bins = table(report / "lengths.csv")
    assert header[:3] == ["at_least", "below", "train_characters"]
    # 12 characters with "no", 13 with "yes"
    assert [row[:3] for row in bins if row[2] != "0"] == [["11", "13", "1"], ["13", "16", "1"]]
    for column, n_rows in ((2, 2), (3, 1), (4, 1), (5, 2), (8, 2)):
        assert sum(int(row[column]) for row in bins) == n_rows


@pytest.mark.slow
def test_labels_kinds_and_closed_answers_are_balanced_by_side(files: Files, tmp_path: Path) -> None:
    question = (Message("user", "Well?"), Message("assistant", "Fine."))
    labelled = [
        Example(f"{n:016x}", "kto", n, question, None, {}, label=label) for n, label in enumerate([True, True, False])
    ]
    closed = [dialogue("pool", n, f"Is {n} odd?", "yes" if n % 2 else "no") for n in range(5)]
    essays = [dialogue("essays", n, "Tell me", f"answer {n}") for n in range(50)]
    files.sides["train"] = [*labelled, *closed, *essays]
    rows = table(written(files.described(tmp_path), tmp_path / "report") / "labels.csv")
    assert rows == [
        ["source", "what", "value", "name", "train", "val", "test"],
        ["essays", "kind", "conversation", "essays: conversation", "50", "0", "0"],
        ["kto", "kind", "labelled", "kto: labelled", "3", "0", "0"],
        ["kto", "label", "desirable", "kto: desirable", "2", "0", "0"],
        ["kto", "label", "undesirable", "kto: undesirable", "1", "0", "0"],
        ["pool", "kind", "conversation", "pool: conversation", "5", "1", "0"],
        ["pool", "answer", "no", "pool: no", "3", "1", "0"],
        ["pool", "answer", "yes", "pool: yes", "2", "0", "0"],
        ["test", "kind", "conversation", "test: conversation", "0", "0", "1"],
    ]


def test_clusters_are_counted_by_size_and_the_largest_named(report: Path) -> None:
    assert table(report / "clusters.csv") == [["size", "n_clusters", "n_copies"], ["3", "1", "2"]]
    assert table(report / "largest_clusters.csv")[1] == [
        "3",
        "pool:3",
        "exact_duplicates near_duplicates",
        "0.875",
        "pool:5 pool:7",
    ]


def test_overlaps_are_listed_with_what_is_shared(report: Path) -> None:
    header, exact, near = table(report / "contamination.csv")
    assert header == ["kind", "row", "row_id", "held_out", "held_out_id", "jaccard", "shared"]
    assert exact[:2] + exact[5:] == ["exact", "pool:4", "", "mail <EMAIL> or call …"]  # not half a number
    assert near[3] + near[5] == "bench:10.9"


@pytest.mark.slow
def test_of_many_clusters_the_twenty_largest_are_named(files: Files, tmp_path: Path) -> None:
    files.clusters = [
        {
            "kept": f"pool:{n}",
            "kept_id": "0",
            "copies": [{"place": f"pool:{n}{k}", "rule": "exact_duplicates", "jaccard": 1.0} for k in range(n)],
        }
        for n in range(1, 31)
    ]
    folder = written(files.described(tmp_path), tmp_path / "report")
    rows = table(folder / "largest_clusters.csv")[1:]
    assert [int(row[0]) for row in rows] == list(range(31, 11, -1))
    assert rows[0][4].endswith(" and 20 more")
    assert sum(int(row[1]) for row in table(folder / "clusters.csv")[1:]) == 30


def test_no_file_of_the_report_holds_personal_data_or_control_characters(report: Path) -> None:
    for path in report.iterdir():
        if path.suffix != ".png":
            text = path.read_text(encoding="utf-8")
            assert EMAIL not in text, path
            assert PHONE not in text, path
            assert not [sign for sign in text if sign != "\n" and not sign.isprintable()], path
    sample = (report / "rejected.md").read_text(encoding="utf-8")
    assert "\\x1b[31m is\\u202e it?" in sample
    assert sample.count("EMAIL") + sample.count("PHONE") >= 5


def test_the_sample_is_the_same_in_any_order_and_without_repetition(files: Files, tmp_path: Path) -> None:
    rows = [dialogue("pool", n, f"Question {n}", "I cannot.") for n in range(60)]
    rows += [make_example("pool", 100 + n, rows[n].messages, None, {}) for n in range(60)]  # copies elsewhere
    shown = []
    for seed in range(3):
        random.Random(seed).shuffle(rows)
        files.unclean = [rejection(row, "clean", "refusals", f"declines as {row.line}") for row in rows]
        found = files.described(tmp_path / str(seed))
        shown.append([row for row in found.sample.rows(("ingest", "clean", "split")) if row.rule == "refusals"])
    assert shown[0] == shown[1] == shown[2]
    assert len({row.row for row in shown[0]}) == 5
    assert all(int(row.place.removeprefix("pool:")) < 60 for row in shown[0])  # not the copies


@pytest.mark.slow
def test_the_same_files_give_the_same_bytes(files: Files, tmp_path: Path) -> None:
    one = written(files.described(tmp_path / "a"), tmp_path / "one")
    other = written(files.described(tmp_path / "b"), tmp_path / "other")
    names = sorted(path.name for path in one.iterdir())
    assert names == sorted(path.name for path in other.iterdir())
    assert [name for name in names if (one / name).read_bytes() != (other / name).read_bytes()] == []


@pytest.mark.slow
def test_an_experiment_that_loses_nothing_has_a_report(files: Files, tmp_path: Path) -> None:
    files.unread, files.unclean, files.contaminated, files.clusters, files.pairs = [], [], [], [], []
    files.clean = files.ingested
    folder = written(files.described(tmp_path), tmp_path / "report")
    assert "No row was rejected." in (folder / "rejected.md").read_text(encoding="utf-8")
    assert (folder / "rejected.jsonl").read_bytes() == b""
    assert len(table(folder / "contamination.csv")) == 1


@pytest.mark.parametrize(
    ("name", "line", "problem"),
    [
        ("clean/clusters.jsonl", b'{"kept": "a:1", "copies": []}\n', r"clusters\.jsonl:1: not a cluster"),
        ("clean/clusters.jsonl", b'{"kept": "a:1", "copies": [{"place": 1}]}\n', r"clusters\.jsonl:1: not a copy"),
        ("splits/contamination.jsonl", b'{"row": "a:1"}\n', r"contamination\.jsonl:1: not an overlap"),
        ("splits/rejected.jsonl", b"[1]\n", r"rejected\.jsonl:1: not an object"),
    ],
)
def test_a_file_that_no_stage_wrote_is_refused_with_its_line(
    files: Files, name: str, line: bytes, problem: str, tmp_path: Path
) -> None:
    folders = files.write(tmp_path)
    (tmp_path / name).write_bytes(line)
    with pytest.raises(DataError, match=problem):
        describe(folders, count_words, lambda rows, _: rows)
