"""One training phase from tokens to weights: settings in, curve and figures out."""

import math
import resource
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from transformers import PreTrainedTokenizerBase, PrinterCallback, set_seed
from trl.trainer.sft_config import SFTConfig

from tuneline.config.schema import HardwareConfig, PhaseConfig, TrainConfig
from tuneline.errors import DataError, EnvironmentProblem
from tuneline.model.methods import TrainableModel
from tuneline.model.saving import check_finite
from tuneline.shortage import out_of_memory_names
from tuneline.training.callbacks import BestWeights, LastStep, Progress
from tuneline.training.checkpoints import newest_whole, remove_others
from tuneline.training.interruption import Interrupted, StopRequest, stop_requests
from tuneline.training.isolation import check_isolation
from tuneline.training.objectives import TokenTrainer
from tuneline.training.packing import choose_layout, sequences
from tuneline.training.resuming import Checkpoints
from tuneline.training.tokens import TokenRow

CURVE_KEYS = ("step", "epoch", "loss", "eval_loss", "perplexity", "learning_rate", "grad_norm")


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a phase left besides its weights: the log (science) and the speed (this machine, this day)."""

    log: dict[str, Any]
    speed: dict[str, float | int]


def train(
    model: TrainableModel,
    tokenizer: PreTrainedTokenizerBase,
    train_rows: list[TokenRow],
    val_rows: list[TokenRow],
    phase: PhaseConfig,
    settings: TrainConfig,
    hardware: HardwareConfig,
    seed: int,
    report_to: list[str],
    checkpoints: Path,
) -> Outcome:
    """Train `model` in place, from the newest whole checkpoint in folder `checkpoints` if there is one.

    On a CPU weights and curve are those of a training that was never interrupted, bit for bit. Raises `ModelError` at
    the first loss or gradient that is not finite, or when packing would leak; `DataError` for early stopping without
    validation rows; `Interrupted` when a signal asked for an end, after a checkpoint was written.
    """
    _require_val_rows(val_rows, settings)
    layout = choose_layout(phase.packing, hardware.attn_implementation)
    check_isolation(model, layout, model.config.get_text_config().vocab_size, hardware)
    best = None if settings.early_stopping_patience is None else BestWeights(settings.early_stopping_patience)
    data = sequences(train_rows, phase.packing, phase.max_length)
    val_data = by_length(sequences(val_rows, phase.packing, phase.max_length))
    resumed = _resumed(checkpoints)
    args = training_arguments(phase, settings, hardware, seed, bool(val_rows), report_to, checkpoints)
    with stop_requests() as request:
        keeper = Checkpoints(request, best, resumed)
        callbacks = [LastStep(), Progress(), *([best] if best else []), keeper]
        keeper.trainer = trainer = TokenTrainer(model, tokenizer, args, data, val_data, layout, callbacks)
        trainer.remove_callback(PrinterCallback)
        with out_of_memory_names("train", _memory_advice(phase, hardware, checkpoints)):
            seconds = _run(trainer, resumed)
    _refuse_unfinished(trainer, request, checkpoints)
    if best is not None:
        best.restore(model)
    check_finite(model)
    n_steps = trainer.state.global_step
    log = {
        "log_history": _science(trainer.state.log_history),
        **_counts(model, train_rows, len(data)),
        "n_steps": n_steps,
        "kept_step": n_steps if best is None else best.best_step,
    }
    return Outcome(log, _speed(trainer, seconds))


def training_arguments(
    phase: PhaseConfig,
    settings: TrainConfig,
    hardware: HardwareConfig,
    seed: int,
    has_val: bool,
    report_to: list[str],
    checkpoints: Path,
) -> SFTConfig:
    """The configuration in Transformers' names."""
    at_once = hardware.micro_batch_size * hardware.num_devices
    args = SFTConfig(
        output_dir=str(checkpoints),
        per_device_train_batch_size=hardware.micro_batch_size,
        per_device_eval_batch_size=hardware.eval_batch_size,
        gradient_accumulation_steps=settings.global_batch_size // at_once,
        num_train_epochs=phase.num_train_epochs,
        max_steps=phase.max_steps,
        learning_rate=phase.learning_rate,
        lr_scheduler_type=settings.lr_scheduler_type,
        warmup_steps=settings.warmup_ratio,  # below 1 it is a fraction of the steps
        weight_decay=settings.weight_decay,
        adam_beta1=settings.adam_beta1,
        adam_beta2=settings.adam_beta2,
        max_grad_norm=settings.max_grad_norm,
        optim=hardware.optim,
        logging_steps=settings.logging_steps,
        logging_first_step=True,
        logging_nan_inf_filter=False,  # it would hide what `TokenTrainer` stops for
        eval_strategy="steps" if has_val else "no",
        eval_steps=settings.eval_steps,
        save_strategy="steps",
        save_steps=settings.save_steps,
        save_total_limit=settings.save_total_limit,
        seed=seed,
        use_cpu=hardware.device == "cpu",
        bf16=hardware.precision == "bf16",
        fp16=hardware.precision == "fp16",
        activation_checkpointing=hardware.gradient_checkpointing,
        dataloader_pin_memory=hardware.device == "cuda",
        remove_unused_columns=False,
        dataset_kwargs={"skip_prepare_dataset": True},
        max_length=None,
        disable_tqdm=True,
        report_to=report_to,
    )
    _require_devices(args, hardware)
    return args


