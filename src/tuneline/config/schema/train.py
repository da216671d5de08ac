"""How training steps, whatever the hardware."""

from typing import Annotated, Literal

from pydantic import Field

from tuneline.config.schema.section import BelowOne, Count, Fraction, NotNegative, Positive, Strict

Scheduler = Literal["cosine", "linear", "constant", "constant_with_warmup"]


class TrainConfig(Strict):
    """How training steps; the same on every hardware."""

    global_batch_size: Count  # sequences (packed rows) per optimizer step, over all devices
    lr_scheduler_type: Scheduler
    warmup_ratio: BelowOne  # fraction of the steps
    weight_decay: NotNegative
    adam_beta1: BelowOne
    adam_beta2: BelowOne
    max_grad_norm: Positive  # gradients are scaled down to this L2 norm
    logging_steps: Count  # optimizer steps between points of the loss curve
    eval_steps: Count  # optimizer steps between validation losses
    save_steps: Count  # optimizer steps between checkpoints: what a kill costs at most
    save_total_limit: Annotated[int, Field(ge=2)]  # checkpoints on disk: the newest, and one in case it is damaged
    unfinished_kept: Annotated[int, Field(ge=0)]  # trainings that did not end whose checkpoints stay
    unfinished_max_gib: NotNegative  # of their checkpoints together
    early_stopping_patience: Count | None  # evaluations without improvement before stopping; null: never
    max_truncated_fraction: Fraction  # inspect fails when it leaves out more rows than this
