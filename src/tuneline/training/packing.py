"""From token rows to batches, in the layout that the hardware computes fastest, no document seeing another."""

from bisect import bisect_left, insort
from collections.abc import Sequence
from typing import Literal

import torch

from tuneline.config.schema import Attention
from tuneline.training.tokens import IGNORED, TokenRow

Batch = dict[str, torch.Tensor | int]
Layout = Literal["padded", "packed", "flattened"]


def choose_layout(packing: bool, attn_implementation: Attention) -> Layout:
    """padded: one document a row. packed: several, kept apart by a block mask that Transformers derives from the
    position ids. flattened: the same as one single row, which is what the flash kernels want (they take no mask
    and read the documents' bounds off the positions, but only when the batch has one row)."""
    if not packing:
        return "padded"
    match attn_implementation:
        case "sdpa" | "eager":
            return "packed"
        case "flash_attention_2":
            return "flattened"


def pack_best_fit(lengths: Sequence[int], capacity: int) -> list[list[int]]:
    """Indices of `lengths` in packs of at most `capacity` tokens: best fit decreasing (Ding et al. 2024,
    arXiv:2404.10830). Never splits an item; packs are ordered by their first index, so row order still counts."""
    packs: list[list[int]] = []
    free: list[tuple[int, int]] = []  # ascending (free tokens, pack)
    for index in sorted(range(len(lengths)), key=lambda i: (-lengths[i], i)):
        position = bisect_left(free, (lengths[index], -1))
        if position == len(free):
            packs.append([])
            free.append((capacity, len(packs) - 1))
        room, pack = free.pop(position)
        packs[pack].append(index)
        insort(free, (room - lengths[index], pack))
    return sorted(sorted(pack) for pack in packs)


def sequences(rows: Sequence[TokenRow], packing: bool, max_length_tokens: int) -> list[list[TokenRow]]:
    """What one place in a batch holds: one row, or as many as best fit decreasing puts there."""
    if not packing:
        return [[row] for row in rows]
    packs = pack_best_fit([len(row.input_ids) for row in rows], max_length_tokens)
    return [[rows[index] for index in pack] for pack in packs]


def collate(batch: Sequence[Sequence[TokenRow]], layout: Layout, pad_token_id: int) -> Batch:
    """Tensors of a batch. No layout has an attention mask: behind the last token of a row there is only padding,
    which a causal model cannot look forward to, and without a mask attention takes its fast causal kernels."""
    match layout:
        case "padded":
            return _stacked(batch, pad_token_id, with_positions=False)
        case "packed":
            return _stacked(batch, pad_token_id, with_positions=True)
        case "flattened":
            documents = [document for sequence in batch for document in sequence]
            return {**_stacked([documents], pad_token_id, with_positions=True), **_flash_bounds(documents)}


def _stacked(batch: Sequence[Sequence[TokenRow]], pad_token_id: int, *, with_positions: bool) -> Batch:
    ids_BT = [[token for document in sequence for token in document.input_ids] for sequence in batch]
    labels_BT = [[label for document in sequence for label in document.labels] for sequence in batch]
    tensors: Batch = {
        "input_ids": _padded(ids_BT, pad_token_id),
        "labels": _padded(labels_BT, IGNORED),
    }
    if with_positions:
        tensors["position_ids"] = _positions(batch, max(map(len, ids_BT)))
    return tensors


def _positions(batch: Sequence[Sequence[TokenRow]], width: int) -> torch.Tensor:
    """Positions that start again at 0 with each document; the padding counts as one more document."""
    lengths = [[len(document.input_ids) for document in sequence] for sequence in batch]
    with_padding = [[*row, width - sum(row)] for row in lengths]
    return torch.tensor([[t for length in row for t in range(length)] for row in with_padding])


def _padded(rows: Sequence[Sequence[int]], value: int) -> torch.Tensor:
    width = max(map(len, rows))
    return torch.tensor([[*row, *[value] * (width - len(row))] for row in rows])


def _flash_bounds(documents: Sequence[TokenRow]) -> Batch:
    """Cumulative lengths in the names of the flash kernels, which otherwise derive them in every layer."""
    lengths = torch.tensor([len(document.input_ids) for document in documents], dtype=torch.int32)
    bounds = torch.nn.functional.pad(lengths.cumsum(0, dtype=torch.int32), (1, 0))
    longest = int(lengths.max())
    return {
        "cu_seq_lens_q": bounds,
        "cu_seq_lens_k": bounds,
        "max_length_q": longest,
        "max_length_k": longest,
    }
