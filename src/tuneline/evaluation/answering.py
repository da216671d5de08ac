"""One model against the held-out examples: its answers, and how likely it finds the right ones."""

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter

from transformers import PreTrainedModel, PreTrainedTokenizerBase

from tuneline.data.records import Example, Json
from tuneline.errors import ModelError
from tuneline.evaluation.generation import decode_answer, generate_greedy_ids
from tuneline.evaluation.heldout import check_room, expected_answer, place, prompt_messages
from tuneline.evaluation.likelihood import Likelihood, answer_bytes
from tuneline.evaluation.perplexity import answer_likelihoods
from tuneline.evaluation.tasks.scoring import Score, Scorer
from tuneline.model.template import Encoded, encode_conversation, encode_prompt
from tuneline.output import write_text


@dataclass(frozen=True, slots=True)
class Questions:
    """Held-out examples as one tokenizer sees them."""

    tokenizer: PreTrainedTokenizerBase
    examples: Sequence[Example]
    prompts_ids: Sequence[Sequence[int]]
    conversations: Sequence[Encoded]
    max_new_tokens: int


@dataclass(frozen=True, slots=True)
class Answer:
    """What one model said to one example, and the judgement."""

    example: Example
    predicted: str
    ended: bool  # by a token of the model's own, before max_new_tokens did
    score: Score
    likelihood: Likelihood


@dataclass(frozen=True, slots=True)
class Answers:
    """All of one model's answers, in the order of the examples, and how fast they came."""

    rows: Sequence[Answer]
    speed: Mapping[str, float]

    @property
    def scores(self) -> list[Score]:
        return [row.score for row in self.rows]

    @property
    def likelihoods(self) -> list[Likelihood]:
        return [row.likelihood for row in self.rows]


def encode_questions(
    tokenizer: PreTrainedTokenizerBase, examples: Sequence[Example], max_new_tokens: int, n_ctx: int
) -> Questions:
    """Tokenise before any model is loaded.

    Raises `DataError` for an example without room in `n_ctx` tokens, `ModelError` for one that the chat template
    cannot show whole, tools and their calls included: both models must be asked the same.
    """
    prompts_ids, conversations = [], []
    for example in examples:
        with _named(example):
            prompts_ids.append(encode_prompt(tokenizer, prompt_messages(example), example.tools))
            conversations.append(encode_conversation(tokenizer, example.messages, example.tools))
    answer_tokens = [
        max(max_new_tokens, len(conversation.input_ids) - len(prompt_ids))
        for conversation, prompt_ids in zip(conversations, prompts_ids, strict=True)
    ]
    check_room(examples, map(len, prompts_ids), answer_tokens, n_ctx)
    return Questions(tokenizer, examples, prompts_ids, conversations, max_new_tokens)


@contextmanager
def _named(example: Example) -> Iterator[None]:
    """Put the example's place before what the tokenizer or its template has against it."""
    try:
        yield
    except ModelError as error:
        raise ModelError(f"{place(example)}: {error}") from error


def answer_all(model: PreTrainedModel, questions: Questions, scorer: Scorer, batch_size: int, name: str) -> Answers:
    """Let `model` answer every question; score the answers, measure the likelihood of the expected ones."""
    started = perf_counter()
    answers_ids = generate_greedy_ids(
        model,
        questions.tokenizer,
        questions.prompts_ids,
        questions.max_new_tokens,
        batch_size,
        f"{name}: answering",
    )
    generated = perf_counter()
    likelihoods = answer_likelihoods(
        model,
        questions.conversations,
        [answer_bytes(example.messages) for example in questions.examples],
        questions.tokenizer.pad_token_id,
        batch_size,
        f"{name}: likelihood",
    )
    measured = perf_counter()
    predictions = [decode_answer(questions.tokenizer, answer_ids) for answer_ids in answers_ids]
    scores = scorer.score(predictions)
    # the token that ends an answer is not among its ids: one of full length was cut off
    ended = [len(answer_ids) < questions.max_new_tokens for answer_ids in answers_ids]
    rows = map(Answer, questions.examples, predictions, ended, scores, likelihoods)
    n_read = sum(len(conversation.input_ids) for conversation in questions.conversations)
    speed = {
        "generation_seconds": generated - started,
        "generation_tokens_per_s": sum(map(len, answers_ids)) / (generated - started),
        "likelihood_seconds": measured - generated,
        "likelihood_tokens_per_s": n_read / (measured - generated),
        "scoring_seconds": perf_counter() - measured,
    }
    return Answers(list(rows), speed)


def write_answers(path: Path, rows: Sequence[Answer]) -> None:
    """One JSON object a line, in the order of the examples."""
    write_text(path, "".join(json.dumps(_as_json(row), ensure_ascii=False, sort_keys=True) + "\n" for row in rows))


def _as_json(row: Answer) -> dict[str, Json]:
    return {
        "id": row.example.id,
        "meta": dict(row.example.meta),
        "prompt": "\n\n".join(message.content for message in prompt_messages(row.example)),
        "expected": expected_answer(row.example),
        "predicted": row.predicted,
        "outcome": row.score.outcome,
        "exact_match": row.score.exact_match,
        "execution_match": row.score.execution_match,
        "error": row.score.error,
        "ended": row.ended,
        "nll_nats": float(f"{row.likelihood.nll_nats:.6g}"),
        "n_target_tokens": row.likelihood.n_target_tokens,
        "n_target_bytes": row.likelihood.n_target_bytes,
    }
