"""Stage inspect: make the tokens that a phase trains on, and refuse those that would train badly."""

from tuneline.config.params import read_params
from tuneline.data.progress import n_lines, watched
from tuneline.data.record_files import iterate_examples
from tuneline.data.records import Example
from tuneline.entry import run, stage_arguments
from tuneline.model.tokenizers import load_tokenizer, stop_token_ids
from tuneline.output import atomic_folder, write_metrics, write_text
from tuneline.training.token_report import preview, token_metrics, unused_note
from tuneline.training.tokenized import Counts, Tokenized, check_left_out, check_rows, write_split
from tuneline.training.tokenizing import in_pieces, tokenize


def main() -> None:
    """Read the splits, write tokens, figures and a preview."""
    args = stage_arguments(__doc__, "splits", "out", "metrics", "preview", names=("phase",))
    params = read_params(args.params)
    phase, allowed_fraction = params.recipe.phases[args.phase], params.train.max_truncated_fraction
    tokenizer = load_tokenizer(params.model)
    stops = stop_token_ids(params.model, tokenizer)

    def tokenized(examples: list[Example]) -> Tokenized:
        return tokenize(tokenizer, examples, phase.objective, phase.max_length, stops)

    counts: dict[str, Counts] = {}
    with atomic_folder(args.out) as folder, (folder / "left_out.jsonl").open("wb") as left_out:
        for split in ("train", "val"):
            path = args.splits / f"{split}.jsonl"
            shown = watched(iterate_examples(path), f"inspect {split}", n_lines(path))
            counts[split] = write_split(folder / f"{split}.parquet", left_out, in_pieces(shown, tokenized))
            if note := unused_note(counts[split], split):
                print(note)
            check_left_out(counts[split], split, phase.max_length, allowed_fraction)
        check_rows(counts["train"], phase.objective, args.splits)
    write_metrics(args.metrics, token_metrics(counts["train"], counts["val"]), "n_trained_tokens", "n_train_rows")
    write_text(args.preview, preview(tokenizer, counts["train"], f"Tokens of phase {args.phase}"))


if __name__ == "__main__":
    run(main)
