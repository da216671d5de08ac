"""One task of EleutherAI's lm-evaluation-harness on a model that is already loaded."""

import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tuneline.config.schema import ModelConfig
from tuneline.errors import DataError, EnvironmentProblem

if TYPE_CHECKING:
    from lm_eval.tasks import TaskManager  # type: ignore[import-untyped]  # lm-eval ships no types
    from peft import PeftModel
    from transformers import PreTrainedModel, PreTrainedTokenizerBase


def is_own_task(task: str, tasks_folder: Path) -> bool:
    """True for a task defined in `tasks_folder`, as `<task>.yaml`; others come with lm-eval."""
    return (tasks_folder / f"{task}.yaml").is_file()


def stay_offline_for(task: str, tasks_folder: Path, model: ModelConfig) -> None:
    """Make this process's Hugging Face libraries refuse the network, where task and model are both in the repository.

    Call it before they are imported.
    """
    if model.is_local and is_own_task(task, tasks_folder):
        os.environ["HF_HUB_OFFLINE"] = "1"
        os.environ["HF_DATASETS_OFFLINE"] = "1"


def find_task(task: str, tasks_folder: Path) -> "TaskManager":
    """The index that `task` is in, once its data has been read: whatever is wrong shows before a model loads.

    Raises `DataError` when neither `tasks_folder` nor lm-eval defines the task.
    """
    from datasets.exceptions import DatasetsError  # type: ignore[import-untyped]  # datasets ships no types
    from lm_eval.tasks import TaskManager

    # lm-eval's own index takes many seconds to build: there are more than ten thousand tasks
    tasks = TaskManager(include_path=str(tasks_folder), include_defaults=not is_own_task(task, tasks_folder))
    if task not in tasks.all_tasks:
        raise DataError(
            f"eval.harness_tasks: '{task}' is neither {tasks_folder}/{task}.yaml nor a task of lm-eval; "
            "`lm-eval ls tasks` lists those"
        )
    try:
        tasks.load([task])
    except (OSError, DatasetsError) as error:  # a missing or broken file, or no network
        raise EnvironmentProblem(f"lm-eval task '{task}': cannot read its data: {_cause(error)}") from error
    return tasks


def run_task(
    model: "PreTrainedModel | PeftModel",
    tokenizer: "PreTrainedTokenizerBase",
    task: str,
    tasks: "TaskManager",
    limit: int | None,
    batch_size: int,
    seed: int,
) -> dict[str, float | int]:
    """The task's metrics with their standard errors (`acc`, `acc_stderr`) and `n_examples`.

    Questions go through the model's chat template, as in training.
    """
    from lm_eval import simple_evaluate  # type: ignore[import-untyped]  # lm-eval ships no types
    from lm_eval.models.huggingface import HFLM  # type: ignore[import-untyped]  # as above

    results = simple_evaluate(
        model=HFLM(pretrained=model, tokenizer=tokenizer, batch_size=batch_size),
        tasks=[task],
        task_manager=tasks,
        limit=limit,
        apply_chat_template=True,
        log_samples=False,
        random_seed=seed,
        numpy_random_seed=seed,
        torch_random_seed=seed,
        fewshot_random_seed=seed,
    )
    return flat_metrics(results, task)


def flat_metrics(results: Mapping[str, Any], task: str) -> dict[str, float | int]:
    """lm-eval's results as one flat mapping: `acc,none` becomes `acc`, `em,strict-match` `em_strict_match`.

    Leaves out what is no number: a standard error that lm-eval could not estimate is "N/A".
    """
    metrics: dict[str, float | int] = {"n_examples": _n_examples(results, task)}
    for key, value in results["results"][task].items():
        if "," in key and isinstance(value, int | float):
            name, _, kind = key.partition(",")
            metrics[_plain(name if kind == "none" else f"{name}_{kind}")] = float(value)
    return metrics


def _n_examples(results: Mapping[str, Any], task: str) -> int:
    members = results["group_subtasks"].get(task) or [task]  # a group such as mmlu counts its tasks' rows
    return sum(int(results["n-samples"][member]["effective"]) for member in members if member in results["n-samples"])


def _plain(name: str) -> str:
    return re.sub(r"\W+", "_", name)


def _cause(error: BaseException) -> str:
    """The innermost message, on one line: what `datasets` says itself is that an error occurred."""
    while error.__cause__ is not None:
        error = error.__cause__
    return str(error).partition("\n")[0] or type(error).__name__
