"""Make one adapter or model of several, and compare it with each of them."""

from pathlib import Path

from tuneline.config.params import read_params
from tuneline.entry import run, stage_arguments
from tuneline.export.combine import check_combination, combine, float64_difference, needed_bytes
from tuneline.export.room import check_room
from tuneline.export.rows import held_out_rows
from tuneline.model.tokenizers import load_tokenizer_from
from tuneline.output import atomic_folder, write_metrics


def main() -> None:
    args = stage_arguments(__doc__, "test", "out", "metrics")
    params = read_params(args.params)
    settings = params.merge.combine
    assert settings is not None  # config.rules: there is no such stage without
    check_room(args.out, needed_bytes(settings))
    tokenizer = load_tokenizer_from(Path(settings.sources[0].path))
    rows = held_out_rows(args.test, params.merge.check_examples, tokenizer, params.model)
    with atomic_folder(args.out) as folder:
        metrics = combine(settings, params.model, params.seed, folder, rows)
        allowed = params.merge.max_relative_logit_diff
        metrics |= float64_difference(settings, params.model, allowed, folder, rows, metrics)
        write_metrics(args.metrics, metrics, "n_sources")  # before the check, so that a failure can be looked into
        check_combination(metrics, settings, allowed)


if __name__ == "__main__":
    run(main)
