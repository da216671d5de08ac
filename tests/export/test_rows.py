"""What two models of one link are compared on."""

from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tuneline.data.record_files import write_examples
from tuneline.data.records import Example

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

pytestmark = pytest.mark.slow


def test_rows_are_cut_to_what_the_base_can_address(
    base: Path, tokenizer: "PreTrainedTokenizerBase", examples: list[Example], tmp_path: Path
) -> None:
    from tests.export.conftest import model_config
    from tuneline.export.rows import held_out_rows

    write_examples(tmp_path / "test.jsonl", examples)
    whole = held_out_rows(tmp_path / "test.jsonl", 5, tokenizer, model_config(base))
    few = model_config(base).model_copy(update={"max_position_embeddings": 7})
    assert len(whole) == 5
    assert min(map(len, whole)) > 7
    assert held_out_rows(tmp_path / "test.jsonl", 5, tokenizer, few) == [row[:7] for row in whole]
