"""Apply the cleaning rules: clean examples, rejected rows with rule and reason, clusters of copies, counts per rule."""

from functools import partial

from tuneline.data import parallel
from tuneline.entry import run, stage_arguments


def main() -> None:
    args = stage_arguments(__doc__, "examples", "out", "rejected", "clusters", "metrics")
    parallel.begin()  # before the imports here, so that the workers' are made at the same time
    from tuneline.config.params import read_params
    from tuneline.data.cleaning import clean_within_limit
    from tuneline.data.progress import watched
    from tuneline.data.writing import CleanOutputs
    from tuneline.output import write_metrics

    params = read_params(args.params)
    outputs = CleanOutputs(args.out, args.rejected, args.clusters)
    shown = partial(watched, what="clean", n_total=None)
    metrics = clean_within_limit([args.examples], outputs, params.data.sources, params.clean, shown)
    write_metrics(args.metrics, metrics, "n_read", "n_kept", "n_rejected")


if __name__ == "__main__":
    run(main)
