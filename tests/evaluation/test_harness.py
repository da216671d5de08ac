"""What of lm-eval's results becomes a metric, and which tasks there are."""

import os
from pathlib import Path

import pytest

from tuneline.config.schema import ModelConfig
from tuneline.errors import DataError
from tuneline.evaluation.harness import find_task, flat_metrics, is_own_task, stay_offline_for

TASKS = Path("conf/harness")


def results(**values: object) -> dict[str, object]:
    return {
        "results": {"t": {"alias": "t", "sample_len": 7, **values}},
        "group_subtasks": {"t": []},
        "n-samples": {"t": {"original": 9, "effective": 7}},
    }


def test_filters_are_named_only_when_there_is_one() -> None:
    metrics = flat_metrics(results(**{"acc,none": 0.5, "exact_match,strict-match": 0.25}), "t")
    assert metrics == {"n_examples": 7, "acc": 0.5, "exact_match_strict_match": 0.25}


def test_a_standard_error_that_is_not_known_is_left_out() -> None:
    metrics = flat_metrics(results(**{"acc,none": 0.5, "acc_stderr,none": "N/A"}), "t")
    assert metrics == {"n_examples": 7, "acc": 0.5}


def test_a_group_counts_the_examples_of_its_tasks() -> None:
    group = {
        "results": {"g": {"alias": "g", "acc,none": 0.5}},
        "group_subtasks": {"g": ["a", "b"]},
        "n-samples": {"a": {"effective": 2}, "b": {"effective": 3}},
    }
    assert flat_metrics(group, "g") == {"n_examples": 5, "acc": 0.5}


def test_every_own_task_is_named_like_its_file() -> None:
    files = sorted(TASKS.glob("*.yaml"))
    assert files
    for file in files:
        assert f"task: {file.stem}\n" in file.read_text(encoding="utf-8")
        assert is_own_task(file.stem, TASKS)


@pytest.mark.parametrize(
    ("task", "base", "offline"),
    [("sql_next", "models/base", "1"), ("sql_next", "Qwen/Qwen3-8B", "0"), ("mmlu", "models/base", "0")],
)
def test_the_network_is_off_only_where_task_and_model_are_in_the_repository(
    task: str, base: str, offline: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for switch in ("HF_HUB_OFFLINE", "HF_DATASETS_OFFLINE"):
        monkeypatch.setenv(switch, "0")
    stay_offline_for(task, TASKS, ModelConfig.model_construct(name_or_path=base, tracked_path="models/base"))
    assert os.environ["HF_HUB_OFFLINE"] == os.environ["HF_DATASETS_OFFLINE"] == offline


@pytest.mark.slow
def test_an_unknown_task_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    import lm_eval.tasks  # type: ignore[import-untyped]  # lm-eval ships no types

    # building lm-eval's own index takes the better part of a minute, and does not know the task either
    only_own = lm_eval.tasks.TaskManager(include_path=str(TASKS), include_defaults=False)
    monkeypatch.setattr(lm_eval.tasks, "TaskManager", lambda **_: only_own)
    with pytest.raises(DataError, match=r"eval\.harness_tasks: 'sql_nxt' is neither .* nor a task of lm-eval"):
        find_task("sql_nxt", TASKS)
