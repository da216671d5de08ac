"""How several models' values of one tensor become one. Pure functions; all tensors of one call have the same shape.

`tau` is a task vector: a model's tensor less the base's (Ilharco et al. 2022). Computed in float32.
"""

import hashlib
from collections.abc import Sequence

import torch
from torch import Tensor

from tuneline.config.schema import MajoritySign

# Closer directions than this are interpolated linearly: the sine that SLERP divides by tends to zero.
PARALLEL = 0.9995


def linear(tensors: Sequence[Tensor], weights: Sequence[float]) -> Tensor:
    """sum_i w_i x_i / sum_i w_i: the weighted average (Wortsman et al. 2022, arXiv:2203.05482, "Model soups").

    A weight of zero leaves its tensor out, so that [1, 0] gives the first one bit for bit.
    """
    return weighted_sum(tensors, weights) / sum(weights)


def weighted_sum(tensors: Sequence[Tensor], weights: Sequence[float]) -> Tensor:
    total = torch.zeros_like(tensors[0])
    for tensor, weight in zip(tensors, weights, strict=True):
        if weight != 0:
            total.add_(tensor, alpha=weight)
    return total


def slerp(first: Tensor, second: Tensor, t: float) -> Tensor:
    """sin((1-t) W) / sin W * x + sin(t W) / sin W * y, W the angle between x and y as vectors (Shoemake 1985).

    Linear where one of them is zero, or the two are (anti)parallel and the arc is not defined.
    """
    x, y = first.flatten().double(), second.flatten().double()
    norms = x.norm() * y.norm()
    cosine = (x @ y / norms).clamp(-1, 1) if norms > 0 else torch.ones((), dtype=torch.float64)
    if abs(float(cosine)) > PARALLEL:
        return linear([first, second], [1 - t, t])
    angle = torch.acos(cosine)
    one, other = (float(torch.sin(part * angle) / torch.sin(angle)) for part in (1 - t, t))
    return weighted_sum([first, second], [one, other])


def task_arithmetic(base: Tensor, taus: Sequence[Tensor], weights: Sequence[float]) -> Tensor:
    """base + sum_i w_i tau_i (Ilharco et al. 2022, arXiv:2212.04089)."""
    return base + weighted_sum(taus, weights)


def ties(base: Tensor, taus: Sequence[Tensor], weights: Sequence[float], density: float, sign: MajoritySign) -> Tensor:
    """Trim, elect sign, merge (Yadav et al. 2023, arXiv:2306.01708, algorithm 1 with lambda = 1).

    Each tau keeps its `density` largest magnitudes; see `disjoint_mean` for the rest.
    """
    return base + disjoint_mean([trimmed(tau, density) for tau in taus], weights, sign)


def dare_ties(
    base: Tensor,
    taus: Sequence[Tensor],
    weights: Sequence[float],
    density: float,
    sign: MajoritySign,
    seeds: Sequence[int],
) -> Tensor:
    """TIES with drop-and-rescale in place of trimming (Yu et al. 2023, arXiv:2311.03099). One seed per tau."""
    dropped = [dropped_and_rescaled(tau, density, seed) for tau, seed in zip(taus, seeds, strict=True)]
    return base + disjoint_mean(dropped, weights, sign)


def trimmed(tau: Tensor, density: float) -> Tensor:
    """`tau` with all but the int(density * n) values of the largest magnitude set to zero."""
    flat = tau.flatten()
    kept = torch.topk(flat.abs(), int(density * flat.numel())).indices
    return torch.zeros_like(flat).index_copy_(0, kept, flat[kept]).view_as(tau)


def dropped_and_rescaled(tau: Tensor, density: float, seed: int) -> Tensor:
    """Each value is kept with probability `density`, and then divided by it: the expectation stays."""
    generator = torch.Generator().manual_seed(seed)
    kept = torch.rand(tau.shape, generator=generator) < density
    return torch.where(kept, tau / density, torch.zeros_like(tau))


def disjoint_mean(taus: Sequence[Tensor], weights: Sequence[float], sign: MajoritySign) -> Tensor:
    """Per position, the weighted mean of those values that have the elected sign; 0 where there is none.

    Elected by mass (`total`: the sign of sum_i w_i tau_i) or by votes (`frequency`: of sum_i sign(w_i tau_i)).
    """
    elected = torch.zeros_like(taus[0])
    for tau, weight in zip(taus, weights, strict=True):
        elected += _vote(tau * weight, sign)
    elected.sign_()
    total, mass = torch.zeros_like(elected), torch.zeros_like(elected)
    for tau, weight in zip(taus, weights, strict=True):
        agrees = ((tau * weight).sign() == elected) & (elected != 0)
        total += torch.where(agrees, tau * weight, 0.0)
        mass += agrees * abs(weight)
    return torch.where(mass > 0, total / mass, torch.zeros_like(total))


def _vote(weighted: Tensor, sign: MajoritySign) -> Tensor:
    match sign:
        case "total":
            return weighted
        case "frequency":
            return weighted.sign()


def tensor_seed(seed: int, source: str, name: str) -> int:
    """Of one source's mask for one tensor: the same in whatever order tensors and sources come."""
    digest = hashlib.sha256(f"{seed}\n{source}\n{name}".encode()).digest()
    return int.from_bytes(digest[:8], "little") >> 1
