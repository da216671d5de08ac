"""Which rows the teacher sees, and what it is asked about each."""

import hashlib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from heapq import nsmallest
from pathlib import Path

from msgspec.structs import replace

from tuneline.config.schema import AugmentConfig, EndpointConfig, SourceConfig, TeacherJobConfig
from tuneline.data.conversation import without_task_prefix
from tuneline.data.record_files import iterate_examples
from tuneline.data.records import Example, contents
from tuneline.data.strict_json import has_lone_surrogate
from tuneline.errors import DataError
from tuneline.teacher.request import Request, make_request
from tuneline.teacher.templates import Template, load_template, render


@dataclass(frozen=True, slots=True)
class Task:
    """One row, and the request about it."""

    job: TeacherJobConfig
    model: str
    template_sha256: str
    seed_row: Example
    shown_row: Example  # the same without the source's task prefix, which is ours and not to be written again
    task_prefix: str  # what was taken off, and goes before the new row's first user message; "" for none
    request: Request


def plan(
    examples: Path,
    templates: Path,
    augment: AugmentConfig,
    sources: Sequence[SourceConfig],
    seed: int,
    may_be_shown: Callable[[Example], bool],
) -> list[Task]:
    """Every request of the jobs in their order, a job's rows in the order of the file. No job: nothing is read.

    The teacher sees rows that `may_be_shown` lets pass: those that will be trained on, as what it makes of others
    would carry held-out rows into training.
    Raises `DataError` for a source with too few rows, `ConfigError` for a template.
    """
    tasks: list[Task] = []
    prefixes = {source.name: source.task_prefix for source in sources}
    if augment.endpoint is not None:
        for index, job in enumerate(augment.jobs):
            template = load_template(templates, job.template)
            rows = draw(filter(may_be_shown, iterate_examples(examples)), job, seed)
            _check_number(f"augment.jobs[{index}]", job, len(rows))
            tasks += [_task(job, augment.endpoint, template, row, prefixes.get(job.source), seed) for row in rows]
    return tasks


def draw(examples: Iterable[Example], job: TeacherJobConfig, seed: int) -> list[Example]:
    """The job's rows in their order; which ones depends on seed and ids, not on the order of the rows."""
    suitable = ((number, example) for number, example in enumerate(examples) if _suits(example, job))
    if job.n_rows is None:
        return [example for _, example in suitable]
    drawn = nsmallest(job.n_rows, suitable, key=lambda row: (_lot(seed, row[1].id), row[0]))
    return [example for _, example in sorted(drawn, key=lambda row: row[0])]


def _lot(seed: int, row_id: str) -> bytes:
    return hashlib.sha256(f"{seed}\0{row_id}".encode()).digest()


def _suits(example: Example, job: TeacherJobConfig) -> bool:
    """A text that is not UTF-8 cannot be sent; an answer that calls a tool has no text to rewrite."""
    if example.source != job.source or has_lone_surrogate([*contents(example)]):
        return False
    is_conversation = example.kind == "conversation" and any(message.role == "user" for message in example.messages)
    match job.kind, job.target:
        case "generate", _:
            return is_conversation or example.kind == "text"
        case "rewrite", "prompt":
            return is_conversation
    return is_conversation and not example.messages[-1].tool_calls


def _check_number(key: str, job: TeacherJobConfig, n_rows: int) -> None:
    if n_rows < (job.n_rows or 1):
        wanted = "every row" if job.n_rows is None else f"{job.n_rows}"
        raise DataError(
            f"{key}.n_rows: {wanted}, but source {job.source} has {n_rows} clean rows that kind {job.kind} can use;"
            " lower it, or choose another source"
        )


def _task(
    job: TeacherJobConfig,
    endpoint: EndpointConfig,
    template: Template,
    row: Example,
    task_prefix: str | None,
    seed: int,
) -> Task:
    messages, found = without_task_prefix(row.messages, task_prefix)
    shown = replace(row, messages=messages)
    request = make_request(render(template, shown), endpoint, job, seed)
    added = (task_prefix or "") if job.kind == "generate" else found
    return Task(job, endpoint.model, template.sha256, row, shown, added, request)
