"""Let the merged model answer the held-out questions as evaluate does, and compare its score with the tuned model's."""

from tuneline.config.params import read_params
from tuneline.entry import run, stage_arguments
from tuneline.evaluation.heldout import read_heldout
from tuneline.evaluation.metrics import likelihood_metrics
from tuneline.evaluation.tasks import make_scorer
from tuneline.export.answers import Judged, loss_metrics, with_reference
from tuneline.model.devices import take_devices
from tuneline.output import write_figures, write_metrics
from tuneline.shortage import out_of_memory_names


def main() -> None:
    args = stage_arguments(__doc__, "test", "merged", "reference", "resources", "predictions", "metrics", "speed")
    params = read_params(args.params)
    hardware, confidence = params.hardware, params.eval.confidence
    take_devices(hardware.device, hardware.num_devices)
    # imported late: what PyTorch sees is what was taken
    from tuneline.evaluation.answering import answer_all, encode_questions, write_answers
    from tuneline.model.loading import load_merged
    from tuneline.model.tokenizers import load_tokenizer_from

    examples, reference = with_reference(read_heldout(args.test, params.eval.max_examples), args.reference)
    scorer = make_scorer(params.eval.task, examples, args.resources, params.eval.statement_timeout_s)
    room = (params.eval.max_new_tokens, params.export.n_ctx)
    questions = encode_questions(load_tokenizer_from(args.merged), examples, *room)
    with out_of_memory_names("evaluate_merged", f"lower hardware.eval_batch_size (now {hardware.eval_batch_size})"):
        merged = answer_all(load_merged(args.merged, hardware), questions, scorer, hardware.eval_batch_size, "merged")
    write_answers(args.predictions, merged.rows)
    judged = [Judged(row.score, row.ended) for row in merged.rows]
    metrics = likelihood_metrics(merged.likelihoods, confidence, params.seed)
    metrics |= loss_metrics(judged, reference, confidence)
    write_metrics(args.metrics, metrics, "n_examples", "perplexity")
    write_figures(args.speed, merged.speed)


if __name__ == "__main__":
    run(main)
