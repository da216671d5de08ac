"""The GGUF's answers beside the tuned model's, on the same examples."""

import json
from pathlib import Path

import pytest

from tests.export.conftest import conversation
from tuneline.errors import DataError
from tuneline.evaluation.tasks.scoring import Score
from tuneline.export.answers import Judged, loss_metrics, read_reference, write_answers

EXAMPLES = [conversation(f"q{i}", f"a{i}") for i in range(4)]
RIGHT, WRONG = Score(True, True, None), Score(False, False, None)
RAN = Score(False, True, None)


def ended(*scores: Score) -> list[Judged]:
    return [Judged(score, ended=True) for score in scores]


def test_what_was_written_is_read_back_for_the_examples_asked_for(tmp_path: Path) -> None:
    scores = ended(RIGHT, WRONG, Score(False, False, "syntax: near x"), RAN)
    write_answers(tmp_path / "a.jsonl", EXAMPLES, ["a0", "x", "y", "z"], scores)
    assert read_reference(tmp_path / "a.jsonl", EXAMPLES[1:3]) == {
        EXAMPLES[1].id: scores[1],
        EXAMPLES[2].id: scores[2],
    }
    first = json.loads((tmp_path / "a.jsonl").read_text().splitlines()[0])
    assert (first["prompt"], first["expected"], first["predicted"], first["outcome"]) == ("q0", "a0", "a0", "correct")


def test_reference_of_another_test_split_is_refused(tmp_path: Path) -> None:
    write_answers(tmp_path / "a.jsonl", EXAMPLES[:2], ["", ""], ended(RIGHT, RIGHT))
    with pytest.raises(DataError, match=r"a\.jsonl: none of its answers .*run `dvc repro`"):
        read_reference(tmp_path / "a.jsonl", EXAMPLES[2:])


@pytest.mark.parametrize(
    "line", ["{}", "3", '{"id', '{"id": "a", "exact_match": 1, "execution_match": null, "error": null}']
)
def test_line_that_is_no_scored_answer_is_named(tmp_path: Path, line: str) -> None:
    (tmp_path / "a.jsonl").write_text(line + "\n")
    with pytest.raises(DataError, match=r"a\.jsonl:1: not a scored answer .*run `dvc repro`"):
        read_reference(tmp_path / "a.jsonl", EXAMPLES)


def test_drop_is_the_loss_of_execution_accuracy() -> None:
    metrics = loss_metrics(ended(RIGHT, WRONG, WRONG, RAN), ended(RIGHT, RIGHT, WRONG, RIGHT), 0.95)
    assert metrics["execution_accuracy"] == 0.5
    assert metrics["execution_accuracy_drop"] == 0.25
    assert metrics["exact_match"] == 0.25
    assert metrics["n_examples"] == 4
    assert metrics["execution_accuracy_ci95_low"] < 0.5 < metrics["execution_accuracy_ci95_high"]


def test_task_without_execution_drops_in_exact_match() -> None:
    right, wrong = Score(True, None, None), Score(False, None, None)
    metrics = loss_metrics(ended(right, wrong), ended(wrong, wrong), 0.95)
    assert metrics["exact_match_drop"] == -0.5
    assert not [key for key in metrics if "execution" in key]


def test_a_drop_of_one_in_a_hundred_is_within_a_budget_of_one_point() -> None:
    ours, theirs = [RIGHT] * 84 + [WRONG] * 16, [RIGHT] * 85 + [WRONG] * 15
    metrics = loss_metrics(ended(*ours), ended(*theirs), 0.95)
    assert metrics["execution_accuracy_drop"] <= 0.01


def test_paired_test_sees_the_answers_that_differ_only() -> None:
    """Six lost, one won: the exact two-sided p-value is 2 * (1 + 7) / 2**7."""
    ours = [WRONG] * 6 + [RIGHT] + [RIGHT] * 50
    theirs = [RIGHT] * 6 + [WRONG] + [RIGHT] * 50
    metrics = loss_metrics(ended(*ours), ended(*theirs), 0.95)
    assert (metrics["n_answers_lost"], metrics["n_answers_won"]) == (6, 1)
    assert metrics["execution_accuracy_drop_p_value"] == 2 * (1 + 7) / 2**7


def test_answers_that_run_on_are_counted_whatever_their_score() -> None:
    ours = [Judged(RIGHT, ended=False), Judged(RIGHT, ended=True)]
    metrics = loss_metrics(ours, ended(RIGHT, RIGHT), 0.95)
    assert (metrics["ended_fraction"], metrics["ended_fraction_reference"], metrics["ended_drop"]) == (0.5, 1, 0.5)
    assert metrics["execution_accuracy_drop"] == 0
