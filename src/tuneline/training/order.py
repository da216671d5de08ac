"""The order in which sequences are trained: drawn from seed and epoch alone, so it is the same on every hardware."""

import random
from collections.abc import Iterator, Sequence

from torch.utils.data import Sampler

GROUPS_SORTED_TOGETHER = 50  # more: less padding, and less random batches


def epoch_order(lengths: Sequence[int], group_size: int, seed: int, epoch: int, by_length: bool) -> list[int]:
    """A random permutation of the indices. With `by_length`, each run of `group_size` indices has similar lengths:
    shuffle, sort stretches of `GROUPS_SORTED_TOGETHER` groups by length, shuffle the groups.

    A group is a whole optimizer step, so the micro batch size does not change which sequences share a step. An
    incomplete group stays last.
    """
    draw = random.Random(f"{seed}/{epoch}")
    indices = list(range(len(lengths)))
    draw.shuffle(indices)
    if not by_length:
        return indices
    stretch = group_size * GROUPS_SORTED_TOGETHER
    by_stretch = (indices[start : start + stretch] for start in range(0, len(indices), stretch))
    ordered = [index for part in by_stretch for index in sorted(part, key=lambda i: (-lengths[i], i))]
    groups = [ordered[start : start + group_size] for start in range(0, len(ordered), group_size)]
    incomplete = [groups.pop()] if groups and len(groups[-1]) < group_size else []
    draw.shuffle(groups)
    return [index for group in [*groups, *incomplete] for index in group]


class EpochOrder(Sampler[int]):
    """`epoch_order` as a sampler; the trainer calls `set_epoch`."""

    def __init__(self, lengths: Sequence[int], group_size: int, seed: int, by_length: bool) -> None:
        self._lengths, self._group_size, self._seed, self._by_length = lengths, group_size, seed, by_length
        self._epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Choose which epoch's order comes next, counted from 0."""
        self._epoch = epoch

    def __iter__(self) -> Iterator[int]:
        return iter(epoch_order(self._lengths, self._group_size, self._seed, self._epoch, self._by_length))

    def __len__(self) -> int:
        return len(self._lengths)
