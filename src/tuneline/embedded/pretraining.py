"""Pre-training of the embedded base model: a plain loop with Muon on the hidden matrices and AdamW on the rest."""

import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from tokenizers import Tokenizer
from torch.optim.lr_scheduler import LambdaLR
from transformers import LlamaConfig, LlamaForCausalLM

from tuneline.embedded.corpus import documents
from tuneline.embedded.turns import PAD, TURN_END, TURN_START

Ids = npt.NDArray[np.uint16]


@dataclass(frozen=True, slots=True)
class Step:
    """One line of the training curve. `loss_nats` is the mean over the step's tokens."""

    step: int
    loss_nats: float
    learning_rate_share: float


def corpus_ids(
    tokenizer: Tokenizer, seed: int, n_tokens: int, annotated_weight: int, uncommon_table_fraction: float
) -> Ids:
    """The corpus as one stream of exactly `n_tokens` ids: documents between a turn-start and a turn-end token.

    The special tokens are separators here, so their embeddings are trained before any chat is seen.
    """
    start, end = tokenizer.token_to_id(TURN_START), tokenizer.token_to_id(TURN_END)
    stream = np.empty(n_tokens, dtype=np.uint16)
    filled, source = 0, documents(seed, annotated_weight, uncommon_table_fraction)
    while filled < n_tokens:
        for encoded in tokenizer.encode_batch(list(itertools.islice(source, 512))):
            ids = [start, *encoded.ids, end][: n_tokens - filled]
            stream[filled : filled + len(ids)] = np.array(ids, dtype=np.uint16)
            filled += len(ids)
    return stream


def build_model(shape: dict[str, Any], tokenizer: Tokenizer, seed: int) -> LlamaForCausalLM:
    """A freshly initialised Llama of the given shape (`LlamaConfig` names)."""
    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=tokenizer.get_vocab_size(),
        pad_token_id=tokenizer.token_to_id(PAD),
        bos_token_id=None,
        eos_token_id=tokenizer.token_to_id(TURN_END),
        **shape,
    )
    return LlamaForCausalLM(config)


def pretrain(
    model: LlamaForCausalLM,
    stream: Ids,
    *,
    batch_size: int,
    sequence_length_tokens: int,
    muon_learning_rate: float,
    adamw_learning_rate: float,
    warmup_fraction: float,
    bf16: bool,
) -> Iterator[Step]:
    """One pass over the stream in order; yields after every optimizer step.

    Learning rates rise linearly over the warm-up and fall linearly to zero at the end of the stream.
    """
    batches = stream[: len(stream) // (batch_size * sequence_length_tokens) * batch_size * sequence_length_tokens]
    n_steps = len(batches) // (batch_size * sequence_length_tokens)
    optimizers = _optimizers(model, muon_learning_rate, adamw_learning_rate)
    warmup = max(1, round(warmup_fraction * n_steps))
    schedules = [LambdaLR(o, lambda s: min((s + 1) / warmup, (n_steps - s) / (n_steps - warmup))) for o in optimizers]
    model.train()
    for step, ids in enumerate(batches.reshape(n_steps, batch_size, sequence_length_tokens)):
        ids_BT = torch.from_numpy(ids.astype(np.int64))
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=bf16):
            loss = model(input_ids=ids_BT, labels=ids_BT).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        share = float(schedules[0].get_last_lr()[0]) / muon_learning_rate
        for optimizer, schedule in zip(optimizers, schedules, strict=True):
            optimizer.step()
            optimizer.zero_grad()
            schedule.step()
        yield Step(step + 1, float(loss.detach()), share)


def _optimizers(model: LlamaForCausalLM, muon_lr: float, adamw_lr: float) -> list[torch.optim.Optimizer]:
    """Muon for the matrices inside the layers (torch.optim.Muon), AdamW for the embedding and the norms."""
    hidden = [p for name, p in model.named_parameters() if p.ndim == 2 and "layers" in name]
    rest = [p for name, p in model.named_parameters() if not (p.ndim == 2 and "layers" in name)]
    muon = torch.optim.Muon(hidden, lr=muon_lr, weight_decay=0.01, adjust_lr_fn="match_rms_adamw")
    return [muon, torch.optim.AdamW(rest, lr=adamw_lr, betas=(0.9, 0.95), weight_decay=0.0)]
