"""Apply the cleaning rules: clean examples, rejected rows with rule and reason, clusters of copies, counts per rule."""

from functools import partial

from tuneline.config.params import read_params
from tuneline.data.accounting import Tally
from tuneline.data.cleaning import clean_files, rule_names
from tuneline.data.progress import watched
from tuneline.data.row_rules import CHANGES
from tuneline.data.writing import Outputs
from tuneline.entry import run, stage_arguments
from tuneline.output import write_metrics


def main() -> None:
    args = stage_arguments(__doc__, "examples", "out", "rejected", "clusters", "metrics")
    params = read_params(args.params)
    sources, rules = params.data.sources, params.clean

    def check(tally: Tally) -> None:
        tally.check(rules.max_rejected_fraction, "clean.max_rejected_fraction", args.rejected)

    outputs = Outputs(args.out, args.rejected, args.clusters)
    shown = partial(watched, what="clean", n_total=None)
    tally = clean_files([args.examples], outputs, sources, rules, shown, check)
    metrics = tally.metrics(rule_names(rules), sources) | tally.changed_metrics(CHANGES)
    write_metrics(args.metrics, metrics, "n_read", "n_kept", "n_rejected")


if __name__ == "__main__":
    run(main)
