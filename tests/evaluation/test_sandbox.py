"""Hostile SQL can neither read what it should not, nor write, nor hang, nor fill memory."""

import pickle
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tuneline.errors import DataError
from tuneline.evaluation.sql import worker as worker_module
from tuneline.evaluation.sql.messages import MAX_MESSAGE_BYTES, encode, outcome_as_json, read_outcome
from tuneline.evaluation.sql.sandbox import (
    MAX_RESULT_BYTES,
    MAX_VALUE_BYTES,
    Failure,
    Result,
    Sandbox,
    ScriptError,
    Value,
)
from tuneline.evaluation.sql.worker import Query, SqlWorker

SCRIPT = """
CREATE TABLE singer (singer_id INTEGER PRIMARY KEY, name TEXT, age INTEGER, fee REAL);
INSERT INTO singer VALUES (1, 'Ann', 30, 9.5), (2, 'Bo', 41, NULL), (3, 'Cy', 30, 7.25);
CREATE INDEX by_age ON singer (age);
CREATE VIEW young AS SELECT name FROM singer WHERE age < 35;
"""


@pytest.fixture
def sandbox() -> Iterator[Sandbox]:
    box = Sandbox(SCRIPT)
    yield box
    box.close()


@pytest.fixture
def script(tmp_path: Path) -> Path:
    path = tmp_path / "concerts.sql"
    path.write_text(SCRIPT, encoding="utf-8")
    return path


def failure(sandbox: Sandbox, sql: str, timeout_s: float = 0.2) -> Failure:
    outcome = sandbox.run(sql, timeout_s, 10)
    assert isinstance(outcome, Failure), outcome
    return outcome


def rows(sandbox: Sandbox, sql: str) -> tuple[tuple[object, ...], ...]:
    outcome = sandbox.run(sql, 1.0, 100)
    assert isinstance(outcome, Result), outcome
    return outcome.rows


def contents(sandbox: Sandbox) -> list[tuple[tuple[object, ...], ...]]:
    """The schema and every row."""
    return [rows(sandbox, "SELECT * FROM sqlite_schema"), rows(sandbox, "SELECT * FROM singer")]


@pytest.mark.parametrize(
    ("sql", "expected"),
    [
        ("SELECT name FROM singer WHERE age = 30 ORDER BY name", (("Ann",), ("Cy",))),
        ("SELECT count(*), avg(fee) FROM singer", ((3, 8.375),)),
        ("SELECT name FROM young", (("Ann",), ("Cy",))),
        ("WITH old AS (SELECT * FROM singer WHERE age > 40) SELECT name FROM old;", (("Bo",),)),
        ("SELECT name, rank() OVER (ORDER BY age DESC) FROM singer LIMIT 1", (("Bo", 1),)),
        ("WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 3) SELECT i FROM n",
         ((1,), (2,), (3,))),
    ],
)  # fmt: skip
def test_a_select_gives_its_rows(sandbox: Sandbox, sql: str, expected: tuple[tuple[object, ...], ...]) -> None:
    assert rows(sandbox, sql) == expected


