"""Tokenizers, from disk or hub: with a chat template that renders the same every day, and tokens that end and pad."""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from huggingface_hub import hf_hub_download
from huggingface_hub.errors import EntryNotFoundError, LocalEntryNotFoundError
from transformers import AutoTokenizer, GenerationConfig, PreTrainedTokenizerBase
from transformers.utils import GENERATION_CONFIG_NAME

from tuneline.config.schema import ModelConfig
from tuneline.errors import ModelError
from tuneline.model.sources import hub_arguments, one_line_errors, require_base, require_folder

# Tokens that published tokenizers reserve and never write into a conversation, best first.
PAD_CANDIDATES = (
    "<|pad|>",
    "<pad>",
    "[PAD]",
    "<|finetune_right_pad_id|>",
    "<|reserved_special_token_0|>",
    "<|endoftext|>",
    "<|endofprompt|>",
    "[control_8]",
    "<unk>",
)

# What Llama 3.x writes by itself where nobody sets `date_string`; llama.cpp's server sets it, to today.
FIXED_DATE = "26 Jul 2024"


def load_tokenizer(model: ModelConfig) -> PreTrainedTokenizerBase:
    """The base model's tokenizer, with a chat template and a pad token that is not EOS.

    `model.chat_template_kwargs` become part of the template, and so does a date where it would write today's: whoever
    renders it later, from the adapter's folder or inside the GGUF, renders what was trained.
    When the published pad token is missing or equals EOS, an unused token that the vocabulary already has
    takes its place (no embedding is added). Raises `ModelError`, or `EnvironmentProblem` when a hub model
    cannot be had.
    """
    require_base(model)
    with one_line_errors(model.name_or_path, model.revision):
        tokenizer = AutoTokenizer.from_pretrained(model.name_or_path, **hub_arguments(model))
    checked = _checked_tokenizer(tokenizer, model.name_or_path)
    _fix_template(checked, model.name_or_path, model.chat_template_kwargs)
    return checked


def load_tokenizer_from(folder: Path) -> PreTrainedTokenizerBase:
    """The tokenizer saved beside a trained or merged model, checked like the base's."""
    require_folder(folder)
    with one_line_errors(str(folder), None):
        tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=False)
    checked = _checked_tokenizer(tokenizer, str(folder))
    _fix_template(checked, str(folder), {})
    return checked


def stop_token_ids(model: ModelConfig, tokenizer: PreTrainedTokenizerBase) -> tuple[int, ...]:
    """Tokens that end a turn: the tokenizer's EOS and those in the model's generation_config.json.

    Gemma ends a turn with <end_of_turn> and Phi with <|end|>, neither of which is their tokenizer's EOS.
    """
    require_base(model)
    ids = {tokenizer.eos_token_id}
    with one_line_errors(model.name_or_path, model.revision):
        folder = _folder_of_generation_config(model)
        if folder is not None:
            config: Any = GenerationConfig.from_pretrained(folder)
            ids |= set(_as_list(config.eos_token_id))
    return tuple(sorted(ids))


def _checked_tokenizer(tokenizer: PreTrainedTokenizerBase, name: str) -> PreTrainedTokenizerBase:
    if tokenizer.chat_template is None:
        raise ModelError(
            f"{name}: its tokenizer has no chat template; use the model's instruct variant, or point "
            "model.name_or_path at a local copy of the model with a chat_template.jinja"
        )
    if tokenizer.eos_token_id is None:
        raise ModelError(f"{name}: its tokenizer has no EOS token, so nothing tells the model where to stop")
    if tokenizer.pad_token_id in (None, tokenizer.eos_token_id):
        tokenizer.pad_token = _unused_token(tokenizer, name)
    tokenizer.padding_side = "right"
    for how in ("is_local", "local_files_only"):  # how it was found; saved, it would differ with HF_HUB_OFFLINE
        tokenizer.init_kwargs.pop(how, None)
    return tokenizer


def _unused_token(tokenizer: PreTrainedTokenizerBase, name: str) -> str:
    vocabulary = tokenizer.get_vocab()
    for token in PAD_CANDIDATES:
        in_use = token in (tokenizer.eos_token, tokenizer.bos_token) or token in str(tokenizer.chat_template)
        if token in vocabulary and not in_use:
            return token
    raise ModelError(
        f"{name}: the pad token {tokenizer.pad_token!r} is missing or equals EOS (a model trained so never "
        f"stops), and none of {', '.join(PAD_CANDIDATES)} is free; set pad_token in tokenizer_config.json"
    )


def _fix_template(tokenizer: PreTrainedTokenizerBase, name: str, values: Mapping[str, bool | int | str]) -> None:
    """Put `values` in front of the chat template. Raises `ModelError` for one it does not name, or for a clock."""
    with one_line_errors(name, None):  # several templates, and none is called default
        template = str(tokenizer.get_chat_template())
    head = "".join(_settings(template, name, values))
    if "strftime_now" in template and "date_string" not in template:
        raise ModelError(
            f"{name}: its chat template writes today's date (strftime_now), so that tomorrow's tokens differ; point "
            "model.name_or_path at a local copy whose chat_template.jinja writes a fixed one"
        )
    if _writes_a_date(template) and not _sets(head + template, "date_string"):
        head += _setting("date_string", FIXED_DATE)
    if head:
        tokenizer.chat_template = head + template


def _writes_a_date(template: str) -> bool:
    return "date_string" in template and ("strftime_now" in template or FIXED_DATE in template)


def _settings(template: str, name: str, values: Mapping[str, bool | int | str]) -> Iterator[str]:
    """The lines that are not in the template yet: it may come from a model that was trained with the same."""
    for key, value in sorted(values.items()):
        line = _setting(key, value)
        if key not in template:
            raise ModelError(f"model.chat_template_kwargs: the chat template of {name} does not read '{key}'")
        if line not in template:
            if _sets(template, key):
                raise ModelError(
                    f"model.chat_template_kwargs: the chat template of {name} sets '{key}' itself, so {value!r} would "
                    "change nothing; take it out of one of the two"
                )
            yield line


def _setting(key: str, value: bool | int | str) -> str:
    """A line that renders to nothing: `trim_blocks`, as Transformers sets it, takes its newline away."""
    return f"{{% set {key} = {json.dumps(value, ensure_ascii=False)} %}}\n"


def _sets(template: str, key: str) -> bool:
    return f"{{% set {key} = " in template


def _folder_of_generation_config(model: ModelConfig) -> Path | None:
    """None where the model has no such file, which is allowed; that the hub cannot be reached is an `OSError`."""
    if model.revision is None:
        folder = Path(model.name_or_path)
        return folder if (folder / GENERATION_CONFIG_NAME).is_file() else None
    try:
        return Path(hf_hub_download(model.name_or_path, GENERATION_CONFIG_NAME, revision=model.revision)).parent
    except LocalEntryNotFoundError:
        raise
    except EntryNotFoundError:
        return None


def _as_list(value: int | list[int] | None) -> list[int]:
    if value is None:
        return []
    return [value] if isinstance(value, int) else value
