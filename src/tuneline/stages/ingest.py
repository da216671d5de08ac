"""Read every source strictly, turn its rows into canonical examples, and keep the rest with reasons."""

from functools import partial
from pathlib import Path

from tuneline.config.params import read_params
from tuneline.data.accounting import Tally
from tuneline.data.adapting import RULES
from tuneline.data.ingesting import IngestOutputs, ingest
from tuneline.data.opening import Additions
from tuneline.data.parallel import n_cores
from tuneline.data.progress import watched
from tuneline.entry import run, stage_arguments
from tuneline.output import write_metrics


def main() -> None:
    args = stage_arguments(__doc__, "examples", "rejected", "metrics")
    params = read_params(args.params)
    sources = params.data.sources

    def check(tally: Tally) -> None:
        tally.check(params.data.max_rejected_fraction, "data.max_rejected_fraction", args.rejected)

    additions = Additions(params.data.meta_fields, params.data.system_prompt, Path())
    outputs = IngestOutputs(args.examples, args.rejected)
    ingested = ingest(sources, additions, outputs, n_cores(), partial(watched, n_total=None), check)
    for note in ingested.notes:
        print(note)
    write_metrics(args.metrics, ingested.tally.metrics(RULES, sources), "n_read", "n_kept", "n_rejected")


if __name__ == "__main__":
    run(main)