@pytest.mark.parametrize(
    "sql",
    [
        "DELETE FROM singer",
        "UPDATE singer SET age = 1",
        "INSERT INTO singer VALUES (9, 'Di', 20, 1)",
        "INSERT INTO singer VALUES (9, 'Di', 20, 1) RETURNING name",
        "REPLACE INTO singer VALUES (1, 'Di', 20, 1)",
        "WITH x AS (SELECT 1) DELETE FROM singer",
        "DROP TABLE singer",
        "ALTER TABLE singer ADD COLUMN x",
        "CREATE TABLE t (a)",
        "CREATE TEMP TABLE t AS SELECT * FROM singer",
        "CREATE TRIGGER t AFTER INSERT ON singer BEGIN DELETE FROM singer; END",
        "CREATE VIRTUAL TABLE t USING fts5(a)",
        "PRAGMA query_only = OFF",
        "PRAGMA writable_schema = ON",
        "SELECT * FROM pragma_database_list",
        "ATTACH DATABASE 'stolen.db' AS stolen",
        "VACUUM INTO 'stolen.db'",
        "DETACH DATABASE main",
        "BEGIN EXCLUSIVE",
        "SAVEPOINT s",
        "REINDEX",
        "ANALYZE",
        "SELECT load_extension('evil.so')",
        "SELECT random()",
        "SELECT randomblob(1000000000)",
        "SELECT zeroblob(1000000000)",
        "SELECT fts3_tokenizer('simple')",
        "SELECT name FROM singer; DROP TABLE singer",
    ],
)
def test_what_is_no_plain_select_is_forbidden_and_changes_nothing(
    sandbox: Sandbox, sql: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    before = contents(sandbox)
    assert failure(sandbox, sql).kind == "forbidden"
    assert contents(sandbox) == before
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("sql", "kind"),
    [
        ("SELEC name FROM singer", "syntax error"),
        ("SELECT name FROM singer WHERE (", "syntax error"),
        ("SELECT 'unclosed", "syntax error"),
        ("SELECT nme FROM singer", "unknown name"),
        ("SELECT name FROM singers", "unknown name"),
        ("SELECT frobnicate(name) FROM singer", "unknown name"),
        ("SELECT age FROM singer a JOIN singer b ON a.age = b.age", "unknown name"),
        ("SELECT count(name, age) FROM singer", "SQL error"),
        ("", "no query"),
        ("-- SELECT name FROM singer", "no query"),
        ("SELECT 1 \0", "SQL error"),
        ("SELECT '\ud800'", "SQL error"),
        ("SELECT 1 AS " + "a" * 20_000, "size limit"),
    ],
)
def test_a_broken_statement_is_a_kind_of_failure(sandbox: Sandbox, sql: str, kind: str) -> None:
    assert failure(sandbox, sql).kind == kind


@pytest.mark.parametrize(
    "sql",
    [
        "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT count(*) FROM n",
        "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i FROM n) SELECT i FROM n WHERE i > 1",
        "SELECT count(*) FROM " + ", ".join(f"singer s{i}" for i in range(30)),
    ],
)
def test_an_endless_query_ends_at_its_deadline(sandbox: Sandbox, sql: str) -> None:
    started = time.monotonic()
    assert failure(sandbox, sql).kind == "time limit"
    assert time.monotonic() - started < 1.0


@pytest.mark.parametrize(
    "sql",
    [
        "SELECT length(a) FROM (SELECT group_concat(s0.name, hex(s1.name)) AS a FROM "
        + ", ".join(f"singer s{i}" for i in range(13))
        + ")",
        "SELECT replace(hex(x), '0', hex(x)) FROM (SELECT char("
        + ",".join(["0"] * 100)
        + ") || name || replace(hex(name || name || name), '4', hex('"
        + "a" * 4000
        + "')) AS x FROM singer)",
    ],
)  # fmt: skip
def test_a_value_cannot_grow_beyond_its_limit(sandbox: Sandbox, sql: str) -> None:
    assert failure(sandbox, sql, timeout_s=5.0).kind == "size limit"


def test_a_result_is_cut_at_the_rows_asked_for(sandbox: Sandbox) -> None:
    endless = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT i FROM n"
    outcome = sandbox.run(endless, 1.0, 4)
    assert outcome == Result(((1,), (2,), (3,), (4,)), 1)


def test_many_large_rows_are_refused(sandbox: Sandbox) -> None:
    large = f"replace(hex(char({','.join(['0'] * 100)})), '0', '{'a' * 4000}')"
    assert MAX_VALUE_BYTES > 200 * 4000
    sql = f"WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT {large} FROM n"
    outcome = sandbox.run(sql, 5.0, 1_000)
    assert isinstance(outcome, Failure)
    assert outcome.kind == "size limit"


def test_an_empty_result_still_has_columns(sandbox: Sandbox) -> None:
    assert sandbox.run("SELECT name, age FROM singer WHERE age > 99", 1.0, 10) == Result((), 2)


