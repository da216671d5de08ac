"""What two models of one link are compared on."""

from pathlib import Path

from transformers import PreTrainedTokenizerBase

from tuneline.config.schema import ModelConfig
from tuneline.evaluation.heldout import read_heldout
from tuneline.export.reference import Rows
from tuneline.model.template import encode_conversation


def held_out_rows(test: Path, n_examples: int, tokenizer: PreTrainedTokenizerBase, base: ModelConfig) -> Rows:
    """Token ids of so many held-out conversations, cut to what `base` can address."""
    encoded = (encode_conversation(tokenizer, row.messages, row.tools) for row in read_heldout(test, n_examples))
    return [row.input_ids[: base.max_position_embeddings] for row in encoded]
