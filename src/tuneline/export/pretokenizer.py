"""Which of llama.cpp's pre-tokenizers splits text as a `tokenizer.json` does.

llama.cpp's converter recognises published tokenizers by a hash and refuses every other. For those this closed table
decides, on the rules themselves and not on a likeness; whatever it picks is then checked on varied strings.
"""

from collections.abc import Mapping
from typing import Any

from tuneline.errors import ModelError

# https://github.com/ggml-org/llama.cpp/blob/master/src/llama-vocab.cpp, "original regex from tokenizer.json"
_CONTRACTIONS = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|"
_LINES = r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
LLAMA3_SPLIT = _CONTRACTIONS + r"\p{N}{1,3}" + _LINES
QWEN2_SPLIT = _CONTRACTIONS + r"\p{N}" + _LINES

Json = Any


def pre_tokenizer_type(tokenizer: Mapping[str, Json]) -> str:
    """llama.cpp's name for the splitting rules of a byte-level BPE `tokenizer.json`.

    Raises `ModelError` naming the rule that none of llama.cpp's pre-tokenizers is known to follow.
    """
    _check_model(tokenizer["model"])
    _check_normalizer(tokenizer["normalizer"])
    ignore_merges = tokenizer["model"].get("ignore_merges", False)  # absent from files of older tokenizers
    match _splits(tokenizer["pre_tokenizer"]), ignore_merges:
        case ["gpt-2"], False:
            return "gpt-2"
        case ["digit", "gpt-2"], False:
            return "smollm"
        case [pattern, "bytes"], False if pattern == QWEN2_SPLIT:
            return "qwen2"
        case [pattern, "bytes"], False if pattern == LLAMA3_SPLIT:
            return "smaug-bpe"
        case [pattern, "bytes"], True if pattern == LLAMA3_SPLIT:
            return "llama-bpe"
        case splits, _:
            raise _unknown(f"pre_tokenizer {splits} with ignore_merges={ignore_merges}")


def _check_model(model: Mapping[str, Json]) -> None:
    if model["type"] != "BPE" or model.get("byte_fallback", False):
        raise _unknown(f"model type {model['type']} (byte_fallback={model.get('byte_fallback', False)})")


def _check_normalizer(normalizer: Mapping[str, Json] | None) -> None:
    """NFC passes: llama.cpp does not normalise, but text in the wild nearly always is NFC already."""
    if normalizer is not None and normalizer["type"] != "NFC":
        raise _unknown(f"normalizer {normalizer['type']}")


def _splits(pre_tokenizer: Mapping[str, Json] | None) -> list[str]:
    match pre_tokenizer:
        case {"type": "Sequence", "pretokenizers": list(steps)}:
            return [split for step in steps for split in _splits(step)]
        case {"type": "ByteLevel", "add_prefix_space": False, "use_regex": use_regex}:
            return ["gpt-2" if use_regex else "bytes"]
        case {"type": "Digits", "individual_digits": True}:
            return ["digit"]
        case {"type": "Split", "pattern": {"Regex": str(pattern)}, "behavior": "Isolated", "invert": False}:
            return [pattern]
        case other:
            raise _unknown(f"pre_tokenizer {other}")


def _unknown(rule: str) -> ModelError:
    return ModelError(
        f"tokenizer.json: {rule} is neither in llama.cpp's table of known tokenizers nor equal to one of its "
        f"pre-tokenizers (gpt-2, smollm, qwen2, smaug-bpe, llama-bpe); such a model cannot become a GGUF"
    )
