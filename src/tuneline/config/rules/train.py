"""Steps of training."""

from collections.abc import Iterator

from tuneline.config.rules.wording import refused
from tuneline.config.schema import Params


def train_rules(params: Params) -> Iterator[str]:
    train, hardware = params.train, params.hardware
    if train.global_batch_size % hardware.micro_batch_size:
        allowed = f"is a multiple of hardware.micro_batch_size = {hardware.micro_batch_size}; change either"
        yield refused("train.global_batch_size", train.global_batch_size, allowed)
    if train.lr_scheduler_type == "constant" and train.warmup_ratio > 0:
        allowed = "with lr_scheduler_type constant is 0.0; choose constant_with_warmup to keep it"
        yield refused("train.warmup_ratio", train.warmup_ratio, allowed)
    if train.early_stopping_patience is not None and params.split.val_fraction == 0:
        allowed = "is null without validation rows; raise split.val_fraction"
        yield refused("train.early_stopping_patience", train.early_stopping_patience, allowed)
