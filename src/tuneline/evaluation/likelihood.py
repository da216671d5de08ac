"""Sums of log-likelihood per example, and the figures made from them; no torch."""

import math
from collections.abc import Iterable
from dataclasses import dataclass

from tuneline.data.records import Message


@dataclass(frozen=True, slots=True)
class Likelihood:
    """One example: the answers' negative log-likelihood in nats, and what it is a sum over."""

    nll_nats: float
    n_target_tokens: int  # tokens that carry loss in training: the answers and the token that ends each
    n_target_bytes: int  # UTF-8 bytes of the answers' text


def answer_bytes(messages: Iterable[Message]) -> int:
    """UTF-8 bytes of everything the assistant says."""
    return sum(len(message.content.encode()) for message in messages if message.role == "assistant")


def perplexity(likelihoods: Iterable[Likelihood]) -> float:
    """exp of nats per token. Sums first and divides once, so a long answer weighs more."""
    rows = list(likelihoods)
    return math.exp(sum(row.nll_nats for row in rows) / sum(row.n_target_tokens for row in rows))


def bits_per_byte(likelihoods: Iterable[Likelihood]) -> float:
    """Bits per UTF-8 byte of answer, for any tokenizer. The end token costs bits, but has no byte."""
    rows = list(likelihoods)
    return sum(row.nll_nats for row in rows) / math.log(2) / sum(row.n_target_bytes for row in rows)
