"""Splitting rules of a tokenizer.json to llama.cpp's names: exactly known, or refused."""

from typing import Any

import pytest

from tuneline.errors import ModelError
from tuneline.export.pretokenizer import LLAMA3_SPLIT, QWEN2_SPLIT, pre_tokenizer_type

BYTES = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": False}
GPT2 = {**BYTES, "use_regex": True}
DIGITS = {"type": "Digits", "individual_digits": True}


def rules(*steps: dict[str, Any], ignore_merges: bool = False, **changes: Any) -> dict[str, Any]:
    pre = steps[0] if len(steps) == 1 else {"type": "Sequence", "pretokenizers": list(steps)}
    model = {"type": "BPE", "byte_fallback": False, "ignore_merges": ignore_merges}
    return {"model": model, "normalizer": None, "pre_tokenizer": pre, **changes}


def split(pattern: str, behavior: str = "Isolated") -> dict[str, Any]:
    return {"type": "Split", "pattern": {"Regex": pattern}, "behavior": behavior, "invert": False}


@pytest.mark.parametrize(
    ("tokenizer", "name"),
    [
        (rules(GPT2), "gpt-2"),
        (rules(GPT2, normalizer={"type": "NFC"}), "gpt-2"),
        (rules(DIGITS, GPT2), "smollm"),
        (rules(split(QWEN2_SPLIT), BYTES), "qwen2"),
        (rules(split(LLAMA3_SPLIT), BYTES), "smaug-bpe"),
        (rules(split(LLAMA3_SPLIT), BYTES, ignore_merges=True), "llama-bpe"),
    ],
)
def test_known_rules_have_a_name(tokenizer: dict[str, Any], name: str) -> None:
    assert pre_tokenizer_type(tokenizer) == name


@pytest.mark.parametrize(
    ("tokenizer", "named"),
    [
        (rules({**GPT2, "add_prefix_space": True}), "add_prefix_space"),
        (rules(GPT2, ignore_merges=True), "ignore_merges=True"),
        (rules({**DIGITS, "individual_digits": False}, GPT2), "Digits"),
        (rules(split(QWEN2_SPLIT + "|x"), BYTES), "x"),
        (rules(split(QWEN2_SPLIT, "Removed"), BYTES), "Removed"),
        (rules(GPT2, DIGITS), "'gpt-2', 'digit'"),
        (rules({"type": "Whitespace"}), "Whitespace"),
        (rules(GPT2, normalizer={"type": "Lowercase"}), "normalizer Lowercase"),
        (rules(GPT2, model={"type": "WordPiece"}), "model type WordPiece"),
        (rules(GPT2, model={"type": "BPE", "byte_fallback": True}), "byte_fallback=True"),
        (rules(GPT2, pre_tokenizer=None), "pre_tokenizer None"),
    ],
)
def test_near_misses_are_refused_and_named(tokenizer: dict[str, Any], named: str) -> None:
    with pytest.raises(ModelError, match=r"neither in llama\.cpp's table") as caught:
        pre_tokenizer_type(tokenizer)
    assert named in str(caught.value)
