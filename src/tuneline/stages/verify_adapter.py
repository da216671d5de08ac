"""Compare base and adapter, each in a GGUF of its own, with the adapter in PyTorch; fail outside the budget."""

from tuneline.config.params import read_params
from tuneline.entry import run, stage_arguments
from tuneline.export.adapter_link import AdapterLink, check_adapter_link
from tuneline.export.quantize import gguf_type
from tuneline.export.verified import Judge, read_rows, verify_link, write_verified


def main() -> None:
    paths = ("gguf", "adapter_gguf", "adapter", "test", "reference", "resources", "predictions", "metrics", "speed")
    args = stage_arguments(__doc__, *paths, names=("type",))
    params = read_params(args.params)
    link = AdapterLink(args.adapter, args.gguf, gguf_type(args.type), args.adapter_gguf, base=params.model)
    rows = read_rows(args.test, args.reference, params.export.verify_examples, params.export.score_examples)
    judge = Judge(params.eval.task, args.resources, params.eval.statement_timeout_s, params.eval.confidence)
    budget = params.export.budgets[link.type]
    verified = verify_link(
        link, rows, judge, budget, n_ctx=params.export.n_ctx, max_new_tokens=params.eval.max_new_tokens
    )
    # before the check, so that a failure can be looked into
    write_verified(verified, args.predictions, args.metrics, args.speed)
    check_adapter_link(link.type, verified.metrics, budget)


if __name__ == "__main__":
    run(main)
