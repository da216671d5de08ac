"""Stage inspect: make the tokens that a phase trains on, and refuse those that would train badly."""

from tuneline.config.params import read_params
from tuneline.data.progress import watched
from tuneline.data.records import read_examples, write_rejected
from tuneline.entry import run, stage_arguments
from tuneline.model.loading import load_tokenizer, stop_token_ids
from tuneline.output import atomic_folder, write_metrics, write_text
from tuneline.training.token_report import preview, token_metrics, unused_note
from tuneline.training.tokens import check_left_out, check_rows, tokenize, write_tokens


def main() -> None:
    """Read the splits, write tokens, figures and a preview."""
    args = stage_arguments(__doc__, "splits", "out", "metrics", "preview", names=("phase",))
    params = read_params(args.params)
    phase, allowed_fraction = params.recipe.phases[args.phase], params.train.max_truncated_fraction
    tokenizer = load_tokenizer(params.model)
    stops = stop_token_ids(params.model, tokenizer)
    tokenized = {}
    for split in ("train", "val"):
        examples = read_examples(args.splits / f"{split}.jsonl")
        shown = watched(examples, f"inspect {split}", len(examples))
        tokenized[split] = tokenize(tokenizer, shown, phase.objective, phase.max_length, stops)
        if note := unused_note(tokenized[split], split):
            print(note)
        check_left_out(tokenized[split], split, phase.max_length, allowed_fraction)
    train, val = tokenized["train"], tokenized["val"]
    check_rows(train, phase.objective, args.splits)
    with atomic_folder(args.out) as folder:
        write_tokens(folder / "train.parquet", train.rows)
        write_tokens(folder / "val.parquet", val.rows)
        write_rejected(folder / "left_out.jsonl", [*train.left_out, *val.left_out])
    write_metrics(args.metrics, token_metrics(train, val))
    write_text(args.preview, preview(tokenizer, train.rows, f"Tokens of phase {args.phase}"))


if __name__ == "__main__":
    run(main)
