"""From a teacher's answer to new rows; one that cannot be used is a rejected row with the answer as it came."""

import json
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from msgspec.structs import replace

from tuneline.config.schema import SourceConfig, TeacherJobConfig
from tuneline.data.accounting import Tally
from tuneline.data.conversation import with_task_prefix
from tuneline.data.pii import excerpt
from tuneline.data.records import TEACHER_KEY, Example, Json, Message, Rejected, as_json, with_id
from tuneline.data.strict_json import decoded, has_lone_surrogate
from tuneline.teacher.jobs import Task
from tuneline.teacher.request import Reply

RULES = ("refused", "cut_off", "stopped", "empty", "encoding", "unchanged", "format")
_BLANK = r"[^\S\n]*"  # on one line: white space over several could be divided in too many ways to try them all
_FENCE = re.compile(rf"```(?:json)?{_BLANK}\n(.*)\n{_BLANK}```", re.DOTALL)
_SHOWN_CHARS = 80


@dataclass(frozen=True, slots=True)
class _Unusable:
    rule: str
    reason: str


@dataclass(slots=True)
class NewRows:
    """What all answers gave; each row in an answer is kept or rejected."""

    kept: list[Example] = field(default_factory=list)
    rejected: list[Rejected] = field(default_factory=list)
    tally: Tally = field(default_factory=Tally)
    kept_by_job: Counter[str] = field(default_factory=Counter)

    def check(self, max_rejected_fraction: float, path: Path) -> None:
        """Raises `DataError` when too many rows are of no use; `path` holds the rejected ones. No answers: no check."""
        if self.kept or self.rejected:
            self.tally.check(max_rejected_fraction, "augment.max_rejected_fraction", path)


def new_rows(tasks: Iterable[Task], replies: Mapping[str, Reply]) -> NewRows:
    """The rows in the order of the tasks, whatever order the answers came in."""
    rows = NewRows()
    for task in tasks:
        reply = replies[task.request.sha256]
        for found in _rows(task, reply):
            if isinstance(found, Example):
                rows.kept.append(found)
                rows.tally.keep(found)
                rows.kept_by_job[task.job.name] += 1
            else:
                rows.rejected.append(_rejected(task, reply, found))
                rows.tally.reject(rows.rejected[-1])
    return rows


def metrics(
    rows: NewRows,
    tasks: Sequence[Task],
    replies: Mapping[str, Reply],
    jobs: Sequence[TeacherJobConfig],
    sources: Sequence[SourceConfig],
) -> dict[str, int | float]:
    """Counts of rows, and the tokens that all the answers cost when they were asked for, in this run or before."""
    seeds = Counter(task.job.name for task in tasks)
    figures = rows.tally.metrics(RULES, sources) | {
        "n_seed_rows": len(tasks),
        "n_requests": len(replies),
        "prompt_tokens": sum(reply.prompt_tokens or 0 for reply in replies.values()),
        "completion_tokens": sum(reply.completion_tokens or 0 for reply in replies.values()),
    }
    for job in jobs:
        figures |= {f"n_seed_rows_of_{job.name}": seeds[job.name], f"n_kept_of_{job.name}": rows.kept_by_job[job.name]}
    return figures


def _rows(task: Task, reply: Reply) -> Iterator[Example | _Unusable]:
    text = reply.text.strip()
    if (problem := _problem(reply, text)) is not None:
        yield problem
    elif task.job.kind == "generate":
        yield from _generated(task, text)
    else:
        yield _rewritten(task, text)


def _problem(reply: Reply, text: str) -> _Unusable | None:
    if reply.refusal is not None:
        return _Unusable("refused", reply.refusal)
    if reply.finish_reason == "length":
        return _Unusable("cut_off", "the answer was cut off; raise the job's max_tokens, or the server's context")
    if reply.finish_reason not in ("stop", None):
        return _Unusable("stopped", f"the endpoint ended the answer with {reply.finish_reason!r}")
    if not text:
        return _Unusable("empty", "the answer holds no text")
    if has_lone_surrogate(text):
        return _Unusable("encoding", "the answer holds half a character (a lone surrogate), which no tokenizer takes")
    return None


def _rewritten(task: Task, text: str) -> Example | _Unusable:
    messages = list(task.shown_row.messages)
    role = "assistant" if task.job.target == "answer" else "user"
    index = max(number for number, message in enumerate(messages) if message.role == role)
    if messages[index].content.strip() == text:
        return _Unusable("unchanged", f"the teacher repeats the {task.job.target} as it was")
    messages[index] = replace(messages[index], content=text)
    return _new_row(task, messages)


def _generated(task: Task, text: str) -> Iterator[Example | _Unusable]:
    """Rows with the system prompt of the seed row, which is what ingest gives the source's rows."""
    system = [message for message in task.seed_row.messages[:1] if message.role == "system"]
    parsed = _parsed(text)
    for item in parsed if isinstance(parsed, list) else [parsed]:
        match item:
            case _Unusable():
                yield item
            case {"prompt": str(prompt), "completion": str(completion), **rest} if not rest:
                turns = [Message("user", prompt), Message("assistant", completion)]
                is_whole = bool(prompt.strip() and completion.strip())
                yield (
                    _new_row(task, system + turns) if is_whole else _Unusable("empty", "prompt or completion is empty")
                )
            case _:
                allowed = 'allowed is {"prompt": text, "completion": text} or a list of them'
                yield _Unusable("format", f"{excerpt(json.dumps(item), _SHOWN_CHARS)}: {allowed}")


def _parsed(text: str) -> "Json | _Unusable":
    """The JSON that is the whole answer, but for a fence of ``` around it, which many models write."""
    fenced = _FENCE.fullmatch(text)
    body = fenced[1].strip() if fenced else text
    try:
        value = decoded(body)
    except ValueError as error:
        return _Unusable("format", str(error))
    return value if value != [] else _Unusable("empty", "the list holds no row")


def _new_row(task: Task, messages: Sequence[Message]) -> Example:
    """A row of the seed row's source and place, so that its file, line and mixture weight stay known.

    It begins with the source's task prefix, as the source's own rows do.
    """
    seed = task.seed_row
    tools = seed.tools if task.job.kind == "rewrite" else ()
    kept = seed.meta if task.job.kind == "rewrite" else {}  # the gold answer of another question is no use
    meta = {**kept, TEACHER_KEY: _origin(task)}
    prefixed = with_task_prefix(tuple(messages), task.task_prefix)
    return with_id(Example("", seed.source, seed.line, prefixed, None, meta, seed.file, tools))


def _origin(task: Task) -> dict[str, Json]:
    return {
        "job": task.job.name,
        "model": task.model,
        "template_sha256": task.template_sha256,
        "seed_row": task.seed_row.id,
        "request_sha256": task.request.sha256,
    }


def _rejected(task: Task, reply: Reply, problem: _Unusable) -> Rejected:
    seed = task.seed_row
    row: dict[str, Json] = {"answer": reply.text, "seed_row": as_json(seed), TEACHER_KEY: _origin(task)}
    return Rejected(seed.source, seed.line, "augment", problem.rule, problem.reason, row, seed.file)