def test_text_that_is_no_utf8_is_a_value(sandbox: Sandbox) -> None:
    assert rows(sandbox, "SELECT CAST(x'ff41' AS TEXT)") == (("\udcffA",),)


@pytest.mark.parametrize(
    "script",
    [
        "CREATE TABLE",
        "ATTACH DATABASE 'x.db' AS x",
        "SELECT load_extension('x')",
        "INSERT INTO missing VALUES (1)",
    ],
)
def test_a_script_that_fails_or_reaches_out_builds_nothing(
    script: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ScriptError):
        Sandbox(script)
    assert list(tmp_path.iterdir()) == []


def test_the_worker_answers_like_the_sandbox(script: Path) -> None:
    with SqlWorker(1.0) as worker:
        assert worker.run(Query(script, "SELECT name FROM young", 1)) == Result((("Ann",),), 1)
        assert worker.run(Query(script, "DROP TABLE singer", 1)) == Failure(
            "forbidden", "DELETE sqlite_master is not allowed"
        )


def test_the_worker_sends_every_value_as_it_is(script: Path) -> None:
    sql = (
        "SELECT 1, 1.0, '1', x'31', NULL, '', x'', -0.0, 0.1 + 0.2, 9e999, -9e999, 9223372036854775807, "
        "CAST(x'ff41' AS TEXT), '{\"blob\": \"31\"}', char(0, 128512)"
    )
    with SqlWorker(1.0) as worker:
        outcome = worker.run(Query(script, sql, 1))
    assert isinstance(outcome, Result)
    infinity = float("inf")
    expected = (
        1, 1.0, "1", b"1", None, "", b"", -0.0, 0.1 + 0.2, infinity, -infinity, 2**63 - 1,
        "\udcffA", '{"blob": "31"}', "\0\U0001f600",
    )  # fmt: skip
    assert [repr(value) for value in outcome.rows[0]] == [repr(value) for value in expected]  # 1 == 1.0, but not here


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf"), 5e-324, 2**63 - 1, b"\0\xff", "\ud800"])
def test_a_value_survives_the_way_through_json(value: Value) -> None:
    outcome = read_outcome(encode(outcome_as_json(Result(((value,),), 1))))
    assert isinstance(outcome, Result)
    assert repr(outcome.rows[0][0]) == repr(value)


def test_the_message_of_the_largest_result_is_within_its_limit() -> None:
    widest = len(encode("\U0001f600")) - len(encode(""))
    number = len(encode([[-sys.float_info.min]])) + len(", ")
    assert MAX_RESULT_BYTES * max(widest, number / 8) < MAX_MESSAGE_BYTES


class Planted:
    """Makes a file where it is unpickled."""

    def __init__(self, file: Path) -> None:
        self.file = file

    def __reduce__(self) -> tuple[object, ...]:
        return Path.touch, (self.file,)


BOOLEAN_ROW = b'{"rows": [[true]], "n_columns": 1}'
SHORT_ROW = b'{"rows": [[1, 2], [3]], "n_columns": 2}'
NO_HEX = b'{"rows": [[{"blob": "xy"}]], "n_columns": 1}'
GARBAGE = [b"", b"\xff\xfe", b"null", b"[" * 100_000, b'{"rows": 1}', b'{"kind": 1}', BOOLEAN_ROW, SHORT_ROW, NO_HEX]


