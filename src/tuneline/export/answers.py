"""What a GGUF answered, and what the tuned model answered to the same examples."""

import contextlib
import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from tuneline.data.records import Example, Json
from tuneline.errors import DataError
from tuneline.evaluation.heldout import expected_answer, prompt_messages
from tuneline.evaluation.metrics import Metrics, score_metrics, score_name
from tuneline.evaluation.tasks.scoring import Score
from tuneline.output import write_text


def read_reference(path: Path, examples: Iterable[Example]) -> dict[str, Score]:
    """The tuned model's scores by example id, of those `examples` that it was evaluated on.

    Raises `DataError` when there is none, or with file:line for a line that is no scored answer.
    """
    wanted = {example.id for example in examples}
    lines = path.read_text(encoding="utf-8").split("\n")
    scores = dict(_scored(line, f"{path}:{number}") for number, line in enumerate(lines, 1) if line)
    found = {id_: score for id_, score in scores.items() if id_ in wanted}
    if not found:
        raise DataError(f"{path}: none of its answers is to an example of the test split; run evaluate again")
    return found


def _scored(line: str, place: str) -> tuple[str, Score]:
    with contextlib.suppress(ValueError):  # a line that is no JSON, because it was cut off for example
        match json.loads(line):
            case {
                "id": str(id_),
                "exact_match": bool(exact),
                "execution_match": None | bool() as execution,
                "error": None | str() as error,
            }:
                return id_, Score(exact, execution, error)
    raise DataError(f"{place}: not a scored answer (id, exact_match, execution_match, error); run evaluate again")


def loss_metrics(scores: Sequence[Score], reference: Sequence[Score], confidence: float) -> Metrics:
    """The task's scores with intervals, and how much of its own score the tuned model had more (`..._drop`)."""
    name = score_name(scores)
    metrics = score_metrics(scores, confidence)
    # counted, then divided: 0.85 - 0.84 is more than 0.01 in floating point, and a budget of 0.01 would refuse it
    lost = sum(score.is_correct for score in reference) - sum(score.is_correct for score in scores)
    drop = lost / len(reference)
    return metrics | {f"{name}_drop": drop, "n_examples": len(scores)}


def write_answers(path: Path, examples: Iterable[Example], answers: Iterable[str], scores: Iterable[Score]) -> None:
    """One JSON object a line, in the order of the examples."""
    rows = map(_as_json, examples, answers, scores)
    write_text(path, "".join(json.dumps(row, ensure_ascii=False, sort_keys=True) + "\n" for row in rows))


def _as_json(example: Example, answer: str, score: Score) -> Mapping[str, Json]:
    return {
        "id": example.id,
        "meta": dict(example.meta),
        "prompt": "\n\n".join(message.content for message in prompt_messages(example)),
        "expected": expected_answer(example),
        "predicted": answer,
        "outcome": score.outcome,
        "exact_match": score.exact_match,
        "execution_match": score.execution_match,
        "error": score.error,
    }
