"""When two results count as the same, and what a test row must be."""

import math
from pathlib import Path

import pytest

from tuneline.data.records import Example, Message, make_example
from tuneline.errors import DataError
from tuneline.evaluation.sql.sandbox import Result, Row
from tuneline.evaluation.tasks import make_scorer, score
from tuneline.evaluation.tasks.scoring import Score
from tuneline.evaluation.tasks.text_to_sql import extract_sql, folded_sql, is_ordered, same_result

SCRIPT = """
CREATE TABLE singer (name TEXT, age INTEGER);
INSERT INTO singer VALUES ('Ann', 30), ('Bo', 41), ('Cy', 30);
"""


@pytest.fixture
def resources(tmp_path: Path) -> Path:
    (tmp_path / "concerts.sql").write_text(SCRIPT, encoding="utf-8")
    return tmp_path


def question(sql: str, database: str | None = "concerts") -> Example:
    messages = (Message("user", "Which?"), Message("assistant", sql))
    return make_example("test", 7, messages, None, {} if database is None else {"database": database})


def judged(resources: Path, expected: str, predicted: str) -> Score:
    (only,) = score("text_to_sql", [question(expected)], [predicted], resources, 1.0)
    return only


def same(ours: list[Row], theirs: list[Row], *, in_order: bool = False) -> bool:
    return same_result(Result(tuple(ours), 1), Result(tuple(theirs), 1), in_order)


def test_rows_are_a_multiset() -> None:
    assert same([(1, "a"), (2, "b"), (1, "a")], [(1, "a"), (1, "a"), (2, "b")])
    assert not same([(1, "a"), (2, "b"), (1, "a")], [(1, "a"), (2, "b"), (2, "b")])
    assert not same([(1,)], [(1,), (1,)])


def test_order_counts_when_asked_for() -> None:
    assert not same([(1,), (2,)], [(2,), (1,)], in_order=True)
    assert same([(1,), (2,)], [(2,), (1,)], in_order=False)


def test_column_order_and_number_count() -> None:
    assert not same([(1, 2)], [(2, 1)])
    assert not same_result(Result((), 1), Result((), 2), in_order=False)


def test_null_equals_null_and_nothing_else() -> None:
    assert same([(None, 1)], [(None, 1)])
    assert not same([(None,)], [(0,)])
    assert not same([(None,)], [("",)])
    assert not same([(None,)], [("number",)])


def test_numbers_are_equal_up_to_the_noise_of_summation() -> None:
    assert same([(0.1 + 0.2,)], [(0.3,)])
    assert same([(1,)], [(1.0,)])
    assert same([(1.0,)], [(1,)], in_order=True)
    assert same([(math.inf,)], [(math.inf,)])
    assert not same([(0.3,)], [(0.3001,)])
    assert not same([(2**53,)], [(2**53 + 1,)])
    assert not same([("1",)], [(1,)])
    assert not same([(b"a",)], [("a",)])


def test_noise_in_the_first_column_does_not_reorder_rows() -> None:
    assert same([(0.1 + 0.2, 2.0), (0.3, 1.0)], [(0.1 + 0.2, 1.0), (0.3, 2.0)])


@pytest.mark.parametrize(
    "sql",
    [
        "SELECT name FROM singer ORDER BY age",
        "select name from singer order\n by age limit 1",
        "SELECT a FROM t UNION SELECT a FROM u ORDER BY 1",
        "WITH x AS (SELECT 1) SELECT * FROM x ORDER BY 1",
        "SELECT ')' FROM t ORDER BY 1",
    ],
)
def test_an_outer_order_by_makes_order_count(sql: str) -> None:
    assert is_ordered(sql)


@pytest.mark.parametrize(
    "sql",
    [
        "SELECT name FROM singer",
        "SELECT name FROM (SELECT name FROM singer ORDER BY (age) LIMIT 1)",
        "SELECT rank() OVER (PARTITION BY (a) ORDER BY b) FROM t",
        "SELECT 'it''s in order by age' FROM t",
        'SELECT "order by" FROM t',
        "SELECT name FROM singer -- order by age",
        "SELECT name /* order by */ FROM singer",
        "SELECT border by FROM t",
    ],
)
def test_an_order_by_elsewhere_does_not(sql: str) -> None:
    assert not is_ordered(sql)