def by_length(packs: list[list[TokenRow]]) -> list[list[TokenRow]]:
    """Longest first: validation batches then hold little padding, and the largest comes before time is spent."""
    return sorted(packs, key=lambda sequence: -sum(len(row.input_ids) for row in sequence))


def _resumed(checkpoints: Path) -> Path | None:
    """The checkpoint to continue from; damaged ones are named and removed."""
    resumed, problems = newest_whole(checkpoints)
    for line in problems:
        print(f"train: not used: {line}", file=sys.stderr)
    if resumed is not None:
        print(f"train: continues from {resumed}", file=sys.stderr)
    remove_others(checkpoints, resumed)
    return resumed


def _refuse_unfinished(trainer: TokenTrainer, request: StopRequest, checkpoints: Path) -> None:
    step, n_steps = trainer.state.global_step, trainer.state.max_steps
    if request.name is not None and step < n_steps:
        raise Interrupted(
            f"train: {request.name} at step {step} of {n_steps}; the checkpoint is in {checkpoints}; "
            "the same command continues from it"
        )


def _memory_advice(phase: PhaseConfig, hardware: HardwareConfig, checkpoints: Path) -> str:
    return (
        f"lower hardware.micro_batch_size (now {hardware.micro_batch_size}) or, if it was a validation, "
        f"hardware.eval_batch_size (now {hardware.eval_batch_size}), set hardware.gradient_checkpointing (now "
        f"{str(hardware.gradient_checkpointing).lower()}), or lower the phase's max_length (now {phase.max_length}); "
        f"{checkpoints} keeps the checkpoints, from which the same settings continue"
    )


def _run(trainer: TokenTrainer, resumed: Path | None) -> float:
    """Train; returns the seconds that this process spent on training alone, without the validations in between."""
    set_seed(trainer.args.seed)
    started = time.perf_counter()
    trainer.train(resume_from_checkpoint=None if resumed is None else str(resumed))
    return time.perf_counter() - started - trainer.eval_seconds


def _science(log_history: list[dict[str, float]]) -> list[dict[str, float]]:
    """The points of the curve without the trainer's wall-clock figures, and without what is not finite: under fp16 a
    gradient norm may be infinite in a step that the loss scaling skips. Losses are finite, or training had stopped."""
    points = [
        {key: _rounded(entry[key]) for key in CURVE_KEYS if key in entry and math.isfinite(entry[key])}
        for entry in log_history
    ]
    return [point for point in points if "loss" in point or "eval_loss" in point]


def _counts(model: TrainableModel, train_rows: list[TokenRow], n_sequences: int) -> dict[str, int]:
    return {
        "n_train_rows": len(train_rows),
        "n_train_sequences": n_sequences,
        "n_train_tokens": sum(len(row.input_ids) for row in train_rows),
        "n_trained_tokens": sum(row.n_targets for row in train_rows),
        "n_parameters": model.num_parameters(),
        "n_trainable_parameters": model.num_parameters(only_trainable=True),
    }


def _speed(trainer: TokenTrainer, seconds: float) -> dict[str, float | int]:
    return {
        "train_seconds": seconds,
        "eval_seconds": trainer.eval_seconds,
        "n_tokens_seen": trainer.n_tokens_seen,
        "tokens_per_second": trainer.n_tokens_seen / seconds,
        "peak_memory_mib": peak_memory_mib(trainer.args.device),
    }


def peak_memory_mib(device: torch.device) -> float:
    """Most memory in use so far: allocated by PyTorch on a CUDA device, else resident in this process (MiB)."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**20
    unit = 1 if sys.platform == "darwin" else 2**10  # getrusage counts bytes on macOS, KiB on Linux
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 2**20


def _rounded(value: float) -> float | int:
    return value if isinstance(value, int) else float(f"{value:.6g}")


def _require_val_rows(val_rows: list[TokenRow], settings: TrainConfig) -> None:
    if settings.early_stopping_patience is not None and not val_rows:
        raise DataError(
            f"train.early_stopping_patience: {settings.early_stopping_patience}, but there are no validation rows; "
            "raise split.val_fraction, or set it to null"
        )


def _require_devices(args: SFTConfig, hardware: HardwareConfig) -> None:
    """One process trains on one device; another number of them would change the global batch silently."""
    if (args.world_size, max(1, args.n_gpu)) != (hardware.num_devices, 1):
        raise EnvironmentProblem(
            f"hardware.num_devices: {hardware.num_devices}, but {args.world_size} processes with {args.n_gpu} GPUs "
            "each train here; make as many GPUs visible (CUDA_VISIBLE_DEVICES=0) as the hardware says"
        )
