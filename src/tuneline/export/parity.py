"""One GGUF against the merged model it was made from: tokens, logits, and what the task's score lost."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import numpy as np
from torch import nn
from transformers import PreTrainedTokenizerBase

from tuneline.data.records import Example
from tuneline.errors import BudgetError, ModelError
from tuneline.evaluation.heldout import prompt_messages
from tuneline.evaluation.metrics import Metrics
from tuneline.evaluation.statistics import clustered_ratio_error
from tuneline.export.divergence import Divergence, LogitsNV, log_softmax
from tuneline.export.reference import reference_logits
from tuneline.export.runtime import Runtime, Vocabulary
from tuneline.model.template import encode_conversation, encode_prompt


@dataclass(frozen=True, slots=True)
class Row:
    """A held-out conversation; the answer's tokens are `ids[p + 1]` for p in `positions`, where they are predicted."""

    ids: list[int]
    positions: list[int]

    @property
    def answer_ids(self) -> list[int]:
        return [self.ids[position + 1] for position in self.positions]


def answer_row(tokenizer: PreTrainedTokenizerBase, example: Example) -> Row:
    """Only the last answer counts: the earlier turns are its prompt."""
    encoded = encode_conversation(tokenizer, example.messages, example.tools)
    start = len(encode_prompt(tokenizer, prompt_messages(example), example.tools))
    positions = [t - 1 for t in range(start, len(encoded.input_ids)) if encoded.loss_mask[t]]
    return Row(encoded.input_ids, positions)


@dataclass(slots=True)
class AnswerLoss:
    """Negative log-likelihood of each answer; summed before it is divided, so that a long answer weighs more."""

    nll_nats: list[float] = field(default_factory=list)
    n_tokens: list[int] = field(default_factory=list)

    def add(self, logits_NV: LogitsNV, targets: Sequence[int]) -> None:
        log_p_NV = log_softmax(logits_NV.astype(np.float64))
        self.nll_nats.append(-float(log_p_NV[np.arange(len(targets)), targets].sum()))
        self.n_tokens.append(len(targets))

    @property
    def perplexity(self) -> float:
        return math.exp(sum(self.nll_nats) / sum(self.n_tokens))


@dataclass(slots=True)
class Parity:
    """Figures of a GGUF beside those of the merged model, over the answers seen so far."""

    divergence: Divergence = field(default_factory=Divergence)
    merged: AnswerLoss = field(default_factory=AnswerLoss)
    gguf: AnswerLoss = field(default_factory=AnswerLoss)

    def add(self, row: Row, merged_NV: LogitsNV, gguf_NV: LogitsNV) -> None:
        self.divergence.add(merged_NV, gguf_NV)
        self.merged.add(merged_NV, row.answer_ids)
        self.gguf.add(gguf_NV, row.answer_ids)

    def metrics(self) -> Metrics:
        perplexities: Metrics = {
            "perplexity": self.gguf.perplexity,
            "perplexity_merged": self.merged.perplexity,
            "perplexity_ratio": self.gguf.perplexity / self.merged.perplexity,
        }
        return self.divergence.metrics() | perplexities | self._ratio_errors()

    def _ratio_errors(self) -> Metrics:
        """Standard errors of the log perplexity ratio, by row, and of the ratio itself (delta method).

        Empty for a single row, which says nothing about the spread between rows.
        """
        if len(self.gguf.nll_nats) == 1:
            return {}
        lost_nats = [ours - theirs for ours, theirs in zip(self.gguf.nll_nats, self.merged.nll_nats, strict=True)]
        error = clustered_ratio_error(lost_nats, self.gguf.n_tokens)
        ratio = self.gguf.perplexity / self.merged.perplexity
        return {"log_perplexity_ratio_se": error, "perplexity_ratio_se": ratio * error}


def compare_answers(runtime: Runtime, merged: nn.Module, rows: Iterable[Row]) -> Metrics:
    """Teacher-forced over the answers; a row's logits are dropped before the next is read."""
    parity = Parity()
    for row in rows:
        gguf_NV = runtime.logits(row.ids, row.positions)
        if not np.isfinite(gguf_NV).all():
            raise BudgetError(
                f"{runtime.gguf}: its logits are not finite although its weights are; the usual cause is a sum beyond "
                "float16: set export.outtype=bf16"
            )
        parity.add(row, reference_logits(merged, row.ids, row.positions), gguf_NV)
    return parity.metrics()


def check_stops(link: str, vocabulary: Vocabulary, stops: Iterable[int]) -> None:
    """Every token that ends an answer of the merged model must end one in llama.cpp, or answers run on."""
    ignored = sorted(token for token in stops if not vocabulary.ends_generation(token))
    if ignored:
        raise ModelError(
            f"{link}: tokens {ignored} end an answer of the merged model (its generation_config.json), but not in the "
            "GGUF; make one of them the tokenizer's eos_token before training"
        )


def file_metrics(runtime: Runtime, n_fallback_tensors: int) -> Metrics:
    """Size on disk and in memory. `n_fallback_tensors`: matrices whose rows do not fit the type's blocks.

    An adapter in a file of its own counts in `size_mib`; bits per weight are the base's.
    """
    alone = {} if runtime.adapter is None else {"adapter_size_mib": runtime.adapter.stat().st_size / 2**20}
    return alone | {
        "size_mib": sum(alone.values()) + runtime.gguf.stat().st_size / 2**20,
        "bits_per_weight": 8 * runtime.weight_bytes / runtime.n_parameters,
        "n_fallback_tensors": n_fallback_tensors,
    }
