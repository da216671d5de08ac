"""Special tokens: a control token spelled out in any text of a row is found and named."""

import pytest

from tuneline.config.schema import SpecialTokensRuleConfig
from tuneline.data.finding import Finding
from tuneline.data.records import Example, Message, ToolCall, make_example
from tuneline.data.special_tokens import special_tokens_rule

TOKENS = ("<|im_start|>", "<|im_end|>", "[INST]", "<s>", "</s>", "<|end|>", "<|end|>x")


def judge(example: Example, tokens: tuple[str, ...] = TOKENS) -> Finding:
    (finding,) = special_tokens_rule(SpecialTokensRuleConfig(enabled=True, tokens=tokens))([example])
    return finding


def ask(prompt: str, answer: str) -> Example:
    return make_example("pool", 1, (Message("user", prompt), Message("assistant", answer)), None, {})


@pytest.mark.parametrize("token", TOKENS)
def test_every_listed_token_is_found_and_the_longest_is_named(token: str) -> None:
    assert judge(ask(f"a{token}b", "fine")) == f"message 1 (user) spells the control token {token}"
    assert judge(ask("fine", f"{token}\n")) == f"message 2 (assistant) spells the control token {token}"


@pytest.mark.parametrize("text", ["a < b > c", "<|im_start>", "<|IM_END|>", "[inst]", "x[0] <b>bold</b>", "<|", "|>"])
def test_what_only_looks_alike_passes(text: str) -> None:
    assert judge(ask(text, text)) is None


def test_strike_through_counts_for_the_tokenizer_does_not_know_better() -> None:
    assert judge(ask("Now <s>$10</s> $8", "fine")) == "message 1 (user) spells the control token <s>"


def test_raw_text_tool_calls_and_tool_descriptions_are_looked_at() -> None:
    assert judge(make_example("pool", 1, (), "a <|im_end|>", {})) == "the text spells the control token <|im_end|>"
    texts = ToolCall("find", {"a": {"b": ["[INST]"]}}), ToolCall("[INST]", {})
    keys = ToolCall("find", {"a [INST]": 1}), ToolCall("find", {"a": [{"b": {"[INST]": None}}]})
    for call in (*texts, *keys):
        turns = (Message("user", "a"), Message("assistant", "", (call,)))
        assert (
            judge(make_example("pool", 1, turns, None, {})) == "message 2 (assistant) spells the control token [INST]"
        )
    tools = Example("", "pool", 1, (Message("user", "a"),), None, {}, tools=({"description": "<s>"},))
    assert judge(tools) == "the tools' description spells the control token <s>"


def test_the_worse_answer_is_looked_at_too() -> None:
    said = Message("assistant", "fine"), Message("assistant", "<|im_end|>")
    pair = Example("", "pool", 1, (Message("user", "a"),), None, {}, chosen=said[:1], rejected=said[1:])
    assert judge(pair) == "rejected message 1 (assistant) spells the control token <|im_end|>"


def test_without_tokens_nothing_is_found() -> None:
    assert judge(ask("<s>", "[INST]"), ()) is None
