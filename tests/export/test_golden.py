"""Golden conversations: three renderers, one list of tokens; a template or tokenizer that changed is caught here."""

from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.export.conftest import PEFT_WARNING
from tuneline.errors import ModelError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings(PEFT_WARNING)]


def test_all_renderers_agree_and_kinds_the_template_cannot_show_are_counted(
    f16: Path, tokenizer: "PreTrainedTokenizerBase"
) -> None:
    from tuneline.export.gguf import chat_template
    from tuneline.export.golden import GOLDENS, compare_templates
    from tuneline.export.runtime import open_vocabulary

    with open_vocabulary(f16) as vocabulary:
        metrics = compare_templates("link", tokenizer, chat_template(f16), vocabulary)
    n_with_tools = sum(bool(golden.tools) for golden in GOLDENS.values())
    n_plain = len(GOLDENS) - n_with_tools
    assert metrics == {
        "n_templates_compared": n_plain,
        "n_templates_refused": n_with_tools,
        "n_modelfile_compared": n_plain,
    }


def test_template_changed_after_training_is_named_with_conversation_and_token(
    f16: Path, tokenizer: "PreTrainedTokenizerBase"
) -> None:
    """Changed in a way that one kind of conversation alone shows."""
    from tuneline.export.gguf import chat_template
    from tuneline.export.golden import compare_templates
    from tuneline.export.runtime import open_vocabulary

    changed = chat_template(f16).replace("message.content", "message.content | replace('Yes.', 'No.')", 1)
    with (
        open_vocabulary(f16) as vocabulary,
        pytest.raises(ModelError, match=r"link: the GGUF's chat template .*'several turns' .*from token \d+: \["),
    ):
        compare_templates("link", tokenizer, changed, vocabulary)


def test_modelfile_that_renders_otherwise_is_caught(
    f16: Path, tokenizer: "PreTrainedTokenizerBase", monkeypatch: pytest.MonkeyPatch
) -> None:
    from tuneline.export import golden
    from tuneline.export.gguf import chat_template
    from tuneline.export.modelfile import FAMILIES, Match
    from tuneline.export.runtime import open_vocabulary

    llama3 = next(family for family in FAMILIES if family.name == "Llama 3")
    monkeypatch.setattr(golden, "modelfile_family", lambda _: Match(llama3, None))
    with (
        open_vocabulary(f16) as vocabulary,
        pytest.raises(ModelError, match=r"the Modelfile's chat template .*'no system prompt'"),
    ):
        golden.compare_templates("link", tokenizer, chat_template(f16), vocabulary)


def test_added_token_is_caught(f16: Path, base: Path) -> None:
    from tuneline.export.gguf import check_tokenizer
    from tuneline.model.loading import load_tokenizer_from

    changed = load_tokenizer_from(base)
    changed.add_tokens(["<|new|>"])
    with pytest.raises(ModelError, match=r"link: the tokenizers disagree on .*<\|new\|>"):
        check_tokenizer("link", f16, changed)


def test_pad_and_eos_swapped_are_caught(f16: Path, base: Path) -> None:
    from tuneline.export.gguf import check_tokenizer
    from tuneline.model.loading import load_tokenizer_from

    swapped = load_tokenizer_from(base)
    swapped.eos_token, swapped.pad_token = swapped.pad_token, swapped.eos_token
    with pytest.raises(ModelError, match=r"link: '<\|pad\|>' does not end an answer in the GGUF"):
        check_tokenizer("link", f16, swapped)


def test_truncated_file_is_one_line(f16: Path, tmp_path: Path) -> None:
    from tuneline.export.runtime import Runtime

    (tmp_path / "cut.gguf").write_bytes(f16.read_bytes()[:-5000])
    with pytest.raises(ModelError, match=r"cut\.gguf: llama\.cpp cannot load it: .*") as caught:
        Runtime(tmp_path / "cut.gguf", n_ctx_tokens=64, n_sequences=1)
    assert "\n" not in str(caught.value)
