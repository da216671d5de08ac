"""What happens beside training: progress on the terminal, and the best weights kept."""

import json
import sys
import time
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from tqdm import tqdm  # type: ignore[import-untyped]  # no stubs
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments
from transformers.trainer_utils import IntervalStrategy

_BEST, _COUNTS = "best.safetensors", "best.json"


class BestWeights(TrainerCallback):
    """Stops after `patience` validations without improvement; `restore` puts the best weights back.

    They are kept in host memory: for an adapter that is little, for a full model a copy of the weights.
    """

    def __init__(self, patience: int) -> None:
        self._patience = patience
        self._n_since_best = 0
        self._best: dict[str, torch.Tensor] = {}
        self.best_loss_nats = float("inf")
        self.best_step = 0

    def on_evaluate(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Keep the weights when the validation loss is the lowest so far, else count."""
        loss = kwargs["metrics"]["eval_loss"]
        if loss < self.best_loss_nats:
            self.best_loss_nats, self.best_step, self._n_since_best = loss, state.global_step, 0
            self._best = {name: p.detach().to("cpu", copy=True) for name, p in _trained(kwargs["model"])}
            return
        self._n_since_best += 1
        if self._n_since_best >= self._patience:  # else it stays as it is: max_steps may have set it
            control.should_training_stop = True

    def save(self, folder: Path) -> None:
        """Write the best weights and the counts into `folder`, for `load` in another process."""
        counts = {"n_since_best": self._n_since_best, "best_step": self.best_step, "loss": self.best_loss_nats}
        (folder / _COUNTS).write_text(json.dumps(counts), encoding="utf-8")
        save_file(self._best, folder / _BEST)

    def load(self, folder: Path) -> None:
        """Continue from what `save` wrote."""
        counts = json.loads((folder / _COUNTS).read_text(encoding="utf-8"))
        self._n_since_best, self.best_step, self.best_loss_nats = (
            counts[key] for key in ("n_since_best", "best_step", "loss")
        )
        self._best = load_file(folder / _BEST)

    def restore(self, model: torch.nn.Module) -> None:
        """Put the weights of `best_step` back into `model`."""
        with torch.no_grad():
            for name, parameter in _trained(model):
                parameter.copy_(self._best[name])


class LastStep(TrainerCallback):
    """Logs and validates at the last step, wherever `logging_steps` and `eval_steps` fall: the curve has an end."""

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Ask for both at `max_steps`."""
        if state.global_step >= state.max_steps:
            control.should_log = True
            control.should_evaluate = args.eval_strategy != IntervalStrategy.NO


class Progress(TrainerCallback):
    """A bar with loss and time left in a terminal; a plain line per logged point in a pipe."""

    def __init__(self) -> None:
        self._bar: tqdm | None = None
        self._started, self._first_step = time.monotonic(), 0  # of this process: a resumed run begins later

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Open the bar, or say how much there is to do."""
        self._started, self._first_step = time.monotonic(), state.global_step
        if sys.stderr.isatty():
            self._bar = tqdm(total=state.max_steps, initial=state.global_step, unit="step", dynamic_ncols=True)
        else:
            _say(f"train: {state.max_steps} steps of {args.train_batch_size * args.gradient_accumulation_steps} rows")

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Move the bar."""
        if self._bar is not None:
            self._bar.update(1)

    def on_log(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Show the newest figures."""
        figures = {key: kwargs["logs"][key] for key in ("loss", "eval_loss", "learning_rate") if key in kwargs["logs"]}
        text = ", ".join(f"{key} {value:.4g}" for key, value in figures.items())
        if self._bar is not None:
            self._bar.set_postfix_str(text)
        elif figures:
            n_left = state.max_steps - state.global_step
            seconds = (time.monotonic() - self._started) / max(1, state.global_step - self._first_step) * n_left
            left = f", {seconds:.0f} s left" if n_left else ""
            _say(f"train: step {state.global_step}/{state.max_steps}, {text}{left}")

    def on_train_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Close the bar."""
        if self._bar is not None:
            self._bar.close()


def _trained(model: torch.nn.Module) -> list[tuple[str, torch.nn.Parameter]]:
    return [(name, parameter) for name, parameter in model.named_parameters() if parameter.requires_grad]


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)
