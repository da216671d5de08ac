"""Compare base and adapter, each in a GGUF of its own, with the adapter in PyTorch; fail outside the budget."""

from tuneline.config.params import read_params
from tuneline.entry import run, stage_arguments
from tuneline.evaluation.heldout import read_heldout
from tuneline.evaluation.tasks import score
from tuneline.export.adapter_link import AdapterLink, check_adapter_link
from tuneline.export.answers import Judged, loss_metrics, read_reference, write_answers
from tuneline.export.budget import outside_budget
from tuneline.export.quantize import gguf_type
from tuneline.export.verify import measure
from tuneline.output import write_figures, write_metrics


def main() -> None:
    paths = ("gguf", "adapter_gguf", "adapter", "test", "reference", "resources", "predictions", "metrics", "speed")
    args = stage_arguments(__doc__, *paths, names=("type",))
    params = read_params(args.params)
    link = AdapterLink(args.adapter, args.gguf, gguf_type(args.type), args.adapter_gguf, base=params.model)
    heldout = read_heldout(args.test, params.export.score_examples)
    reference = read_reference(args.reference, heldout)
    asked = [example for example in heldout if example.id in reference]
    compared = read_heldout(args.test, params.export.verify_examples)
    measured = measure(link, compared, asked, params.export.n_ctx, params.eval.max_new_tokens)
    for name, reason in measured.refused.items():
        print(f"{args.gguf}: the golden conversation {name!r} is not compared: {reason}")
    scores = score(params.eval.task, asked, measured.answers, args.resources, params.eval.statement_timeout_s)
    judged = list(map(Judged, scores, measured.ended))
    metrics = measured.metrics | loss_metrics(judged, [reference[row.id] for row in asked], params.eval.confidence)
    budget = params.export.budgets[link.type]
    metrics |= {"within_budget": int(not outside_budget(metrics, budget))}
    write_answers(args.predictions, asked, measured.answers, judged)
    write_figures(args.speed, measured.speed)
    # before the check, so that a failure can be looked into
    write_metrics(args.metrics, metrics, "n_examples", "n_tokens", "kl_mean_nats", "top1_agreement")
    check_adapter_link(link.type, metrics, budget)


if __name__ == "__main__":
    run(main)
