"""Stage train: one phase of the recipe, from its tokens and its starting weights to an adapter or a full model."""

import json
import signal
import time

from tuneline.config.params import read_params
from tuneline.entry import end_with_parent, run, stage_arguments
from tuneline.export.room import check_room
from tuneline.model.devices import take_devices
from tuneline.output import atomic_folder, write_figures, write_text
from tuneline.training import checkpoints as keeping
from tuneline.training.tracking import tracked_run


def main() -> None:
    """Check that it fits, load, train (from the last checkpoint, if this very training was interrupted), save."""
    args = stage_arguments(__doc__, "tokens", "init", "checkpoints", "out", "log", "speed", names=("phase",))
    end_with_parent(signal.SIGTERM)  # it saves before it ends
    params = read_params(args.params)
    take_devices(params.hardware.device, params.hardware.num_devices)
    started = time.perf_counter()
    # imported late: bitsandbytes opens every GPU that it sees
    from tuneline.model.memory import check_memory
    from tuneline.model.methods import initial_model
    from tuneline.model.saving import save_model
    from tuneline.model.tokenizers import load_tokenizer
    from tuneline.training.loop import train
    from tuneline.training.tokens import read_tokens

    phase = params.recipe.phases[args.phase]
    settings, hardware, seed = params.train, params.hardware, params.seed
    what = (phase, params.model, params.method, params.lora, params.quantization, hardware)
    values = [settings.model_dump(exclude=set(keeping.KEEPING)), seed, *(part and part.model_dump() for part in what)]
    rows = {split: read_tokens(args.tokens / f"{split}.parquet") for split in ("train", "val")}
    check_memory(params.model, params.method, params.lora, params.quantization, hardware, phase.max_length)
    tokenizer = load_tokenizer(params.model)  # a base that is refused leaves no folder for checkpoints
    fingerprint = keeping.fingerprint(values, [args.tokens, args.init])
    with keeping.checkpoint_folder(args.checkpoints / fingerprint) as checkpoints:
        keeping.drop_oldest(args.checkpoints, settings.unfinished_kept, settings.unfinished_max_gib)
        model = initial_model(args.init, params.model, params.method, params.lora, params.quantization, hardware, seed)
        needed_bytes = keeping.needed_bytes(model.num_parameters(only_trainable=True), settings, hardware)
        check_room(checkpoints / "new", needed_bytes - keeping.size_bytes(checkpoints))
        with tracked_run(params.tracking, args.phase, phase.model_dump()) as report_to:
            outcome = train(
                model, tokenizer, rows["train"], rows["val"], phase, settings, hardware, seed, report_to, checkpoints
            )
        log = json.dumps(outcome.log, indent=2, sort_keys=True, allow_nan=False)  # raises before anything is written
        with atomic_folder(args.out) as folder:
            save_model(model, tokenizer, folder)
        write_text(args.log, log + "\n")
        write_figures(args.speed, {**outcome.speed, "stage_seconds": time.perf_counter() - started})


if __name__ == "__main__":
    run(main)
