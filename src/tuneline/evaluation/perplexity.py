"""How well a model expects the right answers: their negative log-likelihood, per example.

Shapes: B rows in a batch, T tokens of the longest one, K last positions that hold every answer of the batch.
"""

from collections.abc import Sequence

import torch
from torch.nn import functional
from transformers import PreTrainedModel

from tuneline.evaluation.generation import left_padded
from tuneline.evaluation.likelihood import Likelihood
from tuneline.evaluation.progress import in_batches
from tuneline.model.template import Encoded

IGNORED = -100  # cross_entropy's own default: no loss at this position


def answer_likelihoods(
    model: PreTrainedModel,
    conversations: Sequence[Encoded],
    n_target_bytes: Sequence[int],
    pad_token_id: int,
    batch_size: int,
    what: str,
) -> list[Likelihood]:
    """Teacher-forced likelihood of the tokens with `loss_mask` 1, per conversation, in order."""
    order = sorted(range(len(conversations)), key=lambda index: -len(conversations[index].input_ids))
    nlls_nats = [0.0] * len(conversations)
    with torch.inference_mode():
        for batch in in_batches(order, batch_size, what):
            sums = _batch_nlls(model, [conversations[index] for index in batch], pad_token_id)
            for index, nll_nats in zip(batch, sums, strict=True):
                nlls_nats[index] = nll_nats
    counts = [sum(conversation.loss_mask[1:]) for conversation in conversations]
    return [Likelihood(*row) for row in zip(nlls_nats, counts, n_target_bytes, strict=True)]


def _batch_nlls(model: PreTrainedModel, batch: Sequence[Encoded], pad_token_id: int) -> list[float]:
    ids_BT, attention_mask_BT = left_padded([row.input_ids for row in batch], pad_token_id, model.device)
    loss_mask_BT, _ = left_padded([[0, *row.loss_mask[1:]] for row in batch], 0, model.device)
    # Rows end together, so the answers are in the last K positions: the prompt's logits are never computed.
    K = max(len(row.input_ids) - _first_target(row) for row in batch)
    logits_BKV = model(
        input_ids=ids_BT,
        attention_mask=attention_mask_BT,
        position_ids=(attention_mask_BT.cumsum(dim=1) - 1).clamp(min=0),
        logits_to_keep=K + 1,
        use_cache=False,
    ).logits[:, :-1]
    targets_BK = ids_BT[:, -K:].masked_fill(loss_mask_BT[:, -K:] == 0, IGNORED)
    return [_nll_nats(logits_KV, targets_K) for logits_KV, targets_K in zip(logits_BKV, targets_BK, strict=True)]


def _first_target(row: Encoded) -> int:
    return next((place for place, on in enumerate(row.loss_mask) if on and place), len(row.loss_mask) - 1)


def _nll_nats(logits_KV: torch.Tensor, targets_K: torch.Tensor) -> float:
    # row by row: the fp32 copy of a whole batch's logits would be the largest tensor of the stage
    return float(functional.cross_entropy(logits_KV.float(), targets_K, ignore_index=IGNORED, reduction="sum"))