@pytest.mark.parametrize("garbage", GARBAGE)
def test_bytes_that_are_no_answer_are_a_failure(script: Path, garbage: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(worker_module, "CHILD", child_that_sends(b'{"problem": null}', garbage))
    with SqlWorker(5.0) as worker:
        outcome = worker.run(Query(script, "SELECT 1", 1))
        assert isinstance(outcome, Failure)
        assert str(outcome).startswith("crash: SQLite's process sent what is no answer: ")
        monkeypatch.undo()
        assert worker.run(Query(script, "SELECT count(*) FROM singer", 1)) == Result(((3,),), 1)


@pytest.mark.parametrize("n_built", [0, 1])
def test_nothing_that_the_worker_sends_is_unpickled(
    script: Path, n_built: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pickled = pickle.dumps(Planted(tmp_path / "planted"))
    monkeypatch.setattr(worker_module, "CHILD", child_that_sends(*[b'{"problem": null}'] * n_built, pickled))
    with SqlWorker(5.0) as worker:
        outcome = worker.run(Query(script, "SELECT 1", 1))
    assert isinstance(outcome, Failure)
    assert outcome.kind == "crash"
    assert not (tmp_path / "planted").exists()
    pickle.loads(pickled)  # the trap does work
    assert (tmp_path / "planted").exists()


def test_a_message_beyond_its_limit_is_not_read(script: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(worker_module, "CHILD", child_that_sends(b'{"problem": null}', b" " * 1_000))
    monkeypatch.setattr(worker_module, "MAX_MESSAGE_BYTES", 999)
    with SqlWorker(5.0) as worker:
        assert worker.run(Query(script, "SELECT 1", 1)) == Failure("crash", "SQLite ended its process")


def test_a_script_that_never_ends_is_named_and_the_next_one_runs(
    script: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(worker_module, "BUILD_TIMEOUT_S", 3.0)
    endless = tmp_path / "endless.sql"
    numbers = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i FROM n) SELECT count(*) FROM n"
    endless.write_text(f"CREATE TABLE t AS {numbers};", encoding="utf-8")
    with SqlWorker(1.0) as worker:
        with pytest.raises(DataError, match=r"endless\.sql: .*takes more than 3 seconds"):
            worker.run(Query(endless, "SELECT 1", 1))
        assert worker.run(Query(script, "SELECT count(*) FROM singer", 1)) == Result(((3,),), 1)


def child_that_sends(*answers: bytes) -> str:
    """The code of a child process that answers one request after the other with these bytes."""
    return (
        "import sys; from multiprocessing.connection import Connection; pipe = Connection(int(sys.argv[1])); "
        f"[(pipe.recv_bytes(), pipe.send_bytes(answer)) for answer in {answers!r}]; pipe.recv_bytes()"
    )


def test_a_function_that_never_looks_up_is_ended_with_its_process_and_the_next_statement_runs(
    script: Path,
) -> None:
    long_loop = "SELECT " + " || ".join(["printf('%.*c', 2000000000, 'x')"] * 20)
    with SqlWorker(0.1) as worker:
        started = time.monotonic()
        assert worker.run(Query(script, long_loop, 1)) == Failure("time limit", "interrupted")
        assert time.monotonic() - started < 3.0
        assert worker.run(Query(script, "SELECT count(*) FROM singer", 1)) == Result(((3,),), 1)


@pytest.mark.slow
@pytest.mark.parametrize(
    "sql",
    [
        # doubles the compiler's work with every step: SQLite expands each use of a CTE
        "WITH a0 AS (SELECT 1 x), "
        + ", ".join(f"a{i} AS (SELECT p.x FROM a{i - 1} p, a{i - 1} q)" for i in range(1, 60))
        + " SELECT * FROM a59",
        # a sort of rows of a megabyte each
        "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT replace(hex(char("
        + ",".join(["0"] * 100) + f")), '0', '{'a' * 4000}') || i AS big FROM n ORDER BY big",
    ],
)  # fmt: skip
def test_a_query_that_fills_memory_fails_and_the_next_statement_runs(script: Path, sql: str) -> None:
    with SqlWorker(3.0) as worker:
        outcome = worker.run(Query(script, sql, 1))
        assert isinstance(outcome, Failure)
        assert outcome.kind in ("size limit", "time limit")
        assert worker.run(Query(script, "SELECT count(*) FROM singer", 1)) == Result(((3,),), 1)


def test_a_broken_script_is_named(tmp_path: Path) -> None:
    broken = tmp_path / "broken.sql"
    broken.write_text("CREATE TABLE t (a;", encoding="utf-8")
    with (
        SqlWorker(1.0) as worker,
        pytest.raises(DataError, match=r"broken\.sql: not a script SQLite can run"),
    ):
        worker.run(Query(broken, "SELECT 1", 1))
