"""Stage train: one phase of the recipe, from its tokens and its starting weights to an adapter or a full model."""

import json
import time

from tuneline.config.params import read_params
from tuneline.entry import run, stage_arguments
from tuneline.model.loading import load_tokenizer
from tuneline.model.memory import check_memory
from tuneline.model.methods import initial_model
from tuneline.model.saving import save_model
from tuneline.output import atomic_folder, write_metrics, write_text
from tuneline.training.checkpoints import checkpoint_folder, fingerprint
from tuneline.training.interruption import end_with_parent
from tuneline.training.loop import train
from tuneline.training.tokens import read_tokens
from tuneline.training.tracking import tracked_run


def main() -> None:
    """Check that it fits, load, train (from the last checkpoint, if this very training was interrupted), save."""
    args = stage_arguments(__doc__, "tokens", "init", "checkpoints", "out", "log", "speed", names=("phase",))
    end_with_parent()
    started = time.perf_counter()
    params = read_params(args.params)
    phase = params.recipe.phases[args.phase]
    science = params.train.model_dump(exclude={"save_steps", "save_total_limit"})
    what = (phase, params.model, params.method, params.lora, params.quantization, params.hardware)
    values = [science, params.seed, *(part and part.model_dump() for part in what)]
    rows = {split: read_tokens(args.tokens / f"{split}.parquet") for split in ("train", "val")}
    check_memory(params.model, params.method, params.lora, params.quantization, params.hardware, phase.max_length)
    with checkpoint_folder(args.checkpoints / fingerprint(values, [args.tokens, args.init])) as checkpoints:
        tokenizer = load_tokenizer(params.model)
        model = initial_model(
            args.init, params.model, params.method, params.lora, params.quantization, params.hardware, params.seed
        )
        with tracked_run(params.tracking, args.phase, phase.model_dump()) as report_to:
            outcome = train(
                model,
                tokenizer,
                rows["train"],
                rows["val"],
                phase,
                params.train,
                params.hardware,
                params.seed,
                report_to,
                checkpoints,
            )
        log = json.dumps(outcome.log, indent=2, sort_keys=True, allow_nan=False)  # raises before anything is written
        with atomic_folder(args.out) as folder:
            save_model(model, tokenizer, folder)
        write_text(args.log, log + "\n")
        write_metrics(args.speed, {**outcome.speed, "stage_seconds": time.perf_counter() - started})


if __name__ == "__main__":
    run(main)
