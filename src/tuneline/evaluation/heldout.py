"""The held-out examples as evaluation sees them: a prompt to answer, and the answer expected."""

from collections.abc import Iterable
from pathlib import Path

from tuneline.data.records import Example, Message, read_examples
from tuneline.errors import DataError


def read_heldout(path: Path, max_examples: int | None) -> list[Example]:
    """The conversations in `path` that end with an answer; raw text rows are left out.

    `max_examples` of them are chosen by id, a content hash: from all of the file, whatever its order.
    """
    answerable = [example for example in read_examples(path) if is_answerable(example)]
    if not answerable:
        raise DataError(f"{path}: no conversation that ends with an answer; give data.sources one with role test")
    if max_examples is None or max_examples >= len(answerable):
        return answerable
    chosen = {example.id for example in sorted(answerable, key=lambda example: example.id)[:max_examples]}
    return [example for example in answerable if example.id in chosen]


def is_answerable(example: Example) -> bool:
    """True for a conversation with something before its last message, which is an assistant's."""
    return len(example.messages) > 1 and example.messages[-1].role == "assistant"


def prompt_messages(example: Example) -> tuple[Message, ...]:
    """Everything before the answer: what the model is shown."""
    return example.messages[:-1]


def expected_answer(example: Example) -> str:
    return example.messages[-1].content


def place(example: Example) -> str:
    """Where the example came from, for an error: source:line of the raw file, and its id."""
    return f"{example.source}:{example.line} (example {example.id})"


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
