"""What two models of one link are compared on, and which figure decides."""

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
    from tuneline.export.reference import reference_rows

    write_examples(tmp_path / "test.jsonl", examples)
    whole = reference_rows(tmp_path / "test.jsonl", 5, tokenizer, model_config(base))
    few = model_config(base).model_copy(update={"max_position_embeddings": 7})
    assert len(whole) == 5
    assert min(map(len, whole)) > 7
    assert reference_rows(tmp_path / "test.jsonl", 5, tokenizer, few) == [row[:7] for row in whole]


def test_a_figure_of_products_in_float64_decides_where_there_is_one() -> None:
    from tuneline.export.reference import decisive

    assert decisive("kl", {"kl": 1.0}) == "kl"
    assert decisive("kl", {"kl": 1.0, "float64_kl": 0.1, "float64_other": 0.1}) == "float64_kl"
