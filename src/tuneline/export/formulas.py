"""How several models' values of one tensor become one; all tensors of one call have the same shape.

A call takes a block of the tensor's rows, in float32. What has to be known of the whole tensor before (`arc_shares`,
`least_kept`) is found from all of its blocks. `tau` is a task vector: a model's tensor less the base's (Ilharco et al.
2022). No argument is changed.
"""

import hashlib
import math
from collections.abc import Callable, Iterable, Sequence

import torch
from torch import Tensor

from tuneline.config.schema import MajoritySign

# Closer directions than this are interpolated linearly: the sine that SLERP divides by tends to zero.
PARALLEL = 0.9995


def linear(tensors: Sequence[Tensor], weights: Sequence[float]) -> Tensor:
    """sum_i w_i x_i / sum_i w_i: the weighted average (Wortsman et al. 2022, arXiv:2203.05482, "Model soups").

    A weight of zero leaves its tensor out, so that [1, 0] gives the first one bit for bit.
    """
    return weighted_sum(tensors, weights).div_(sum(weights))


def weighted_sum(tensors: Sequence[Tensor], weights: Sequence[float]) -> Tensor:
    total = torch.zeros_like(tensors[0])
    for tensor, weight in zip(tensors, weights, strict=True):
        if weight != 0:
            total.add_(tensor, alpha=weight)
    return total


def arc_shares(pairs: Iterable[Sequence[Tensor]], t: float) -> tuple[float, float]:
    """What of x and of y makes the point `t` of the way on the arc between them (SLERP, Shoemake 1985).

    sin((1-t) W) / sin W and sin(t W) / sin W, W the angle between x and y as vectors, given as blocks of both. Linear
    where one of them is zero, or the two are (anti)parallel and the arc is not defined.
    """
    product, x_square, y_square = 0.0, 0.0, 0.0
    for first, second in pairs:
        x, y = first.flatten().double(), second.flatten().double()
        product += float(x @ y)
        x_square += float(x @ x)
        y_square += float(y @ y)
    norms = math.sqrt(x_square) * math.sqrt(y_square)
    cosine = max(-1.0, min(1.0, product / norms)) if norms > 0 else 1.0
    if abs(cosine) > PARALLEL:
        return 1 - t, t
    angle = math.acos(cosine)
    return math.sin((1 - t) * angle) / math.sin(angle), math.sin(t * angle) / math.sin(angle)


def task_arithmetic(base: Tensor, taus: Sequence[Tensor], weights: Sequence[float]) -> Tensor:
    """base + sum_i w_i tau_i (Ilharco et al. 2022, arXiv:2212.04089)."""
    return weighted_sum(taus, weights).add_(base)


def ties(
    base: Tensor, taus: Sequence[Tensor], weights: Sequence[float], least: Sequence[float], sign: MajoritySign
) -> Tensor:
    """Trim, elect sign, merge (Yadav et al. 2023, arXiv:2306.01708, algorithm 1 with lambda = 1).

    Of each tau stay the magnitudes from `least` on (see `least_kept`): one of each tensor where the authors have one
    for the whole model; see `disjoint_mean` for the rest.
    """
    kept = [trimmed(tau, bound) for tau, bound in zip(taus, least, strict=True)]
    return disjoint_mean(kept, weights, sign).add_(base)


def dare_ties(
    base: Tensor,
    taus: Sequence[Tensor],
    weights: Sequence[float],
    density: float,
    sign: MajoritySign,
    generators: Sequence[torch.Generator],
) -> Tensor:
    """TIES with drop-and-rescale in place of trimming (Yu et al. 2023, arXiv:2311.03099). One generator per tau."""
    dropped = [dropped_and_rescaled(tau, density, own) for tau, own in zip(taus, generators, strict=True)]
    return disjoint_mean(dropped, weights, sign).add_(base)


def trimmed(tau: Tensor, least: float) -> Tensor:
    """`tau` with all magnitudes below `least` set to zero."""
    return torch.where(tau.abs() >= least, tau, torch.zeros_like(tau))


def least_kept(blocks: Callable[[], Iterable[Tensor]], n_kept: int) -> float:
    """The `n_kept`-th largest magnitude of all blocks, which are read twice; infinity where none is kept.

    Exact, by counting: the bits of a float32 without its sign are ordered like the number. Equal ones at the bound all
    stay, as in the authors' code (https://github.com/prateeky2806/ties-merging, `topk_values_mask`).
    """
    if n_kept == 0:
        return math.inf
    upper = torch.zeros(2**15, dtype=torch.int64)
    for block in blocks():
        upper += torch.bincount(_magnitude_bits(block) >> 16, minlength=2**15)
    high, n_left = _place(upper, n_kept)
    lower = torch.zeros(2**16, dtype=torch.int64)
    for block in blocks():
        bits = _magnitude_bits(block)
        lower += torch.bincount(bits[bits >> 16 == high] & 0xFFFF, minlength=2**16)
    low, _ = _place(lower, n_left)
    return float(torch.tensor(high << 16 | low, dtype=torch.int32).view(torch.float32))


def _magnitude_bits(block: Tensor) -> Tensor:
    return block.abs().flatten().view(torch.int32)


def _place(counts: Tensor, n: int) -> tuple[int, int]:
    """The bin that holds the n-th from the top, and which it is within that bin, from the top."""
    from_top = counts.flip(0).cumsum(0)
    index = int(torch.searchsorted(from_top, n))
    bin_number = len(counts) - 1 - index
    return bin_number, n - int(from_top[index] - counts[bin_number])


def dropped_and_rescaled(tau: Tensor, density: float, generator: torch.Generator) -> Tensor:
    """Each value is kept with probability `density`, and then divided by it: the expectation stays."""
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


def mask_generator(seed: int, source: str, name: str) -> torch.Generator:
    """Of one source's mask for one tensor: the same in whatever order tensors and sources come."""
    digest = hashlib.sha256(f"{seed}\n{source}\n{name}".encode()).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest[:8], "little") >> 1)
