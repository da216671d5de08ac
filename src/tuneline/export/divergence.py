"""How far one model's predictions are from another's, on the same tokens."""

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
LogitsNV = NDArray[np.float32]  # N positions, V tokens of the vocabulary


@dataclass(slots=True)
class Divergence:
    """Figures over the positions added so far; logits are not kept."""

    max_abs_logit_diff: float = 0.0
    max_abs_logit: float = 0.0
    sum_abs_logit_diff: float = 0.0
    n_logits: int = 0
    n_same_top1: int = 0
    kl_nats: list[float] = field(default_factory=list)

    def add(self, reference_NV: LogitsNV, other_NV: LogitsNV) -> None:
        reference, other = reference_NV.astype(np.float64), other_NV.astype(np.float64)
        differences = np.abs(reference - other)
        self.max_abs_logit_diff = _larger(self.max_abs_logit_diff, differences)
        self.max_abs_logit = _larger(self.max_abs_logit, np.abs(reference))
        self.sum_abs_logit_diff += float(differences.sum())
        self.n_logits += differences.size
        self.n_same_top1 += int((reference.argmax(axis=1) == other.argmax(axis=1)).sum())
        self.kl_nats.extend(kl_divergence(reference, other).tolist())

    @property
    def n_tokens(self) -> int:
        return len(self.kl_nats)

    @property
    def relative_logit_diff(self) -> float:
        """Largest |difference| over largest |logit|; comparable between models whose logits have other scales."""
        return self.max_abs_logit_diff / self.max_abs_logit

    def metrics(self) -> dict[str, float | int]:
        return {
            "max_abs_logit_diff": self.max_abs_logit_diff,
            "mean_abs_logit_diff": self.sum_abs_logit_diff / self.n_logits,
            "relative_logit_diff": self.relative_logit_diff,
            "top1_agreement": self.n_same_top1 / self.n_tokens,
            "kl_mean_nats": float(np.mean(self.kl_nats)),
            "kl_median_nats": float(np.median(self.kl_nats)),
            "kl_p99_nats": float(np.quantile(self.kl_nats, 0.99)),
            "n_tokens": self.n_tokens,
        }


def kl_divergence(reference_NV: Floats, other_NV: Floats) -> Floats:
    """KL(reference || other) in nats at each position, from logits; rounding below zero is cut to zero."""
    log_p, log_q = log_softmax(reference_NV), log_softmax(other_NV)
    divergence: Floats = np.maximum((np.exp(log_p) * (log_p - log_q)).sum(axis=1), 0.0)
    return divergence


def log_softmax(logits_NV: Floats) -> Floats:
    shifted = logits_NV - logits_NV.max(axis=1, keepdims=True)
    result: Floats = shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))
    return result


def _larger(so_far: float, values: Floats) -> float:
    """NaN stays NaN: a broken model must not pass for a close one."""
    return float(np.maximum(so_far, values.max()))
