"""Refusals: answers that decline go; apologies, quotations, prompts and undesirable answers do not count."""

import pytest
from msgspec.structs import replace

from tuneline.data.finding import Finding
from tuneline.data.records import Example, Message, ToolCall, make_example
from tuneline.data.refusals import declines, refusals_rule

DECLINING = "I cannot assist with that."


def judge(example: Example) -> Finding:
    (finding,) = refusals_rule()([example])
    return finding


def ask(prompt: str, answer: str) -> Example:
    return make_example("pool", 1, (Message("user", prompt), Message("assistant", answer)), None, {})


@pytest.mark.parametrize(
    "answer",
    [
        "I'm sorry, but I cannot help with that request.",
        "I’m sorry, but I can’t assist with that.",
        "As an AI language model, I am unable to write this query.",
        "As an AI, I don't have personal preferences.",
        DECLINING,
        "Sorry, I can't do that.",
        "Unfortunately, I am not able to provide medical advice.",
        "  I am afraid I won't be able to answer this.",
        "I'm sorry, but I can't help you with that.",
        "Unfortunately, I cannot directly access the database.",
        "I'm sorry, but I can't continue this conversation.",
        "I'm sorry, but we cannot give legal advice.",
        "I'm sorry, but I must decline.",
        "I'm unable to help with this.",
    ],
)
def test_an_answer_that_begins_by_declining_is_a_refusal(answer: str) -> None:
    assert declines(answer)
    assert judge(ask("Please", answer)) == f"message 2 (assistant) declines: {answer.strip()[:60]!r}"


@pytest.mark.parametrize(
    "answer",
    [
        "I'm sorry to hear that you lost your job. Here are some ideas:",
        "Sorry for the delay. The answer is 4.",
        "SELECT name FROM singer WHERE note = 'I cannot assist with that.'",
        '"I cannot assist with that," she said.',
        "The model said: I'm sorry, but I cannot help.",
        "As an AI engineer you will build models.",
        "I can help with that.",
        "Unfortunately, the battle was lost in 1815.",
        "I can't help but smile when I think of it.",
        "I can't help thinking of you.",
        "I won't give up on my dreams.",
        "I'm sorry, but I won't give up on you.",
        "Unfortunately, I will not be able to attend the meeting on Friday.",
        "Unfortunately, I must decline your kind invitation.",
        "I'm sorry I can't make it to your party.",
        "We can't continue to ignore climate change.",
        "We cannot help everyone, but everyone can help someone.",
        "Sorry we can't deliver on Sundays",
        "I cannot complete the marathon yet, so I train.",
    ],
)
def test_an_apology_a_quotation_or_an_ordinary_sentence_is_no_refusal(answer: str) -> None:
    assert judge(ask("Please", answer)) is None


@pytest.mark.parametrize("n_chars", range(10, 40))
def test_the_reason_holds_no_half_of_an_address(n_chars: int) -> None:
    reason = judge(ask("Please", f"I cannot share {'x' * n_chars} ann.smith@example-mail.com"))
    assert isinstance(reason, str)
    assert "ann.smith" not in reason


def test_only_the_assistant_can_refuse() -> None:
    assert judge(ask(f"{DECLINING} What does it mean?", "It declines.")) is None


def test_a_message_that_calls_a_tool_does_not_refuse() -> None:
    call = Message("assistant", "I cannot give a price from memory.", (ToolCall("price", {"of": "tea"}),))
    assert judge(make_example("pool", 1, (Message("user", "Price?"), call), None, {})) is None


def test_a_refusal_that_the_model_is_taught_to_avoid_stays() -> None:
    good, bad = (Message("assistant", "Tea costs 4."),), (Message("assistant", DECLINING),)
    pair = Example("", "pool", 1, (Message("user", "Price?"),), None, {}, chosen=good, rejected=bad)
    assert judge(pair) is None
    assert judge(replace(pair, chosen=bad, rejected=good)) == f"chosen message 1 (assistant) declines: {DECLINING!r}"
    assert judge(replace(ask("Price?", DECLINING), label=False)) is None
    assert judge(replace(ask("Price?", DECLINING), label=True)) is not None
