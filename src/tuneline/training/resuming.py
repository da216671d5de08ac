"""What a checkpoint must hold beside the trainer's own files for a resumed run to be the very same run."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from tuneline.training.callbacks import BestWeights
from tuneline.training.checkpoints import seal
from tuneline.training.interruption import StopRequest

if TYPE_CHECKING:
    from tuneline.training.objectives import TokenTrainer

_LOG_SUMS = "log_sums.json"


class Checkpoints(TrainerCallback):
    """Completes and seals each checkpoint, puts back what the trainer forgets, and saves when an end is asked for.

    The trainer forgets the loss summed up since the last point of the curve, and early stopping its best weights.
    """

    def __init__(self, request: StopRequest, best: BestWeights | None, resumed: Path | None) -> None:
        self._request, self._best, self._resumed = request, best, resumed
        self.trainer: TokenTrainer | None = None  # it takes its callbacks when it is made

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Continue the sums and the best weights of the checkpoint."""
        assert self.trainer is not None
        if self._resumed is not None:
            sums = json.loads((self._resumed / _LOG_SUMS).read_text(encoding="utf-8"))
            self.trainer._tr_loss += torch.tensor(sums["loss"], device=args.device)
            self.trainer._globalstep_last_logged = sums["last_logged_step"]
            if self._best is not None:
                self._best.load(self._resumed)

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Save and stop here when a signal came during the step; the last step ends the training anyway."""
        if self._request.name is not None and state.global_step < state.max_steps:
            control.should_save = control.should_training_stop = True

    def on_save(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Add what is missing, then the manifest."""
        assert self.trainer is not None
        assert args.output_dir is not None
        checkpoint = Path(args.output_dir) / f"checkpoint-{state.global_step}"
        sums = {
            "loss": float(self.trainer._tr_loss),  # a float32 or float64, which JSON keeps to the last bit
            "last_logged_step": self.trainer._globalstep_last_logged,
        }
        (checkpoint / _LOG_SUMS).write_text(json.dumps(sums), encoding="utf-8")
        if self._best is not None:
            self._best.save(checkpoint)
        seal(checkpoint)
