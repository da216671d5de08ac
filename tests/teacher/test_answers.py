"""From an answer to rows: what is used, what is rejected and why, and where each row says it comes from."""

import hashlib
import json
from pathlib import Path
from time import process_time
from typing import Any

import pytest

from tests.teacher.conftest import augment
from tuneline.config.schema import EndpointConfig, SourceConfig, TeacherJobConfig
from tuneline.data.record_files import write_examples
from tuneline.data.records import Example, Message, ToolCall, content_id, make_example
from tuneline.errors import DataError
from tuneline.teacher.answers import NewRows, metrics, new_rows
from tuneline.teacher.jobs import Task, plan
from tuneline.teacher.request import Reply


@pytest.fixture
def answered(tmp_path: Path, templates: Path, config: EndpointConfig) -> Any:
    """The rows that a job makes of one row and one answer."""

    def rows_of(
        job: TeacherJobConfig, example: Example, text: str, reason: str | None = "stop", prefix: str | None = None
    ) -> NewRows:
        path = tmp_path / "one.jsonl"
        write_examples(path, [example])
        source = SourceConfig.model_construct(name=example.source, task_prefix=prefix)
        tasks = plan(path, templates, augment(config, job), [source], 42, lambda _: True)
        return new_rows(tasks, {tasks[0].request.sha256: Reply(text, reason, None, 10, 5)})

    return rows_of


def all_tasks(examples: Path, templates: Path, config: EndpointConfig, *jobs: TeacherJobConfig) -> list[Task]:
    return plan(examples, templates, augment(config, *jobs), [], 42, lambda _: True)


def test_a_rewritten_answer_takes_the_place_of_the_last_one(
    answered: Any, rewrite: TeacherJobConfig, rows: list[Example]
) -> None:
    (new,) = answered(rewrite, rows[3], "  indeed \n").kept
    assert new.messages == (*rows[3].messages[:-1], Message("assistant", "indeed"))
    assert (new.source, new.line, new.file) == (rows[3].source, rows[3].line, rows[3].file)


def test_a_rewritten_prompt_takes_the_place_of_the_last_question_only(
    answered: Any, rewrite: TeacherJobConfig, templates: Path
) -> None:
    call = Message("assistant", "", (ToolCall("f", {"x": 1}),))
    turns = (Message("user", "a"), Message("assistant", "b"), Message("user", "c"), call, Message("tool", "1"))
    example = make_example("pool", 1, (*turns, Message("assistant", "d")), None, {})
    (new,) = answered(rewrite.model_copy(update={"target": "prompt"}), example, "C!").kept
    assert new.messages == (*turns[:2], Message("user", "C!"), *turns[3:], Message("assistant", "d"))


@pytest.mark.parametrize("kind", ["rewrite", "generate"])
def test_an_answer_with_half_a_character_is_rejected_as_it_came(
    answered: Any, rewrite: TeacherJobConfig, generate: TeacherJobConfig, rows: list[Example], kind: str
) -> None:
    text = "yes \udc9f" if kind == "rewrite" else '{"prompt": "a \udc9f", "completion": "b"}'
    found = answered(rewrite if kind == "rewrite" else generate, rows[3], text)
    assert not found.kept
    (lost,) = found.rejected
    assert (lost.rule, lost.row["answer"]) == ("encoding", text)


def test_every_new_row_says_where_it_comes_from(answered: Any, rewrite: TeacherJobConfig, rows: list[Example]) -> None:
    (new,) = answered(rewrite, rows[3], "indeed").kept
    origin = new.meta["teacher"]
    assert isinstance(origin, dict)
    assert set(origin) == {"job", "model", "template_sha256", "seed_row", "request_sha256"}
    assert (origin["job"], origin["model"], origin["seed_row"]) == ("reworded", "a-model", rows[3].id)
    assert origin["template_sha256"] == hashlib.sha256(b"{{ prompt }} | {{ answer }}\n").hexdigest()
    assert new.meta["database"] == "db3"
    assert new.id == content_id(new) != rows[3].id


