"""The held-out examples as evaluation sees them: a prompt to answer, and the answer expected."""

from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path

from tuneline.data.record_files import read_examples
from tuneline.data.records import Example, Message
from tuneline.errors import DataError


def read_heldout(path: Path, max_examples: int | None) -> list[Example]:
    """The conversations in `path` that end with an answer in words; rows of other kinds cannot be asked and stay out.

    `max_examples` of them are chosen by id, a content hash: from all of the file, whatever its order.
    """
    examples = read_examples(path)
    answerable = [example for example in examples if is_answerable(example)]
    if not answerable:
        raise DataError(
            f"{path}: no conversation that ends with an answer in words ({_kinds_found(examples)}); give data.sources "
            "one that has some, with role test"
        )
    if max_examples is None or max_examples >= len(answerable):
        return answerable
    chosen = {example.id for example in sorted(answerable, key=lambda example: example.id)[:max_examples]}
    return [example for example in answerable if example.id in chosen]


def is_answerable(example: Example) -> bool:
    """True for a conversation with something before its last message, which is an assistant's and not a tool call.

    A call is written in each model's own way, so no text could be expected of it.
    """
    return example.kind == "conversation" and len(example.messages) > 1 and not example.messages[-1].tool_calls


def _kinds_found(examples: Sequence[Example]) -> str:
    found = Counter(example.kind for example in examples)
    return ", ".join(f"{n} of kind {kind}" for kind, n in sorted(found.items())) or "no row at all"


def prompt_messages(example: Example) -> tuple[Message, ...]:
    """Everything before the answer: what the model is shown."""
    return example.messages[:-1]


def expected_answer(example: Example) -> str:
    return example.messages[-1].content


def place(example: Example) -> str:
    """Where the example came from, for an error: source:line of the raw file, and its id."""
    return f"{example.place} (example {example.id})"


def check_room(
    examples: Iterable[Example], prompt_tokens: Iterable[int], answer_tokens: Iterable[int], n_ctx: int
) -> None:
    """Raises `DataError` naming the first example whose prompt and longest answer do not fit `n_ctx` tokens.

    That is export.n_ctx, which is at most what the model addresses: a row that is too long for the GGUF must not
    be found only after merging and converting.
    """
    for example, n_prompt, n_answer in zip(examples, prompt_tokens, answer_tokens, strict=True):
        if n_prompt + n_answer > n_ctx:
            raise DataError(
                f"{place(example)}: a prompt of {n_prompt} tokens and an answer of {n_answer} (at least "
                f"eval.max_new_tokens) exceed export.n_ctx={n_ctx}; raise export.n_ctx, lower eval.max_new_tokens "
                "or remove the row"
            )
