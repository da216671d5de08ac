"""Tokenizers: what lacks a template or a token is refused, and what ends a turn is known."""

from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from tuneline.errors import EnvironmentProblem, ModelError

pytestmark = pytest.mark.slow


def test_a_tokenizer_without_chat_template_is_refused(tiny: ModuleType, tmp_path: Path) -> None:
    from tuneline.model.tokenizers import load_tokenizer

    tiny.save_tokenizer(tmp_path, template=None)
    with pytest.raises(ModelError, match="has no chat template; use the model's instruct variant"):
        load_tokenizer(tiny.model_config(tmp_path))


def test_a_tokenizer_without_eos_is_refused(tiny: ModuleType, tmp_path: Path) -> None:
    from tuneline.model.tokenizers import load_tokenizer_from

    tiny.save_tokenizer(tmp_path, eos=None)
    with pytest.raises(ModelError, match="has no EOS token"):
        load_tokenizer_from(tmp_path)


@pytest.mark.parametrize("pad", [None, "<|im_end|>"])
def test_a_missing_pad_or_one_equal_to_eos_becomes_an_unused_token(
    tiny: ModuleType, tmp_path: Path, pad: str | None
) -> None:
    from tuneline.model.tokenizers import load_tokenizer_from

    tiny.save_tokenizer(tmp_path, pad=pad)
    tokenizer = load_tokenizer_from(tmp_path)
    assert (tokenizer.pad_token, len(tokenizer)) == ("<|pad|>", 320)


def test_pad_equal_to_eos_is_refused_when_no_token_is_unused(tiny: ModuleType, tmp_path: Path) -> None:
    from tuneline.model.tokenizers import load_tokenizer_from

    tiny.save_tokenizer(tmp_path, pad="<|pad|>", eos="<|pad|>")
    with pytest.raises(ModelError, match=r"pad token '<\|pad\|>' is missing or equals EOS"):
        load_tokenizer_from(tmp_path)


def test_stop_tokens_are_eos_and_those_of_the_generation_config(tiny: ModuleType, tmp_path: Path) -> None:
    from transformers import GenerationConfig

    from tuneline.model.tokenizers import load_tokenizer, stop_token_ids

    tiny.save_base(tmp_path)
    config = tiny.model_config(tmp_path)
    assert stop_token_ids(config, load_tokenizer(config)) == (2,)
    generation: Any = GenerationConfig
    generation(eos_token_id=[2, 7]).save_pretrained(tmp_path)
    assert stop_token_ids(config, load_tokenizer(config)) == (2, 7)
    (tmp_path / "generation_config.json").unlink()
    assert stop_token_ids(config, load_tokenizer(config)) == (2,)


def test_a_broken_generation_config_is_refused(tiny: ModuleType, tmp_path: Path) -> None:
    from tuneline.model.tokenizers import load_tokenizer, stop_token_ids

    tiny.save_base(tmp_path)
    config = tiny.model_config(tmp_path)
    (tmp_path / "generation_config.json").write_text("{")
    with pytest.raises(ModelError, match="cannot be loaded"):
        stop_token_ids(config, load_tokenizer(config))


def test_a_hub_model_may_have_no_generation_config_but_the_hub_must_say_so(
    tiny: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from huggingface_hub.errors import EntryNotFoundError, LocalEntryNotFoundError

    from tuneline.model import tokenizers

    tokenizer = loaded_tokenizer(tiny, tmp_path)
    config = tiny.model_config(Path("nobody/nothing"), revision="0" * 40)

    def answers(error: Exception) -> None:
        def download(*args: Any, **kwargs: Any) -> str:
            raise error

        monkeypatch.setattr(tokenizers, "hf_hub_download", download)

    answers(EntryNotFoundError("404"))
    assert tokenizers.stop_token_ids(config, tokenizer) == (2,)
    answers(LocalEntryNotFoundError("no connection"))
    with pytest.raises(EnvironmentProblem, match=r"'nobody/nothing' .* cannot be loaded: no connection"):
        tokenizers.stop_token_ids(config, tokenizer)


def loaded_tokenizer(tiny: ModuleType, folder: Path) -> Any:
    from tuneline.model.tokenizers import load_tokenizer_from

    tiny.save_tokenizer(folder)
    return load_tokenizer_from(folder)