@pytest.mark.parametrize("fence", ["{}", "```json\n{}\n```", "``` \r\n\n{}\n\n ```", "```\n{}\n```", "\n {} \n"])
def test_generated_rows_are_read_from_json(
    fence: str, answered: Any, generate: TeacherJobConfig, rows: list[Example]
) -> None:
    pairs = [{"prompt": "p1", "completion": "c1"}, {"prompt": "p2 ```", "completion": "c2"}]
    made = answered(generate, rows[0], fence.replace("{}", json.dumps(pairs)))
    system = Message("system", "be brief")
    assert [new.messages for new in made.kept] == [
        (system, Message("user", "p1"), Message("assistant", "c1")),
        (system, Message("user", "p2 ```"), Message("assistant", "c2")),
    ]
    (single,) = answered(generate, rows[0], fence.replace("{}", json.dumps(pairs[0]))).kept
    assert single.messages[1:] == (Message("user", "p1"), Message("assistant", "c1"))


def test_a_document_gives_conversations(answered: Any, generate: TeacherJobConfig, templates: Path) -> None:
    (templates / "ask.jinja").write_text("{{ text }}")
    text = make_example("pool", 1, (), "a document", {})
    (new,) = answered(generate, text, '{"prompt": "p", "completion": "c"}').kept
    assert (new.text, new.kind) == (None, "conversation")


@pytest.mark.parametrize(
    ("text", "rule", "reason"),
    [
        ("Sure! Here you are", "format", "not JSON: Expecting value at column 1"),
        ('{"prompt": "p", "completion": "c"} Done.', "format", "not JSON: more text at column 35"),
        ('{"prompt": "p", "completion": "c"', "format", "not JSON: "),
        ('{"prompt": "p"}', "format", '{"prompt": "p"}: allowed is {"prompt": text, "completion": text} or a list'),
        ('{"prompt": "p", "completion": 3}', "format", "allowed is"),
        ('{"prompt": "p", "completion": "c", "more": 1}', "format", "allowed is"),
        ('{"prompt": "p", "prompt": "q", "completion": "c"}', "format", "key 'prompt' occurs twice"),
        ('{"prompt": "p", "completion": NaN}', "format", "NaN is not JSON"),
        ('{"prompt": "\\ud800", "completion": "c"}', "format", "lone surrogate"),
        ("[" * 100_000, "format", "nested deeper than 64 levels"),
        ('"text"', "format", "allowed is"),
        ("null", "format", "allowed is"),
        ("[]", "empty", "the list holds no row"),
        ('{"prompt": " ", "completion": "c"}', "empty", "prompt or completion is empty"),
    ],
)
def test_an_answer_that_is_no_row_is_rejected_with_the_reason(
    text: str, rule: str, reason: str, answered: Any, generate: TeacherJobConfig, rows: list[Example]
) -> None:
    made = answered(generate, rows[3], text)
    assert made.kept == []
    (lost,) = made.rejected
    assert (lost.stage, lost.rule, lost.source, lost.line) == ("augment", rule, "pool", 4)
    assert reason in lost.reason
    assert lost.row["answer"] == text
    assert lost.row["teacher"]["seed_row"] == rows[3].id


@pytest.mark.parametrize("n_chars", range(35, 68))
def test_the_reason_holds_no_half_of_an_address(
    n_chars: int, answered: Any, generate: TeacherJobConfig, rows: list[Example]
) -> None:
    (lost,) = answered(
        generate, rows[3], json.dumps({"prompt": f"{'x' * n_chars} ann.smith@example-mail.com"})
    ).rejected
    assert lost.reason.endswith("or a list of them")
    assert "ann.smith" not in lost.reason


@pytest.mark.parametrize("end", ["done", "```done", "``"])
def test_an_answer_of_many_empty_lines_takes_no_time(
    end: str, answered: Any, generate: TeacherJobConfig, rows: list[Example]
) -> None:
    started = process_time()
    (lost,) = answered(generate, rows[3], "```json" + "\n" * 4000 + end).rejected
    assert process_time() - started < 2
    assert lost.rule == "format"


def test_a_bad_row_in_a_list_leaves_the_others(answered: Any, generate: TeacherJobConfig, rows: list[Example]) -> None:
    made = answered(generate, rows[0], '[{"prompt": "p", "completion": "c"}, 3, {"prompt": "q", "completion": "d"}]')
    assert [new.messages[1].content for new in made.kept] == ["p", "q"]
    assert [lost.rule for lost in made.rejected] == ["format"]


@pytest.mark.parametrize(
    ("text", "finish", "rule"),
    [
        ("indee", "length", "cut_off"),
        ("indeed", "content_filter", "stopped"),
        ("", "tool_calls", "stopped"),
        (" \n ", "stop", "empty"),
        (" yes 0 ", "stop", "unchanged"),
    ],
)
def test_an_answer_of_no_use_is_rejected(
    text: str, finish: str, rule: str, answered: Any, rewrite: TeacherJobConfig, rows: list[Example]
) -> None:
    made = answered(rewrite, rows[0], text, finish)
    assert made.kept == []
    assert [(lost.rule, lost.row["answer"]) for lost in made.rejected] == [(rule, text)]


