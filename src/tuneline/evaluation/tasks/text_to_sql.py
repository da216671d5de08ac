"""Execution accuracy: the predicted SQL is right when it gives the rows that the expected SQL gives.

As in Spider (Yu et al. 2018; test suites by Zhong et al. 2020) and BIRD (Li et al. 2023, section 4.2), on one
populated database per example. Rows are compared as a multiset, and in order only when the expected query has
an ORDER BY of its own; the order of columns counts, their names do not. Stricter than both in one point: an
empty result must have the right number of columns too. Ties under ORDER BY have no order in SQL, so a test
set should not ask for them.
"""

import math
import re
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from tuneline.errors import DataError
from tuneline.evaluation.sql.sandbox import Failure, Result, Row, Value
from tuneline.evaluation.sql.worker import Query, SqlWorker
from tuneline.evaluation.tasks.exact_match import folded
from tuneline.evaluation.tasks.scoring import Score

MAX_EXPECTED_ROWS = 10_000
RELATIVE_TOLERANCE = 1e-9  # sums of floats depend on the order of the rows
ABSOLUTE_TOLERANCE = 1e-9

FENCE = re.compile(r"```(?:sql|sqlite)?[ \t]*\n(.*?)(?:```|\Z)", re.DOTALL | re.IGNORECASE)
# What may hide the words ORDER BY: text, quoted names and comments.
OPAQUE = re.compile(r"'(?:[^']|'')*'|\"(?:[^\"]|\"\")*\"|`[^`]*`|\[[^\]]*\]|--[^\n]*|/\*.*?(?:\*/|\Z)", re.DOTALL)
INNERMOST_PARENTHESES = re.compile(r"\([^()]*\)")


@dataclass(frozen=True, slots=True)
class Question:
    """One example as this task needs it; `where` names its row in an error."""

    where: str
    database: str
    expected: str


@dataclass(frozen=True, slots=True)
class Expected:
    """What the expected SQL gave."""

    script: Path
    sql: str
    result: Result
    in_order: bool


class TextToSqlScorer:
    """Holds the results of the expected SQL and compares predictions with them."""

    def __init__(self, questions: Iterable[Question], resources: Path, statement_timeout_s: float) -> None:
        """Run every expected SQL. Raises `DataError` naming the row when one fails."""
        self._timeout_s = statement_timeout_s
        with SqlWorker(statement_timeout_s) as worker:
            self._expected = [_run_expected(worker, question, resources) for question in questions]

    def score(self, predictions: Sequence[str]) -> list[Score]:
        """Judge one prediction per question; each is SQL, or an answer with a fenced block of SQL in it."""
        with SqlWorker(self._timeout_s) as worker:
            pairs = zip(self._expected, predictions, strict=True)
            return [_score(worker, expected, extract_sql(predicted)) for expected, predicted in pairs]


def extract_sql(answer: str) -> str:
    """The first fenced block of an answer that has one (chat models like them), otherwise the answer."""
    fence = FENCE.search(answer)
    return (fence.group(1) if fence else answer).strip()


def folded_sql(sql: str) -> str:
    """SQL for exact match: white space folded, even in quotes, no trailing semicolons; case counts."""
    return folded(sql).rstrip("; ")


def is_ordered(sql: str) -> bool:
    """True when the outermost query has an ORDER BY: not one in a subquery, a CTE, a window or a text."""
    bare = OPAQUE.sub(" ", sql)
    while (flatter := INNERMOST_PARENTHESES.sub(" ", bare)) != bare:
        bare = flatter
    return re.search(r"\border\s+by\b", bare, re.IGNORECASE) is not None


def same_result(expected: Result, predicted: Result, in_order: bool) -> bool:
    """Equal rows, as a sequence or as a multiset. NULL equals NULL, 1 equals 1.0, '1' does not equal 1."""
    if expected.n_columns != predicted.n_columns or len(expected.rows) != len(predicted.rows):
        return False
    if in_order:
        return all(map(_same_row, expected.rows, predicted.rows))
    return _same_multiset(expected.rows, predicted.rows)


def _score(worker: SqlWorker, expected: Expected, sql: str) -> Score:
    exact = folded_sql(sql) == folded_sql(expected.sql)
    # one row more than expected is enough to know that there are too many
    outcome = worker.run(Query(expected.script, sql, len(expected.result.rows) + 1))
    if isinstance(outcome, Failure):
        return Score(exact, False, str(outcome))
    return Score(exact, same_result(expected.result, outcome, expected.in_order), None)


def _run_expected(worker: SqlWorker, question: Question, resources: Path) -> Expected:
    script = _script(question, resources)
    outcome = worker.run(Query(script, question.expected, MAX_EXPECTED_ROWS + 1))
    if isinstance(outcome, Failure):
        raise DataError(f"{question.where}: the expected SQL fails on {script}: {outcome}; fix the row or the script")
    if len(outcome.rows) > MAX_EXPECTED_ROWS:
        raise DataError(
            f"{question.where}: the expected SQL gives over {MAX_EXPECTED_ROWS} rows on {script}; add a LIMIT"
        )
    return Expected(script, question.expected, outcome, is_ordered(question.expected))


def _script(question: Question, resources: Path) -> Path:
    name = question.database
    if re.fullmatch(r"\w[\w.-]*", name, re.ASCII) is None:
        raise DataError(f"{question.where}: database {name!r} is no plain name of a script in {resources}")
    script = resources / f"{name}.sql"
    if not script.is_file():
        raise DataError(f"{question.where}: database {name!r} has no script {script}; add it or fix eval.resources")
    return script


def _same_multiset(expected: Sequence[Row], predicted: Sequence[Row]) -> bool:
    """Pairs rows that agree in everything but numbers, then the numbers in sorted order."""
    ours, theirs = _by_exact_part(expected), _by_exact_part(predicted)
    return ours.keys() == theirs.keys() and all(
        len(ours[part]) == len(theirs[part]) and all(map(_same_row, ours[part], theirs[part])) for part in ours
    )


def _by_exact_part(rows: Sequence[Row]) -> dict[tuple[object, ...], list[Row]]:
    groups = defaultdict[tuple[object, ...], list[Row]](list)
    for row in rows:
        groups[tuple("number" if _is_number(value) else (value,) for value in row)].append(row)
    return {part: sorted(members, key=_numbers) for part, members in groups.items()}


def _numbers(row: Row) -> tuple[int | float, ...]:
    # 9 digits: noise in a first column must not decide the order before a second column is looked at
    exact = tuple(value for value in row if isinstance(value, int | float))
    return *(float(f"{value:.9g}") for value in exact), *exact


def _same_row(ours: Row, theirs: Row) -> bool:
    return all(map(_same_value, ours, theirs))


def _same_value(ours: Value, theirs: Value) -> bool:
    if isinstance(ours, float) and isinstance(theirs, int | float):
        return math.isclose(ours, theirs, rel_tol=RELATIVE_TOLERANCE, abs_tol=ABSOLUTE_TOLERANCE)
    if isinstance(theirs, float) and isinstance(ours, int):
        return _same_value(theirs, ours)
    return ours == theirs


def _is_number(value: Value) -> bool:
    return isinstance(value, int | float)
