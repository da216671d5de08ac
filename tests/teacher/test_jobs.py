"""Which rows the teacher sees."""

from functools import partial
from pathlib import Path
from random import Random

import pytest
from msgspec.structs import replace

from tests.teacher.conftest import augment, row, switched_off
from tuneline.config.schema import ContaminationConfig, EndpointConfig, SourceConfig, SplitConfig, TeacherJobConfig
from tuneline.data.record_files import write_examples
from tuneline.data.records import TEACHER_KEY, Example, Message, ToolCall, make_example, with_id
from tuneline.data.sides import is_trained_on
from tuneline.data.splitting import divide
from tuneline.errors import DataError
from tuneline.teacher.jobs import draw, plan

CALL = make_example("pool", 1, (Message("user", "q"), Message("assistant", "", (ToolCall("f", {}),))), None, {})
UNANSWERED = make_example("pool", 1, (Message("user", "q"),), None, {})
NO_QUESTION = make_example("pool", 1, (Message("assistant", "a"),), None, {})
TEXT = make_example("pool", 1, (), "a document", {})
NO_UTF8 = make_example("pool", 1, (Message("user", "q \ud800"), Message("assistant", "a")), None, {})


def test_only_rows_of_the_jobs_source_are_shown(rows: list[Example], rewrite: TeacherJobConfig) -> None:
    assert draw([*rows, row(50, "test"), row(51, "more")], rewrite, 42) == rows


def test_the_draw_depends_on_the_seed_and_not_on_the_order_or_other_sources(rewrite: TeacherJobConfig) -> None:
    rows = [row(number) for number in range(100)]
    job = rewrite.model_copy(update={"n_rows": 30})
    drawn = draw(rows, job, 42)
    assert len(drawn) == 30
    assert [example.line for example in drawn] == sorted(example.line for example in drawn)
    shuffled = [*rows, row(500, "test")]
    Random(1).shuffle(shuffled)
    assert {example.id for example in draw(shuffled, job, 42)} == {example.id for example in drawn}
    assert draw(rows, job, 43) != drawn


def test_a_larger_draw_holds_the_smaller_one(rewrite: TeacherJobConfig) -> None:
    rows = [row(number) for number in range(100)]
    few, many = (draw(rows, rewrite.model_copy(update={"n_rows": n_rows}), 42) for n_rows in (10, 30))
    assert {example.id for example in few} < {example.id for example in many}


def test_held_out_rows_are_never_shown_and_what_the_teacher_made_is_trained_on(
    tmp_path: Path, templates: Path, config: EndpointConfig, rewrite: TeacherJobConfig
) -> None:
    rows = [row(number) for number in range(300)]
    clean = tmp_path / "clean.jsonl"
    write_examples(clean, rows)
    settings = SplitConfig.model_construct(
        val_fraction=0.2, test_fraction=0.3, salt="tuneline",
        contamination=ContaminationConfig(action="drop", ngram=None, max_ngram_rows=10, min_jaccard=None),
    )  # fmt: skip
    job = rewrite.model_copy(update={"n_rows": None})
    tasks = plan(clean, templates, augment(config, job), [], 42, partial(is_trained_on, settings=settings))
    shown = {task.seed_row.id for task in tasks}
    made = [with_id(replace(task.seed_row, meta={TEACHER_KEY: {"seed_row": task.seed_row.id}})) for task in tasks]
    write_examples(tmp_path / "made.jsonl", made)
    source = SourceConfig.model_construct(name="pool", role="pool")
    files = [clean, tmp_path / "made.jsonl"]
    divided = divide(files, [source], settings, 1, tmp_path, lambda items, _: items)
    held_out = [index for side in ("val", "test") for index in divided.on(side)]
    assert 120 < len(held_out) < 180
    assert shown.isdisjoint(rows[index].id for index in held_out)  # all of them are rows of the first file
    assert len(shown) + len(held_out) == len(rows)


def test_rows_that_occur_twice_count_twice(rows: list[Example], rewrite: TeacherJobConfig) -> None:
    assert len(draw([rows[0], rows[0]], rewrite.model_copy(update={"n_rows": 2}), 42)) == 2


@pytest.mark.parametrize(
    ("kind", "target", "suited"),
    [("rewrite", "answer", []), ("rewrite", "prompt", [CALL]), ("generate", None, [CALL, TEXT])],
)
def test_a_kind_takes_the_rows_it_can_use(
    kind: str, target: str | None, suited: list[Example], rewrite: TeacherJobConfig
) -> None:
    job = rewrite.model_copy(update={"kind": kind, "target": target})
    assert draw([CALL, UNANSWERED, NO_QUESTION, TEXT, NO_UTF8], job, 42) == suited


def test_too_few_rows_are_an_error_and_no_smaller_result(
    examples: Path, templates: Path, config: EndpointConfig, rewrite: TeacherJobConfig
) -> None:
    greedy = rewrite.model_copy(update={"n_rows": 13})
    message = r"augment\.jobs\[1\]\.n_rows: 13, but source pool has 12 clean rows that kind rewrite can use; lower it"
    with pytest.raises(DataError, match=message):
        plan(examples, templates, augment(config, rewrite, greedy), [], 42, lambda _: True)
    elsewhere = rewrite.model_copy(update={"source": "nothing"})
    with pytest.raises(DataError, match="every row, but source nothing has 0 clean rows"):
        plan(examples, templates, augment(config, elsewhere), [], 42, lambda _: True)


def test_each_row_becomes_a_request_with_the_rendered_template(
    examples: Path, templates: Path, config: EndpointConfig, rewrite: TeacherJobConfig
) -> None:
    tasks = plan(examples, templates, augment(config, rewrite), [], 42, lambda _: True)
    assert [task.request.prompt for task in tasks] == [f"question {number} | yes {number}" for number in range(12)]


def test_the_teacher_does_not_see_the_task_prefix(
    tmp_path: Path, templates: Path, config: EndpointConfig, rewrite: TeacherJobConfig
) -> None:
    prefixed = make_example("pool", 1, (Message("user", "Task: Count."), Message("assistant", "1")), None, {})
    other = make_example("pool", 2, (Message("user", "Tasks are many."), Message("assistant", "2")), None, {})
    write_examples(tmp_path / "rows.jsonl", [prefixed, other])
    source = SourceConfig.model_construct(name="pool", task_prefix="Task: ")
    tasks = plan(tmp_path / "rows.jsonl", templates, augment(config, rewrite), [source], 42, lambda _: True)
    assert [task.request.prompt for task in tasks] == ["Count. | 1", "Tasks are many. | 2"]
    assert [task.task_prefix for task in tasks] == ["Task: ", ""]
    assert tasks[0].seed_row == prefixed


def test_without_jobs_nothing_is_read(tmp_path: Path) -> None:
    assert plan(tmp_path / "none.jsonl", tmp_path / "none", switched_off(), [], 42, lambda _: True) == []
