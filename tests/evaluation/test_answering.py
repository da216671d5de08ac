"""Questions as one tokenizer sees them."""

from typing import TYPE_CHECKING

import pytest
from msgspec.structs import replace

from tuneline.data.records import Example, Json, with_id
from tuneline.errors import ModelError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

pytestmark = pytest.mark.slow

TOOL: Json = {"type": "function", "function": {"name": "add"}}


def test_a_question_whose_tools_the_template_does_not_show_is_refused_with_its_place(
    tokenizer: "PreTrainedTokenizerBase", examples: list[Example]
) -> None:
    from tuneline.evaluation.answering import encode_questions

    asked = [examples[0], with_id(replace(examples[1], tools=(TOOL,)))]
    with pytest.raises(ModelError, match=r"^test:2 \(example [0-9a-f]{16}\): .* does not show the tools; take a model"):
        encode_questions(tokenizer, asked, 8, 256)


def test_tools_stand_in_the_prompt_and_in_the_conversation(
    tokenizer: "PreTrainedTokenizerBase", examples: list[Example]
) -> None:
    from tuneline.evaluation.answering import encode_questions

    tokenizer.chat_template = "{% if tools %}{{ tools | tojson }}{% endif %}" + str(tokenizer.chat_template)
    questions = encode_questions(tokenizer, [replace(examples[0], tools=(TOOL,))], 8, 512)
    prompt, encoded = questions.prompts_ids[0], questions.conversations[0]
    assert '"name": "add"' in tokenizer.decode(list(prompt))
    assert encoded.input_ids[: len(prompt)] == prompt
    assert not any(encoded.loss_mask[: len(prompt)])
