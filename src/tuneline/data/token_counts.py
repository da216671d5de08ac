"""Lengths in tokens, by a tokenizer.json."""

from collections.abc import Callable
from pathlib import Path
from typing import TypeAlias

from tuneline.errors import DataError

CountTokens: TypeAlias = Callable[[list[str]], list[int]]  # tokens of each text


def token_counter(path: Path) -> CountTokens:
    """Counts special tokens out, and a lone surrogate, which no tokenizer takes, as a question mark.

    Raises `DataError` when the file is no tokenizer.json.
    """
    from tokenizers import Tokenizer  # here: only what counts tokens waits for it

    if not path.is_file():
        raise DataError(
            f"clean.length.tokenizer: {path}: no such tokenizer; put your model's tokenizer.json there, or give its"
            " path in clean.length.tokenizer"
        )
    try:
        tokenizer = Tokenizer.from_file(str(path))
    except Exception as error:  # the library raises nothing narrower
        raise DataError(
            f"clean.length.tokenizer: {path}: not a tokenizer.json ({error}); correct clean.length.tokenizer"
        ) from None
    tokenizer.no_truncation()  # a file can carry a limit of its own, which would hide every longer row
    tokenizer.no_padding()
    return lambda texts: [
        len(found.ids)
        for found in tokenizer.encode_batch_fast(
            [text.encode("utf-8", "replace").decode() for text in texts], add_special_tokens=False
        )
    ]
