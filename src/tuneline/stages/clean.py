"""Apply the cleaning rules: clean examples, rejected rows with rule and reason, and a count per rule."""

from tuneline.config.params import read_params
from tuneline.data.accounting import check_survivors, count_rows
from tuneline.data.cleaning import clean, rule_names
from tuneline.data.progress import watched
from tuneline.data.records import read_examples, write_examples, write_rejected
from tuneline.entry import run, stage_arguments
from tuneline.output import write_metrics


def main() -> None:
    args = stage_arguments(__doc__, "examples", "out", "rejected", "metrics")
    params = read_params(args.params)
    examples = read_examples(args.examples)
    cleaned = clean(watched(examples, "clean", len(examples)), params.data.sources, params.clean)
    # First, and also when the check fails: a failed run leaves the reasons behind, but no examples.
    write_rejected(args.rejected, cleaned.rejected)
    check_survivors(
        len(cleaned.examples),
        cleaned.rejected,
        params.clean.max_rejected_fraction,
        "clean.max_rejected_fraction",
        args.rejected,
    )
    write_examples(args.out, cleaned.examples)
    counts = count_rows(cleaned.examples, cleaned.rejected, rule_names(params.clean), params.data.sources)
    write_metrics(args.metrics, counts | cleaned.redaction_counts())


if __name__ == "__main__":
    run(main)
