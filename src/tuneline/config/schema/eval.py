"""How base and tuned model are scored."""

from typing import Annotated, Literal

from pydantic import AfterValidator, Field

from tuneline.config.schema.section import Count, Positive, RepoPath, Strict, matching

EvalTask = Literal["text_to_sql", "exact_match"]
TaskName = Annotated[str, AfterValidator(matching(r"[A-Za-z0-9_][A-Za-z0-9_.-]*", "letters, digits, _ . and - only"))]
TaskNames = Annotated[tuple[TaskName, ...], Field(strict=False)]


class EvalConfig(Strict):
    """How base and tuned model are scored."""

    task: EvalTask
    resources: RepoPath  # what the task needs besides the rows (DVC watches it); a conf file when nothing
    max_new_tokens: Count  # tokens an answer may have
    confidence: Annotated[float, Field(gt=0, lt=1)]  # of the intervals
    statement_timeout_s: Positive  # seconds one predicted SQL statement may run
    max_examples: Count | None  # of the test split; null: all
    harness_tasks: TaskNames  # lm-eval task names; none: the harness stage does not exist
    harness_uncompared: TaskNames  # those of them whose rows the training rows may hold; no claim follows from them
    harness_limit: Count | None  # examples per lm-eval task; null: all