def test_exact_match_folds_white_space_and_semicolons_but_not_case() -> None:
    assert folded_sql(" SELECT  a\nFROM t ; ") == folded_sql("SELECT a FROM t")
    assert folded_sql("select a FROM t") != folded_sql("SELECT a FROM t")


@pytest.mark.parametrize(
    ("answer", "sql"),
    [
        ("SELECT 1", "SELECT 1"),
        ("Sure:\n```sql\nSELECT 1;\n```\nIt counts.", "SELECT 1;"),
        ("```\nSELECT 1\n```", "SELECT 1"),
        ("```SQL\nSELECT 1", "SELECT 1"),
        ("SELECT '```'", "SELECT '```'"),
    ],
)
def test_sql_is_taken_out_of_a_fence(answer: str, sql: str) -> None:
    assert extract_sql(answer) == sql


def test_a_differently_written_query_with_the_same_rows_matches_by_execution_only(resources: Path) -> None:
    outcome = judged(resources, "SELECT name FROM singer WHERE age = 30", "SELECT name FROM singer WHERE age < 41")
    assert outcome == Score(exact_match=False, execution_match=True, error=None)
    assert outcome.outcome == "correct"


def test_the_expected_query_itself_matches_both_ways(resources: Path) -> None:
    sql = "SELECT name FROM singer ORDER BY age, name"
    assert judged(resources, sql, f"\n{sql};") == Score(True, True, None)


def test_more_rows_than_expected_are_wrong_even_when_endless(resources: Path) -> None:
    endless = "WITH RECURSIVE n(i) AS (SELECT 30 UNION ALL SELECT i FROM n) SELECT i FROM n"
    outcome = judged(resources, "SELECT age FROM singer", endless)
    assert outcome == Score(False, False, None)
    assert outcome.outcome == "wrong result"


def test_rows_in_another_order_are_wrong_only_under_order_by(resources: Path) -> None:
    descending = "SELECT name FROM singer ORDER BY name DESC"
    assert judged(resources, "SELECT name FROM singer", descending).is_correct
    assert not judged(resources, "SELECT name FROM singer ORDER BY name", descending).is_correct


def test_a_failing_prediction_is_wrong_and_says_why(resources: Path) -> None:
    outcome = judged(resources, "SELECT age FROM singer", "SELECT agee FROM singer")
    assert outcome == Score(False, False, "unknown name: no such column: agee")
    assert outcome.outcome == "unknown name"


def test_predictions_cannot_change_the_database_for_later_ones(resources: Path) -> None:
    examples = [question("SELECT count(*) FROM singer")] * 2
    hostile = ["DELETE FROM singer", "SELECT count(*) FROM singer"]
    assert [s.is_correct for s in score("text_to_sql", examples, hostile, resources, 1.0)] == [False, True]


def test_one_prediction_per_question_is_needed(resources: Path) -> None:
    with pytest.raises(ValueError, match="shorter"):
        score("text_to_sql", [question("SELECT 1")], [], resources, 1.0)


@pytest.mark.parametrize(
    ("example", "message"),
    [
        (question("SELECT nam FROM singer"), r"test:7 \(example [0-9a-f]{16}\): .*no such column"),
        (question("DELETE FROM singer"), r"test:7 .*forbidden"),
        (question("SELECT 1", database=None), r"test:7 .*no `database`.*data\.meta_fields"),
        (question("SELECT 1", database="opera"), r"test:7 .*'opera' has no script .*opera\.sql"),
        (question("SELECT 1", database="../concerts"), r"test:7 .*no plain name"),
        (question("SELECT 1 FROM singer" + ", singer" * 8), r"test:7 .*over 10000 rows"),
    ],
)  # fmt: skip
def test_a_row_that_cannot_be_judged_is_named_before_any_model_runs(
    resources: Path, example: Example, message: str
) -> None:
    with pytest.raises(DataError, match=message):
        make_scorer("text_to_sql", [example], resources, 1.0)


def test_exact_match_task_compares_text_apart_from_white_space(tmp_path: Path) -> None:
    examples = [question("two  words"), question("two words")]
    scores = score("exact_match", examples, ["two words\n", "Two words"], tmp_path, 1.0)
    assert scores == [Score(True, None, None), Score(False, None, None)]
    assert [s.outcome for s in scores] == ["correct", "wrong text"]
