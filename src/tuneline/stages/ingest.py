"""Read every source strictly, turn its rows into canonical examples, and keep the rest with reasons."""

from functools import partial

from tuneline.config.params import read_params
from tuneline.data.accounting import check_survivors, count_rows
from tuneline.data.ingesting import RULES, Additions, ingest
from tuneline.data.progress import watched
from tuneline.data.records import write_examples, write_rejected
from tuneline.entry import run, stage_arguments
from tuneline.output import write_metrics


def main() -> None:
    args = stage_arguments(__doc__, "examples", "rejected", "metrics")
    params = read_params(args.params)
    additions = Additions(params.data.meta_fields, params.data.system_prompt)
    ingested = ingest(params.data.sources, additions, partial(watched, n_total=None))
    for note in ingested.notes:
        print(note)
    # First, and also when the check fails: a failed run leaves the reasons behind, but no examples.
    write_rejected(args.rejected, ingested.rejected)
    check_survivors(
        len(ingested.examples),
        ingested.rejected,
        params.data.max_rejected_fraction,
        "data.max_rejected_fraction",
        args.rejected,
    )
    write_examples(args.examples, ingested.examples)
    write_metrics(args.metrics, count_rows(ingested.examples, ingested.rejected, RULES, params.data.sources))


if __name__ == "__main__":
    run(main)
