"""How answers are judged: `make_scorer` once per set of examples, then `score` for each model."""

from collections.abc import Sequence
from pathlib import Path

from tuneline.config.schema import EvalTask
from tuneline.data.records import Example
from tuneline.errors import DataError
from tuneline.evaluation.heldout import expected_answer, place
from tuneline.evaluation.tasks.exact_match import ExactMatchScorer
from tuneline.evaluation.tasks.scoring import Score, Scorer
from tuneline.evaluation.tasks.text_to_sql import Question, TextToSqlScorer


def make_scorer(task: EvalTask, examples: Sequence[Example], resources: Path, statement_timeout_s: float) -> Scorer:
    """Check what the examples expect (`DataError` names the row) and be ready to judge answers to them."""
    match task:
        case "exact_match":
            return ExactMatchScorer([expected_answer(example) for example in examples])
        case "text_to_sql":
            questions = [Question(place(example), _database(example), expected_answer(example)) for example in examples]
            return TextToSqlScorer(questions, resources, statement_timeout_s)


def score(
    task: EvalTask,
    examples: Sequence[Example],
    predictions: Sequence[str],
    resources: Path,
    statement_timeout_s: float,
) -> list[Score]:
    """Judge one prediction per example, in order."""
    return make_scorer(task, examples, resources, statement_timeout_s).score(predictions)


def _database(example: Example) -> str:
    match example.meta:
        case {"database": str() as name}:
            return name
    raise DataError(f"{place(example)}: no `database` to run SQL on; add it to data.meta_fields and to the row")
