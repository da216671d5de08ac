"""What a GGUF or the merged model answered, and what the model that it was made from answered to the same examples."""

import contextlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from tuneline.data.records import Example, Json
from tuneline.errors import DataError
from tuneline.evaluation.heldout import expected_answer, prompt_messages
from tuneline.evaluation.metrics import Metrics, score_metrics
from tuneline.evaluation.names import score_name
from tuneline.evaluation.statistics import discordant_pairs, mcnemar_p_value
from tuneline.evaluation.tasks.scoring import Score
from tuneline.output import write_text


@dataclass(frozen=True, slots=True)
class Judged:
    """One answer's score, and whether a token of the model's own `ended` it, before eval.max_new_tokens did."""

    score: Score
    ended: bool


def read_reference(path: Path, examples: Iterable[Example]) -> dict[str, Judged]:
    """A model's scored answers by example id, of those `examples` that it was evaluated on.

    Raises `DataError` when there is none, or with file:line for a line that is no scored answer.
    """
    wanted = {example.id for example in examples}
    lines = path.read_text(encoding="utf-8").split("\n")
    judged = dict(_judged(line, f"{path}:{number}") for number, line in enumerate(lines, 1) if line)
    found = {id_: answer for id_, answer in judged.items() if id_ in wanted}
    if not found:
        raise DataError(f"{path}: none of its answers is to an example of the test split; run `dvc repro`")
    return found


def with_reference(examples: Iterable[Example], path: Path) -> tuple[list[Example], list[Judged]]:
    """Those of `examples` that are answered in `path`, and these answers in the same order; see `read_reference`."""
    examples = list(examples)
    reference = read_reference(path, examples)
    answered = [example for example in examples if example.id in reference]
    return answered, [reference[example.id] for example in answered]


def _judged(line: str, place: str) -> tuple[str, Judged]:
    with contextlib.suppress(ValueError):  # a line that is no JSON, because it was cut off for example
        match json.loads(line):
            case {
                "id": str(id_),
                "exact_match": bool(exact),
                "execution_match": None | bool() as execution,
                "error": None | str() as error,
                "ended": bool(ended),
            }:
                return id_, Judged(Score(exact, execution, error), ended)
    raise DataError(f"{place}: not a scored answer (id, exact_match, execution_match, error, ended); run `dvc repro`")


def loss_metrics(answers: Sequence[Judged], reference: Sequence[Judged], confidence: float) -> Metrics:
    """The task's scores with intervals, and what the reference had more on the same examples.

    `..._drop` is the loss of the task's own score, with McNemar's exact p-value and the two counts it compares;
    `ended_drop` the share of answers that its stop token no longer ends.
    """
    scores = [answer.score for answer in answers]
    metrics = score_metrics(scores, confidence)
    metrics |= _drop_metrics(score_name(metrics), scores, [answer.score for answer in reference])
    n_ended, n_reference = (sum(answer.ended for answer in judged) for judged in (answers, reference))
    return metrics | {
        "ended_fraction": n_ended / len(answers),
        "ended_fraction_reference": n_reference / len(answers),
        "ended_drop": (n_reference - n_ended) / len(answers),
        "n_examples": len(answers),
    }


def _drop_metrics(name: str, scores: Sequence[Score], reference: Sequence[Score]) -> Metrics:
    ours, theirs = [score.is_correct for score in scores], [score.is_correct for score in reference]
    won, lost = discordant_pairs(ours, theirs)
    # counted, then divided: 0.85 - 0.84 is more than 0.01 in floating point, and a budget of 0.01 would refuse it
    return {
        f"{name}_drop": (lost - won) / len(scores),
        f"{name}_drop_p_value": mcnemar_p_value(ours, theirs),
        "n_answers_lost": lost,
        "n_answers_won": won,
    }


def write_answers(path: Path, examples: Iterable[Example], answers: Iterable[str], judged: Iterable[Judged]) -> None:
    """One JSON object a line, in the order of the examples."""
    rows = map(_as_json, examples, answers, judged)
    write_text(path, "".join(json.dumps(row, ensure_ascii=False, sort_keys=True) + "\n" for row in rows))


def _as_json(example: Example, answer: str, judged: Judged) -> Mapping[str, Json]:
    score = judged.score
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
        "ended": judged.ended,
    }
