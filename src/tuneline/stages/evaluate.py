"""Let the base and the tuned model answer the held-out questions, and score both."""

from tuneline.config.params import read_params
from tuneline.entry import run, stage_arguments
from tuneline.evaluation.heldout import read_heldout
from tuneline.evaluation.metrics import comparison_metrics, prefixed
from tuneline.evaluation.picture import draw_scores
from tuneline.evaluation.tasks import make_scorer
from tuneline.model.devices import take_devices
from tuneline.output import atomic_folder, write_figures, write_metrics
from tuneline.shortage import out_of_memory_names


def main() -> None:
    args = stage_arguments(__doc__, "test", "tuned", "resources", "predictions", "metrics", "speed", "picture")
    params = read_params(args.params)
    model, hardware, quantization = params.model, params.hardware, params.quantization
    take_devices(hardware.device, hardware.num_devices)
    # imported late: bitsandbytes opens every GPU that it sees
    from tuneline.evaluation.answering import answer_all, encode_questions, write_answers
    from tuneline.model.adapters import bare_model, load_tuned
    from tuneline.model.loading import load_base
    from tuneline.model.tokenizers import load_tokenizer, load_tokenizer_from

    # Everything that can be wrong with the rows is found before a model is loaded.
    examples = read_heldout(args.test, params.eval.max_examples)
    scorer = make_scorer(params.eval.task, examples, args.resources, params.eval.statement_timeout_s)
    room = (params.eval.max_new_tokens, params.export.n_ctx)
    base_questions = encode_questions(load_tokenizer(model), examples, *room)
    tuned_questions = encode_questions(load_tokenizer_from(args.tuned), examples, *room)

    with out_of_memory_names("evaluate", f"lower hardware.eval_batch_size (now {hardware.eval_batch_size})"):
        base = answer_all(
            load_base(model, hardware, quantization), base_questions, scorer, hardware.eval_batch_size, "base"
        )
        tuned = answer_all(
            bare_model(load_tuned(args.tuned, model, hardware, quantization)),
            tuned_questions,
            scorer,
            hardware.eval_batch_size,
            "tuned",
        )

    with atomic_folder(args.predictions) as folder:
        write_answers(folder / "base.jsonl", base.rows)
        write_answers(folder / "tuned.jsonl", tuned.rows)
    draw_scores(args.picture, {"base": base.scores, "tuned": tuned.scores}, params.eval.confidence)
    metrics = comparison_metrics(base, tuned, params.eval.confidence, params.seed)
    write_metrics(args.metrics, metrics, "n_examples", "base_perplexity", "tuned_perplexity")
    write_figures(args.speed, prefixed("base_", base.speed) | prefixed("tuned_", tuned.speed))


if __name__ == "__main__":
    run(main)
