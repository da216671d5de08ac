"""Divide clean examples into train, validation and test rows, and take out what the test holds too."""

from tuneline.config.params import read_params
from tuneline.data.records import read_examples, write_examples, write_rejected
from tuneline.data.splitting import count_sides, split
from tuneline.entry import run, stage_arguments
from tuneline.output import atomic_folder, write_metrics


def main() -> None:
    args = stage_arguments(__doc__, "examples", "out", "metrics")
    params = read_params(args.params)
    splits = split(read_examples(args.examples), params.data.sources, params.split)
    with atomic_folder(args.out) as folder:
        write_examples(folder / "train.jsonl", splits.train)
        write_examples(folder / "val.jsonl", splits.val)
        write_examples(folder / "test.jsonl", splits.test)
        write_rejected(folder / "rejected.jsonl", splits.rejected)
    write_metrics(args.metrics, count_sides(splits, params.data.sources))


if __name__ == "__main__":
    run(main)
