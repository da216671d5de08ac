"""What is minimised: TRL's trainer over ready-made tokens, with losses that do not depend on how a batch is cut."""

import math
import time
from collections.abc import Sequence
from typing import Any

import torch
from datasets import Dataset  # type: ignore[import-untyped]  # no stubs
from torch.utils.data import Sampler
from transformers import PreTrainedTokenizerBase, TrainerCallback
from trl.trainer.sft_config import SFTConfig
from trl.trainer.sft_trainer import SFTTrainer

from tuneline.errors import ModelError
from tuneline.model.methods import TrainableModel
from tuneline.training.order import EpochOrder
from tuneline.training.packing import Batch, Layout, collate
from tuneline.training.tokens import IGNORED, TokenRow

MAX_EXPONENT_NATS = 700.0  # math.exp overflows a little above


class TokenTrainer(SFTTrainer):
    """Supervised training on next tokens (objectives sft and pretrain: they differ in their labels only).

    Loss of a step: sum of the negative log-likelihoods of its targets / number of its targets, over all of its micro
    batches and devices. So neither micro batches nor packing change it, and a longer answer weighs more.
    """

    # `compute_loss` divides by the targets of the whole step already
    loss_is_scaled_for_ga = True  # type: ignore[assignment]  # declared as None in TRL

    def __init__(
        self,
        model: TrainableModel,
        tokenizer: PreTrainedTokenizerBase,
        args: SFTConfig,
        train: Sequence[list[TokenRow]],
        val: Sequence[list[TokenRow]],
        layout: Layout,
        callbacks: list[TrainerCallback],
    ) -> None:
        self._layout, self._pad_token_id = layout, int(tokenizer.pad_token_id)
        self._weights, self._sequences = model, [*train, *val]
        self._lengths = [sum(len(row.input_ids) for row in sequence) for sequence in train]
        self.n_tokens_seen, self.eval_seconds = 0, 0.0
        super().__init__(
            model=model,
            args=args,
            train_dataset=_numbers(0, len(train)),
            eval_dataset=_numbers(len(train), len(self._sequences)) if val else None,
            processing_class=tokenizer,
            data_collator=self._collate,
            callbacks=callbacks,
        )
        for parameter in model.parameters():
            if parameter.requires_grad:
                # TRL casts adapters on a 4-bit base to bf16, in which small updates get lost
                parameter.data = parameter.data.float()

    def compute_loss(
        self,
        model: Any,
        inputs: Batch,
        return_outputs: bool = False,
        num_items_in_batch: torch.Tensor | int | None = None,
    ) -> Any:
        """Sum of the targets' negative log-likelihoods / `num_items_in_batch`, in nats.

        TRL's fused head saves the memory of the logits on an accelerator; on a CPU it is 2 to 3 times slower than
        Transformers' own loss. Both give the same number.
        """
        assert num_items_in_batch is not None, "the trainer counts the targets of a step"
        fused = {} if self.args.device.type == "cpu" else {"fused_lm_head": True}
        outputs = model(**inputs, num_items_in_batch=num_items_in_batch, use_cache=False, **fused)
        # the count is over all devices, and their gradients are averaged
        loss = outputs.loss * self.accelerator.num_processes
        return (loss, outputs) if return_outputs else loss

    def training_step(self, model: Any, inputs: Batch, num_items_in_batch: Any = None) -> torch.Tensor:
        """One micro batch, forward and backward. Raises `ModelError` when its loss is not finite."""
        self.n_tokens_seen += int((torch.as_tensor(inputs["input_ids"]) != self._pad_token_id).sum())
        loss: torch.Tensor = super().training_step(model, inputs, num_items_in_batch)  # type: ignore[no-untyped-call]
        self._refuse_non_finite("loss", loss)
        return loss

    def _clip_grad_norm(self, model: Any) -> Any:
        """The gradient norm before clipping. Raises `ModelError` when it is not finite, except under fp16, whose loss
        scaling meets infinities on purpose and skips those steps."""
        norm = super()._clip_grad_norm(model)  # type: ignore[no-untyped-call]
        if not self.args.fp16:
            self._refuse_non_finite("gradient norm", norm)
        return norm

    def evaluate(
        self, eval_dataset: Any = None, ignore_keys: Any = None, metric_key_prefix: str = "eval"
    ) -> dict[str, float]:
        """Mean negative log-likelihood per target of the validation rows, in nats, and its exponential.

        Sums first and divides once (the mean of batch means, Transformers' default, depends on the batch size).
        """
        started = time.perf_counter()
        self._weights.eval()
        sums = torch.zeros(2, dtype=torch.float64)
        for batch in self.get_eval_dataloader():
            sums += self._nll_sum_and_targets(batch)
        nll_nats, n_targets = self.accelerator.reduce(sums.to(self._sum_device())).tolist()
        loss = nll_nats / n_targets
        self._weights.train()
        self.eval_seconds += time.perf_counter() - started
        self._refuse_non_finite("validation loss", loss)
        metrics = {"eval_loss": loss, "perplexity": math.exp(min(loss, MAX_EXPONENT_NATS))}
        self.log(dict(metrics))
        self.control = self.callback_handler.on_evaluate(self.args, self.state, self.control, metrics)
        return metrics

    def _nll_sum_and_targets(self, batch: Batch) -> torch.Tensor:
        inputs = self._prepare_inputs(batch)
        n_targets = int((torch.as_tensor(batch["labels"]) != IGNORED).sum())
        with torch.no_grad():
            # divided by one, the loss is the sum
            nll = self.compute_loss(self._weights, inputs, num_items_in_batch=torch.tensor(1, device=self.args.device))
        return torch.tensor([float(nll) / self.accelerator.num_processes, n_targets], dtype=torch.float64)

    def _sum_device(self) -> torch.device:
        """Where sums are reduced: one process keeps them in float64 on the CPU (mps has no float64)."""
        return self.args.device if self.accelerator.num_processes > 1 else torch.device("cpu")

    def _collate(self, items: list[dict[str, int]]) -> Batch:
        batch = [self._sequences[item["sequence"]] for item in items]
        return collate(batch, self._layout, self._pad_token_id)

    def _get_train_sampler(self, train_dataset: Any = None) -> Sampler[int]:
        group_size = self.args.train_batch_size * self.args.gradient_accumulation_steps * self.args.world_size
        return EpochOrder(self._lengths, group_size, self.args.seed, by_length=self._layout == "padded")

    def _refuse_non_finite(self, what: str, value: torch.Tensor | float) -> None:
        if not math.isfinite(float(value)):
            raise ModelError(
                f"the {what} is {float(value)} at step {self.state.global_step + 1}; nothing is saved; lower the "
                f"phase's learning_rate (now {self.args.learning_rate:g}) or train.max_grad_norm, raise "
                "train.warmup_ratio, or choose hardware.precision bf16 instead of fp16"
            )

    def create_model_card(self, *args: Any, **kwargs: Any) -> None:
        """TRL writes one beside every checkpoint; the package stage writes ours."""

    def _send_telemetry(self) -> None:
        """TRL reports each training to its makers; a reproducible run talks to nobody."""


def _numbers(start: int, end: int) -> Dataset:
    """What TRL takes for a dataset: the numbers of sequences, which `_collate` looks up."""
    return Dataset.from_dict({"sequence": list(range(start, end))})
