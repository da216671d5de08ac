"""Training speed against the plainest loop that takes the same steps: what the trainer costs on top of the model."""

import math
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean, median
from typing import Any

import torch
from transformers import PreTrainedTokenizerBase, get_scheduler

from tuneline.config.schema import HardwareConfig, Params, PhaseConfig, TrainConfig
from tuneline.errors import BudgetError, ConfigError
from tuneline.model.methods import TrainableModel, initial_model
from tuneline.model.tokenizers import load_tokenizer
from tuneline.training.isolation import autocast
from tuneline.training.loop import train
from tuneline.training.order import epoch_order
from tuneline.training.packing import Batch, choose_layout, collate, sequences
from tuneline.training.tokens import IGNORED, TokenRow, read_tokens

MAX_LOSS_DIFFERENCE = 0.01  # share of the larger loss; rounding and dropout stay below


@dataclass(frozen=True, slots=True)
class Timing:
    """One training: speed over its tokens without padding, and the loss, a mean over its steps but the first."""

    tokens_per_second: float
    mean_loss_nats: float


@dataclass(frozen=True, slots=True)
class Comparison:
    """The repeats of either loop. Raises `BudgetError` when a pair's losses disagree: they did not do the same."""

    trainer: list[Timing]
    plain: list[Timing]

    def __post_init__(self) -> None:
        for trained, plain in zip(self.trainer, self.plain, strict=True):
            if not math.isclose(trained.mean_loss_nats, plain.mean_loss_nats, rel_tol=MAX_LOSS_DIFFERENCE):
                raise BudgetError(
                    f"benchmark: the train stage's loop reached a mean loss of {trained.mean_loss_nats:.4f} nats, the "
                    f"plain loop {plain.mean_loss_nats:.4f}; more than {MAX_LOSS_DIFFERENCE:.0%} apart they did not "
                    "do the same work, and their speeds cannot be compared"
                )

    @property
    def ratio(self) -> float:
        """Median tokens/s of the train stage's loop / that of the plain loop."""
        return median(t.tokens_per_second for t in self.trainer) / median(t.tokens_per_second for t in self.plain)


def compare(params: Params, phase_name: str, tokens: Path, n_steps: int, n_repeats: int) -> Comparison:
    """Train `n_steps` from the base with either loop, in turn, `n_repeats` times; nothing is saved.

    Raises `ConfigError` for a phase that the recipe does not have.
    """
    if phase_name not in params.recipe.phases:
        raise ConfigError(
            f"--phase: '{phase_name}' is not in the recipe; choose from {', '.join(params.recipe.phases)}"
        )
    phase = params.recipe.phases[phase_name].model_copy(update={"max_steps": n_steps})
    rows = read_tokens(tokens / "train.parquet")
    tokenizer = load_tokenizer(params.model)

    def timed(loop: Callable[..., Timing]) -> Timing:
        model = initial_model(
            Path(params.model.tracked_path),
            params.model,
            params.method,
            params.lora,
            params.quantization,
            params.hardware,
            params.seed,
        )
        return loop(model, tokenizer, rows, phase, params.train, params.hardware, params.seed)

    pairs = [(timed(trainer_loop), timed(plain_loop)) for _ in range(n_repeats)]
    return Comparison([pair[0] for pair in pairs], [pair[1] for pair in pairs])


def trainer_loop(
    model: TrainableModel,
    tokenizer: PreTrainedTokenizerBase,
    rows: list[TokenRow],
    phase: PhaseConfig,
    settings: TrainConfig,
    hardware: HardwareConfig,
    seed: int,
) -> Timing:
    """What the train stage does, without validation."""
    quiet = settings.model_copy(update={"early_stopping_patience": None, "logging_steps": phase.max_steps})
    with tempfile.TemporaryDirectory(prefix="tuneline-") as folder:
        outcome = train(model, tokenizer, rows, [], phase, quiet, hardware, seed, [], Path(folder))
    mean_after_first = outcome.log["log_history"][-1]["loss"]
    return Timing(float(outcome.speed["tokens_per_second"]), float(mean_after_first))


def plain_loop(
    model: TrainableModel,
    tokenizer: PreTrainedTokenizerBase,
    rows: list[TokenRow],
    phase: PhaseConfig,
    settings: TrainConfig,
    hardware: HardwareConfig,
    seed: int,
) -> Timing:
    """The same steps by hand: batches, forward, backward, clip, AdamW, schedule."""
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    betas = (settings.adam_beta1, settings.adam_beta2)
    optimizer = torch.optim.AdamW(
        trained,
        lr=phase.learning_rate,
        betas=betas,
        eps=1e-8,
        weight_decay=settings.weight_decay,
        fused=hardware.optim == "adamw_torch_fused",
    )
    schedule = get_scheduler(
        settings.lr_scheduler_type,
        optimizer,
        num_warmup_steps=math.ceil(settings.warmup_ratio * phase.max_steps),
        num_training_steps=phase.max_steps,
    )
    steps = _steps(rows, phase, settings, hardware, seed, int(tokenizer.pad_token_id))
    n_tokens, losses = 0, []
    model.train()
    started = time.perf_counter()
    for _ in range(phase.max_steps):
        batches = next(steps)
        losses.append(_gradients(model, batches, hardware))
        torch.nn.utils.clip_grad_norm_(trained, settings.max_grad_norm)
        optimizer.step()
        schedule.step()
        optimizer.zero_grad()
        n_tokens += sum(int((torch.as_tensor(b["input_ids"]) != tokenizer.pad_token_id).sum()) for b in batches)
    return Timing(n_tokens / (time.perf_counter() - started), fmean(losses[1:] or losses))


def _gradients(model: Any, batches: list[Batch], hardware: HardwareConfig) -> float:
    """Forward and backward over the micro batches of one step; returns the step's loss."""
    device = next(model.parameters()).device
    n_targets = sum(int((torch.as_tensor(batch["labels"]) != IGNORED).sum()) for batch in batches)
    total = 0.0
    for batch in batches:
        inputs = {key: value.to(device) if isinstance(value, torch.Tensor) else value for key, value in batch.items()}
        with autocast(hardware):
            loss = model(**inputs, num_items_in_batch=n_targets, use_cache=False).loss
        loss.backward()
        total += float(loss.detach())
    return total


def _steps(
    rows: list[TokenRow],
    phase: PhaseConfig,
    settings: TrainConfig,
    hardware: HardwareConfig,
    seed: int,
    pad_token_id: int,
) -> Any:
    """The batches of each step, in the order of the train stage, epoch after epoch."""
    data = sequences(rows, phase.packing, phase.max_length)
    layout = choose_layout(phase.packing, hardware.attn_implementation)
    lengths = [sum(len(row.input_ids) for row in sequence) for sequence in data]
    epoch = 0
    while True:
        order = epoch_order(lengths, settings.global_batch_size, seed, epoch, layout == "padded")
        for start in range(0, len(order), settings.global_batch_size):
            step = [data[index] for index in order[start : start + settings.global_batch_size]]
            cuts = range(0, len(step), hardware.micro_batch_size)
            yield [collate(step[cut : cut + hardware.micro_batch_size], layout, pad_token_id) for cut in cuts]
        epoch += 1
