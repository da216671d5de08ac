"""The task, and the tasks of lm-eval."""

from collections.abc import Iterator

from tuneline.config.rules.wording import listed, refused
from tuneline.config.schema import EvalConfig, Params


def eval_rules(params: Params) -> Iterator[str]:
    if params.eval.task == "text_to_sql" and "database" not in params.data.meta_fields:
        allowed = "needs 'database' in data.meta_fields, to know where a query runs; choose eval=exact_match"
        yield f"eval.task: 'text_to_sql' {allowed}"
    if params.eval.max_new_tokens >= params.export.n_ctx:
        allowed = f"is less than export.n_ctx = {params.export.n_ctx}, which holds prompt and answer"
        yield refused("eval.max_new_tokens", params.eval.max_new_tokens, allowed)
    if len(set(params.eval.harness_tasks)) < len(params.eval.harness_tasks):
        yield refused("eval.harness_tasks", listed(params.eval.harness_tasks), "is each task once")
    yield from _harness_rows(params.eval, [source.name for source in params.data.sources if source.role == "benchmark"])


def _harness_rows(settings: EvalConfig, benchmarks: list[str]) -> Iterator[str]:
    """lm-eval reads its tasks' rows by itself: what is trained on can only be compared with those that are a source."""
    for task in dict.fromkeys(settings.harness_tasks):
        if task not in benchmarks and task not in settings.harness_uncompared:
            yield (
                f"eval.harness_tasks: '{task}' is compared with no training row, allowed is a task whose rows are a"
                f" source with role benchmark and name {task}; add it to data.sources, or the task to"
                " eval.harness_uncompared"
            )
    for task in settings.harness_uncompared:
        if task not in settings.harness_tasks or task in benchmarks:
            allowed = "is a task of eval.harness_tasks whose rows are no benchmark source; take it out"
            yield refused("eval.harness_uncompared", task, allowed)
