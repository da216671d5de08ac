"""Compare one GGUF with the merged model it came from: tokens, logits, task score; fail outside its budget."""

from tuneline.config.params import read_params
from tuneline.entry import run, stage_arguments
from tuneline.export.budget import check_link
from tuneline.export.quantize import gguf_type
from tuneline.export.verified import Judge, read_rows, verify_link, write_verified
from tuneline.export.verify import Link


def main() -> None:
    paths = ("gguf", "merged", "test", "reference", "resources", "predictions", "metrics", "speed")
    args = stage_arguments(__doc__, *paths, names=("type",))
    params = read_params(args.params)
    link = Link(args.merged, args.gguf, gguf_type(args.type))
    rows = read_rows(args.test, args.reference, params.export.verify_examples, params.export.score_examples)
    judge = Judge(params.eval.task, args.resources, params.eval.statement_timeout_s, params.eval.confidence)
    budget = params.export.budgets[link.type]
    verified = verify_link(
        link, rows, judge, budget, n_ctx=params.export.n_ctx, max_new_tokens=params.eval.max_new_tokens
    )
    # before the check, so that a failure can be looked into
    write_verified(verified, args.predictions, args.metrics, args.speed)
    check_link(
        link.type,
        verified.metrics,
        budget,
        outtype=params.export.outtype,
        all_within_budget=params.export.all_within_budget,
    )


if __name__ == "__main__":
    run(main)
