"""Divide clean examples into train, validation and test rows, without what gives held-out rows away, and mix."""

from functools import partial

from tuneline.config.params import read_params
from tuneline.data.parallel import n_cores
from tuneline.data.progress import watched
from tuneline.data.splitting import count_sides, divide, mix_training_rows, refuse_contamination, write_sides
from tuneline.entry import run, stage_arguments
from tuneline.output import atomic_folder, scratch_folder, write_metrics


def main() -> None:
    args = stage_arguments(__doc__, "examples", "out", "metrics")
    params = read_params(args.params)
    with scratch_folder(args.out) as scratch:
        shown = partial(watched, n_total=None)
        divided = divide([args.examples], params.data.sources, params.split, n_cores(), scratch, shown)
    refuse_contamination(divided, params.split.contamination, args.out / "contamination.jsonl")
    if divided.pairs:
        print(f"{len(divided.pairs)} training rows give held-out rows away: {args.out / 'contamination.jsonl'}")
    mixed = mix_training_rows(divided, params.data.mixture, params.split, params.seed)
    for note in mixed.notes():
        print(note)
    with atomic_folder(args.out) as folder:
        write_sides(folder, divided, mixed)
    write_metrics(args.metrics, count_sides(divided, mixed), "n_train", "n_val", "n_test")


if __name__ == "__main__":
    run(main)
