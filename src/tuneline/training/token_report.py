"""What stands in the tokens: figures for the metrics file, and a few rows rendered with their targets marked."""

from collections.abc import Iterator, Sequence
from itertools import groupby

from transformers import PreTrainedTokenizerBase

from tuneline.training.tokenized import KINDS, SPECIAL_TOKEN, TOO_LONG, TOOLS, Counts
from tuneline.training.tokens import IGNORED, TokenRow


def token_metrics(train: Counts, val: Counts) -> dict[str, float | int]:
    """Counts over the training rows, and how many validation rows there are. Needs at least one training row."""
    lengths = sorted(train.lengths.elements())
    n_tokens, n_trained = sum(lengths), train.n_targets
    return {
        "n_train_rows": train.n_rows,
        "n_val_rows": val.n_rows,
        "n_tokens": n_tokens,
        "n_trained_tokens": n_trained,
        "trained_token_fraction": n_trained / n_tokens,
        "row_tokens_p50": percentile(lengths, 50),
        "row_tokens_p95": percentile(lengths, 95),
        "row_tokens_max": lengths[-1],
        "n_truncated_rows": train.left_out[TOO_LONG] + val.left_out[TOO_LONG],
        "truncated_fraction": train.truncated_fraction,
        "left_out_fraction": train.left_out_fraction,
        "n_special_token_rows": train.left_out[SPECIAL_TOKEN] + val.left_out[SPECIAL_TOKEN],
        "n_tools_rows": train.left_out[TOOLS] + val.left_out[TOOLS],
        **{f"n_unused_rows_{kind}": train.unused[kind] + val.unused[kind] for kind in KINDS},
    }


def unused_note(counts: Counts, split: str) -> str | None:
    """One line on the rows that the objective cannot use, and what would; None when there are none."""
    if not counts.unused:
        return None
    found = ", ".join(f"{n} {KINDS[kind]}" for kind, n in sorted(counts.unused.items()))
    return f"{split}: rows of other kinds, not used by this phase: {found}"


def percentile(ascending: Sequence[int], percent: int) -> int:
    """The smallest value that at least `percent` per cent of the values do not exceed (nearest rank)."""
    rank = -(-percent * len(ascending) // 100)
    return ascending[max(1, rank) - 1]


def preview(tokenizer: PreTrainedTokenizerBase, counts: Counts, title: str) -> str:
    """Markdown of the first rows, run by run: what is trained stands under a mark of its own."""
    shown = counts.first
    told = f"What the model sees, and what it is **trained** to say, in {len(shown)} of {counts.n_rows} rows.\n"
    head = f"# {title}\n\n{told}"
    return "\n".join([head, *(_row_preview(tokenizer, row) for row in shown)])


def _row_preview(tokenizer: PreTrainedTokenizerBase, row: TokenRow) -> str:
    title = f"## Row {row.id}: {len(row.input_ids)} tokens, {row.n_targets} trained\n"
    return "\n".join([title, *_runs(tokenizer, row)])


def _runs(tokenizer: PreTrainedTokenizerBase, row: TokenRow) -> Iterator[str]:
    pairs = list(zip(row.input_ids, row.labels, strict=True))
    for is_target, run in groupby(pairs, key=lambda pair: pair[1] != IGNORED):
        ids = [token for token, _ in run]
        mark = "**trained**" if is_target else "context"
        yield f"{mark}, {len(ids)} tokens:\n\n{_fenced(str(tokenizer.decode(ids)))}\n"


def _fenced(text: str) -> str:
    """A code block whose fence is longer than any run of backticks in the text."""
    longest = max((len(list(run)) for is_tick, run in groupby(text, "`".__eq__) if is_tick), default=0)
    fence = "`" * max(3, longest + 1)
    return f"{fence}text\n{text}\n{fence}"