def test_an_endpoint_that_does_not_say_why_it_ended_is_believed(
    answered: Any, rewrite: TeacherJobConfig, rows: list[Example]
) -> None:
    assert len(answered(rewrite, rows[0], "indeed", None).kept) == 1


def test_kept_and_rejected_are_all_rows_in_the_answers_and_all_are_counted(
    examples: Path, templates: Path, config: EndpointConfig, rewrite: TeacherJobConfig, generate: TeacherJobConfig
) -> None:
    tasks = all_tasks(examples, templates, config, rewrite, generate.model_copy(update={"n_rows": 5}))
    # both jobs ask the same here, so that the answers of the second one are those of the first
    texts = ["[1, 2]", '{"prompt": "p", "completion": "c"}', "plain"]
    digests = list(dict.fromkeys(task.request.sha256 for task in tasks))
    replies = {digest: Reply(texts[number % 3], "stop", None, 10, 5) for number, digest in enumerate(digests)}
    made = new_rows(tasks, replies)
    pool = SourceConfig.model_construct(name="pool")
    figures = metrics(made, tasks, replies, [rewrite, generate], [pool])
    assert figures["n_seed_rows"] == 17
    assert figures["n_requests"] == 12
    assert (figures["prompt_tokens"], figures["completion_tokens"]) == (120, 60)
    assert figures["n_kept"] + figures["n_rejected"] == figures["n_read"]
    assert (figures["n_kept"], figures["n_rejected"]) == (len(made.kept), len(made.rejected))
    assert figures["n_seed_rows_of_reworded"] == figures["n_kept_of_reworded"] == 12
    assert figures["n_seed_rows_of_invented"] == 5
    assert figures["n_kept_of_invented"] == figures["n_kept"] - 12
    assert figures["n_rejected_by_format"] == figures["n_rejected"]


def test_too_many_useless_answers_are_an_error_with_the_first_reason(
    answered: Any, rewrite: TeacherJobConfig, rows: list[Example], tmp_path: Path
) -> None:
    made = answered(rewrite, rows[0], "", "stop")
    with pytest.raises(DataError, match=r"1 of 1 rows rejected .* most often empty \(1\), first pool:1"):
        made.check(1.0, tmp_path / "rejected.jsonl")
    NewRows().check(0.0, tmp_path / "rejected.jsonl")


def test_a_generated_row_has_no_data_of_the_seed_row(
    answered: Any, generate: TeacherJobConfig, rows: list[Example]
) -> None:
    (new,) = answered(generate, rows[0], '{"prompt": "p", "completion": "c"}').kept
    assert set(new.meta) == {"teacher"}


@pytest.mark.parametrize("in_row", ["Task: SQL\n\n", "Task: SQL\n"])  # as ingest writes it, and as cleaning leaves it
@pytest.mark.parametrize(
    ("kind", "target", "answer", "expected"),
    [
        ("rewrite", "prompt", "How many?", "{}How many?"),
        ("rewrite", "answer", "SELECT 2", "{}Count them."),
        ("generate", None, '{"prompt": "p", "completion": "c"}', "Task: SQL\n\np"),
    ],
)
def test_a_new_row_has_the_task_prefix_of_its_source_once(
    in_row: str,
    kind: str,
    target: str | None,
    answer: str,
    expected: str,
    answered: Any,
    rewrite: TeacherJobConfig,
) -> None:
    job = rewrite.model_copy(update={"kind": kind, "target": target})
    turns = (Message("system", "s"), Message("user", f"{in_row}Count them."), Message("assistant", "SELECT 1"))
    (new,) = answered(job, make_example("pool", 1, turns, None, {}), answer, prefix="Task: SQL\n\n").kept
    assert [message.content for message in new.messages if message.role == "user"] == [expected.format(in_row)]


def test_a_question_that_is_repeated_without_its_task_prefix_is_unchanged(
    answered: Any, rewrite: TeacherJobConfig
) -> None:
    job = rewrite.model_copy(update={"target": "prompt"})
    asked = make_example("pool", 1, (Message("user", "SQL: Count."), Message("assistant", "1")), None, {})
    assert [lost.rule for lost in answered(job, asked, "Count.", prefix="SQL: ").rejected] == ["unchanged"]
