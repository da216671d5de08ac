"""Everything that is measured on one GGUF, with the model it was made from beside it."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter
from typing import Any

from transformers import PreTrainedModel, PreTrainedTokenizerBase

from tuneline.config.schema import BudgetConfig, GgufType
from tuneline.data.records import Example
from tuneline.evaluation.generation import stop_ids
from tuneline.evaluation.heldout import prompt_messages
from tuneline.evaluation.metrics import Metrics
from tuneline.evaluation.progress import in_batches
from tuneline.export.budget import is_near
from tuneline.export.context import check_context
from tuneline.export.gguf import check_tokenizer
from tuneline.export.golden import Compared, check_prompts, compare_templates
from tuneline.export.memory import measure_memory
from tuneline.export.parity import answer_row, check_stops, compare_answers, file_metrics
from tuneline.export.quantize import check_file_type, n_fallback_tensors
from tuneline.export.reference import REFERENCE
from tuneline.export.runtime import Runtime, check_weights
from tuneline.export.served import open_served
from tuneline.export.speed import measure_speed
from tuneline.model.loading import load_merged
from tuneline.model.template import encode_prompt
from tuneline.model.tokenizers import load_tokenizer_from

ROWS_PER_UPDATE = 32  # of the progress bar
N_SEQUENCES = 8  # answered at once; changes the speed on large models, not the answers


@dataclass(frozen=True, slots=True)
class Link:
    """The last link of the chain from data to file: `gguf`, said to be of type `type`, made from `folder`.

    With `adapter`, a GGUF of its own that llama.cpp puts onto `gguf`, the two together are what is measured.
    """

    folder: Path
    gguf: Path
    type: GgufType
    adapter: Path | None = None

    @property
    def name(self) -> str:
        put_on = "" if self.adapter is None else f" with {self.adapter}"
        return f"verify ({self.folder} -> {self.gguf}{put_on})"

    def config(self) -> Mapping[str, Any]:
        """The model's config.json."""
        found: dict[str, Any] = json.loads((self.folder / "config.json").read_text(encoding="utf-8"))
        return found

    def load(self) -> PreTrainedModel:
        """What the GGUF is compared with: the model in `folder`, in fp32 on the processor."""
        return load_merged(self.folder, REFERENCE)


@dataclass(frozen=True, slots=True)
class Measured:
    """`answers` are those of the GGUF, by the examples it was asked; `ended` says which a stop token ended.

    `refused` holds golden conversations that the model's own template cannot show, with its reasons.
    """

    metrics: Metrics
    refused: Mapping[str, str]
    speed: dict[str, float | int]
    answers: list[str]
    ended: list[bool]


def measure(
    link: Link,
    compared: Sequence[Example],
    asked: Sequence[Example],
    budget: BudgetConfig,
    n_ctx: int,
    max_new_tokens: int,
) -> Measured:
    """Compare logits on the answers of `compared`, and let the GGUF answer `asked`.

    Where `compared` is outside the budget, the logits of all of `asked` decide: a single token on which the model
    magnifies rounding can be most of the mean over few answers.

    Raises `ModelError` naming the link when the GGUF reads text as other tokens than the model in its folder does.
    """
    check_file_type(link.gguf, link.type)
    check_context(link.name, link.config(), n_ctx)
    check_weights(link.gguf)
    tokenizer = load_tokenizer_from(link.folder)
    check_tokenizer(link.name, link.gguf, tokenizer)
    templates = _check_templates(link, tokenizer, asked)
    started = perf_counter()
    with Runtime(link.gguf, n_ctx_tokens=n_ctx, n_sequences=N_SEQUENCES, adapter=link.adapter) as runtime:
        load_s = perf_counter() - started
        metrics = _compare(link, runtime, tokenizer, compared)
        if not is_near(metrics, budget) and len(asked) > len(compared):
            metrics = _compare(link, runtime, tokenizer, asked)
        metrics |= templates.metrics | file_metrics(runtime, n_fallback_tensors(link.gguf, link.type))
        prompts = [encode_prompt(tokenizer, prompt_messages(example), example.tools) for example in asked]
        answers_ids = _answer_all(runtime, prompts, max_new_tokens, f"{link.type}: answering")
        speed = measure_speed(runtime, prompts, load_s) | measure_memory(link.gguf, n_ctx, prompts[0], link.adapter)
        answers = [runtime.vocabulary.decode(ids) for ids in answers_ids]
        ended = [len(ids) < max_new_tokens for ids in answers_ids]
        return Measured(metrics, templates.refused, speed, answers, ended)


def _check_templates(link: Link, tokenizer: PreTrainedTokenizerBase, asked: Sequence[Example]) -> Compared:
    """Before anything is timed: the server ends with this."""
    with open_served(link.gguf) as served:
        check_prompts(link.name, tokenizer, served.prompt_ids, asked)
        return compare_templates(link.name, tokenizer, served.prompt_ids)


def _compare(link: Link, runtime: Runtime, tokenizer: PreTrainedTokenizerBase, examples: Sequence[Example]) -> Metrics:
    model = link.load()
    check_stops(link.name, runtime.vocabulary, stop_ids(model, tokenizer))
    rows = [answer_row(tokenizer, example) for example in examples]
    batches = in_batches(rows, 1, f"{link.type}: comparing logits")
    metrics = compare_answers(runtime, model, (row for batch in batches for row in batch))
    return metrics | {"n_compared_examples": len(rows)}


def _answer_all(runtime: Runtime, prompts: Sequence[Sequence[int]], max_new_tokens: int, what: str) -> list[list[int]]:
    """The tokens of the greedy answer to each prompt, without the one that ends it; `what` labels the progress bar."""
    answers: list[list[int]] = []
    for batch in in_batches(prompts, ROWS_PER_UPDATE, what):
        finished = dict(runtime.generate(batch, max_new_tokens, stop=True))
        answers += [finished[index] for index in range(len(batch))]
    return answers
