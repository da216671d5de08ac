"""Put the adapter into its base, write the standalone model, and compare what was written with what was trained."""

from tuneline.config.params import read_params
from tuneline.entry import run, stage_arguments
from tuneline.export.merge import check_merge, float64_difference, four_bit_distance, merge
from tuneline.export.rows import held_out_rows
from tuneline.model.tokenizers import load_tokenizer_from
from tuneline.output import atomic_folder, write_metrics


def main() -> None:
    args = stage_arguments(__doc__, "tuned", "test", "out", "metrics")
    params = read_params(args.params)
    tokenizer = load_tokenizer_from(args.tuned)
    rows = held_out_rows(args.test, params.merge.check_examples, tokenizer, params.model)
    with atomic_folder(args.out) as folder:
        metrics = merge(args.tuned, params.model, params.merge.dtype, folder, rows)
        metrics |= float64_difference(args.tuned, params.model, params.merge, folder, rows, metrics)
        metrics |= four_bit_distance(args.tuned, params.model, params.quantization, folder, rows)
        # before the check, so that a failure can be looked into
        write_metrics(args.metrics, metrics, "n_tokens", "relative_logit_diff")
        check_merge(metrics, params.merge)


if __name__ == "__main__":
    run(main)
