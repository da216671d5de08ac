"""Golden conversations: three renderers, one list of tokens; a template or tokenizer that changed is caught here."""

import shutil
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.export.conftest import PEFT_WARNING, TEMPLATE, convert_folder
from tuneline.errors import ModelError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from tuneline.data.records import Example

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings(PEFT_WARNING)]


def convert_with_template(merged: Path, template: str, folder: Path) -> Path:
    """A GGUF of `merged` with another chat template; the folder it is made from is `folder`/model."""
    shutil.copytree(merged, folder / "model")
    (folder / "model" / "chat_template.jinja").write_text(template, encoding="utf-8")
    return convert_folder(folder / "model", folder / "changed.gguf")


def test_all_renderers_agree_and_kinds_the_template_cannot_show_are_counted(
    f16: Path, tokenizer: "PreTrainedTokenizerBase"
) -> None:
    from tuneline.export.golden import GOLDENS, compare_templates
    from tuneline.export.served import open_served

    with open_served(f16) as served:
        compared = compare_templates("link", tokenizer, served.prompt_ids)
    with_tools = {name for name, golden in GOLDENS.items() if golden.tools}
    n_plain = len(GOLDENS) - len(with_tools)
    assert compared.metrics == {
        "n_templates_compared": n_plain,
        "n_templates_refused": len(with_tools),
        "n_modelfile_compared": n_plain,
    }
    assert set(compared.refused) == with_tools
    assert all("does not show the tools" in reason for reason in compared.refused.values())


def test_template_changed_after_training_is_named_with_conversation_and_token(
    f16: Path, base: Path, examples: "list[Example]"
) -> None:
    """Changed in a way that one kind of conversation alone shows."""
    from tuneline.export.golden import check_prompts, compare_templates
    from tuneline.export.served import open_served
    from tuneline.model.tokenizers import load_tokenizer_from

    trained = load_tokenizer_from(base)
    trained.chat_template = str(trained.chat_template).replace(
        "message.content + ", "message.content | replace('Yes.', 'No.') + ", 1
    )
    expected = r"link: llama\.cpp renders 'several turns' otherwise .*from token \d+: \[.*'Y.* in place of \[.*'N"
    with open_served(f16) as served:
        check_prompts("link", trained, served.prompt_ids, examples[:2])  # these do not show it
        with pytest.raises(ModelError, match=expected) as caught:
            compare_templates("link", trained, served.prompt_ids)
    assert "\n" not in str(caught.value)


def test_held_out_prompt_that_llama_cpp_renders_otherwise_is_named_by_its_row(
    f16: Path, base: Path, examples: "list[Example]"
) -> None:
    from tuneline.export.golden import check_prompts
    from tuneline.export.served import open_served
    from tuneline.model.tokenizers import load_tokenizer_from

    trained = load_tokenizer_from(base)
    trained.chat_template = str(trained.chat_template).replace("message.role + ", "message.role + ' ' + ", 1)
    with open_served(f16) as served, pytest.raises(ModelError, match=r"llama\.cpp renders 'test:1' otherwise"):
        check_prompts("link", trained, served.prompt_ids, examples)


def test_variable_that_only_the_server_sets_is_caught(merged: Path, tmp_path: Path) -> None:
    """llama.cpp tells every template that thinking is enabled; where training did not, the prompts differ."""
    from tuneline.export.golden import compare_templates
    from tuneline.export.served import open_served
    from tuneline.model.tokenizers import load_tokenizer_from

    gguf = convert_with_template(
        merged, TEMPLATE + "{%- if enable_thinking %}{{- '<|im_start|>' }}{%- endif %}", tmp_path
    )
    with (
        open_served(gguf) as served,
        pytest.raises(ModelError, match=r"llama\.cpp renders 'no system prompt' .*model\.chat_template_kwargs"),
    ):
        compare_templates("link", load_tokenizer_from(tmp_path / "model"), served.prompt_ids)


def test_conversation_that_only_llama_cpp_refuses_is_caught(merged: Path, tmp_path: Path) -> None:
    from tuneline.export.golden import compare_templates
    from tuneline.export.served import open_served
    from tuneline.model.tokenizers import load_tokenizer_from

    refusing = (
        "{%- if date_string is defined and messages | length > 1 %}{{- raise_exception('one only') }}{%- endif %}"
    )
    gguf = convert_with_template(merged, refusing + TEMPLATE, tmp_path)
    with (
        open_served(gguf) as served,
        pytest.raises(ModelError, match=r"'system prompt', which .* shows: llama\.cpp refuses it: .*one only"),
    ):
        compare_templates("link", load_tokenizer_from(tmp_path / "model"), served.prompt_ids)


def test_modelfile_that_renders_otherwise_is_caught(
    f16: Path, tokenizer: "PreTrainedTokenizerBase", monkeypatch: pytest.MonkeyPatch
) -> None:
    from tuneline.export import golden
    from tuneline.export.modelfile import FAMILIES, Match
    from tuneline.export.served import open_served

    llama3 = next(family for family in FAMILIES if family.name == "Llama 3")
    monkeypatch.setattr(golden, "modelfile_family", lambda _: Match(llama3, None))
    with (
        open_served(f16) as served,
        pytest.raises(ModelError, match=r"the Modelfile's template renders 'no system prompt' otherwise"),
    ):
        golden.compare_templates("link", tokenizer, served.prompt_ids)


def test_added_token_is_caught(f16: Path, base: Path) -> None:
    from tuneline.export.gguf import check_tokenizer
    from tuneline.model.tokenizers import load_tokenizer_from

    changed = load_tokenizer_from(base)
    changed.add_tokens(["<|new|>"])
    with pytest.raises(ModelError, match=r"link: the tokenizers disagree on .*<\|new\|>"):
        check_tokenizer("link", f16, changed)


def test_pad_and_eos_swapped_are_caught(f16: Path, base: Path) -> None:
    from tuneline.export.gguf import check_tokenizer
    from tuneline.model.tokenizers import load_tokenizer_from

    swapped = load_tokenizer_from(base)
    swapped.eos_token, swapped.pad_token = swapped.pad_token, swapped.eos_token
    with pytest.raises(ModelError, match=r"link: '<\|pad\|>' does not end an answer in the GGUF"):
        check_tokenizer("link", f16, swapped)


def test_another_pad_alone_is_caught(f16: Path, base: Path) -> None:
    from tuneline.export.gguf import check_tokenizer
    from tuneline.model.tokenizers import load_tokenizer_from

    changed = load_tokenizer_from(base)
    changed.pad_token = "<|im_start|>"
    with pytest.raises(ModelError, match="link: pad is 0 in the GGUF, 1 in the model's tokenizer"):
        check_tokenizer("link", f16, changed)


def test_another_eos_alone_is_caught(f16: Path, base: Path) -> None:
    from tuneline.export.gguf import check_tokenizer
    from tuneline.model.tokenizers import load_tokenizer_from

    changed = load_tokenizer_from(base)
    changed.eos_token = "<|im_start|>"
    with pytest.raises(ModelError, match=r"link: '<\|im_start\|>' does not end an answer in the GGUF"):
        check_tokenizer("link", f16, changed)


def test_truncated_file_is_one_line(f16: Path, tmp_path: Path) -> None:
    from tuneline.export.runtime import Runtime

    (tmp_path / "cut.gguf").write_bytes(f16.read_bytes()[:-5000])
    with pytest.raises(ModelError, match=r"cut\.gguf: llama\.cpp cannot load it: .*") as caught:
        Runtime(tmp_path / "cut.gguf", n_ctx_tokens=64, n_sequences=1)
    assert "\n" not in str(caught.value)
