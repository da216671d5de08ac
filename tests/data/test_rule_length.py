"""Empties and length: what counts as empty, and limits in characters and tokens."""

from collections.abc import Sequence
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from tuneline.config.schema import LengthRuleConfig
from tuneline.data.finding import Finding
from tuneline.data.length_rules import empties_rule, length_rule
from tuneline.data.records import Example, Message, ToolCall, make_example
from tuneline.errors import DataError


def ask(prompt: str, answer: str) -> Example:
    return make_example("pool", 1, (Message("user", prompt), Message("assistant", answer)), None, {})


def raw(text: str) -> Example:
    return make_example("pool", 1, (), text, {})


def calling(content: str, argument: str = "x") -> Example:
    call = Message("assistant", content, (ToolCall("find", {"what": argument}),))
    return make_example("pool", 1, (Message("user", "find it"), call), None, {})


def of_length(*examples: Example, min_chars: int = 2, max_chars: int = 4) -> Sequence[Finding]:
    section = LengthRuleConfig(
        enabled=True, min_chars=min_chars, max_chars=max_chars, max_tokens=None, tokenizer="tokenizer.json"
    )
    return length_rule(section)(examples)


def of_tokens(tokenizer: Path, max_tokens: int, *examples: Example) -> Sequence[Finding]:
    section = LengthRuleConfig(enabled=True, min_chars=0, max_chars=10**6, max_tokens=max_tokens, tokenizer="t.json")
    return length_rule(section.model_copy(update={"tokenizer": str(tokenizer)}))(examples)


@pytest.mark.parametrize("text", ["", " ", "\n\t", "\u200b\ufeff", "\u00a0\u3000"])
def test_a_message_without_a_visible_character_is_empty(text: str) -> None:
    findings = empties_rule()([ask("a", text), ask(text, "a"), raw(text), ask("a", "0")])
    assert findings == ["message 2 (assistant) is empty", "message 1 (user) is empty", "the text is empty", None]


def test_a_message_that_calls_a_tool_is_neither_empty_nor_too_short() -> None:
    assert empties_rule()([calling("")]) == [None]
    assert of_length(calling("", ""), max_chars=10) == [None]


def test_both_continuations_of_a_pair_are_looked_at_and_named() -> None:
    full, empty = (Message("assistant", "b"),), (Message("assistant", ""),)
    pair = Example("", "pool", 1, (Message("user", "a"),), None, {}, chosen=full, rejected=empty)
    assert empties_rule()([pair]) == ["rejected message 1 (assistant) is empty"]
    assert empties_rule()([replace(pair, chosen=empty, rejected=full)]) == ["chosen message 1 (assistant) is empty"]


def test_limits_in_characters_are_inclusive_and_per_message() -> None:
    rows = [ask("ab", "abcd"), ask("a", "abcd"), ask("ab", "abcde"), raw("日本語😀"), raw("日本語😀!")]
    assert of_length(*rows) == [
        None,
        "message 1 (user) has 1 characters; allowed are 2 to 4",
        "message 2 (assistant) has 5 characters; allowed are 2 to 4",
        None,
        "the text has 5 characters; allowed are 2 to 4",
    ]


def test_a_short_question_or_result_goes_as_a_short_answer_does() -> None:
    """As the comments in conf/clean say of min_chars, which say so in every file."""
    turns = (
        Message("user", "find it"),
        Message("assistant", "ok so"),
        Message("tool", "7"),
        Message("assistant", "seven"),
    )
    rows = [ask("Hi", "Good day."), ask("Good day.", "Hi"), make_example("pool", 1, turns, None, {})]
    assert all(isinstance(finding, str) for finding in of_length(*rows, min_chars=3, max_chars=99))
    for path in sorted(Path("conf/clean").glob("*.yaml")):
        assert "it also drops short questions" in path.read_text(encoding="utf-8"), path
        assert "for long raw texts" in path.read_text(encoding="utf-8"), path


def test_the_arguments_of_a_call_count_with_its_message() -> None:
    assert of_length(calling("ab", "cdefgh"), max_chars=9) == [None]
    assert of_length(calling("ab", "cdefghij"), max_chars=9) == [
        "message 2 (assistant) has 10 characters; allowed are 2 to 9"
    ]


@pytest.fixture(scope="module")
def byte_tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Byte-level BPE that knows the 256 bytes and one merge: "aa" is one token."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers

    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {sign: number for number, sign in enumerate([*alphabet, "aa"])}
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=[("a", "a")]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.enable_truncation(4)  # as files from training often have it
    path = tmp_path_factory.mktemp("tokenizer") / "tokenizer.json"
    tokenizer.save(str(path))
    return path


def test_tokens_of_the_whole_row_are_counted(byte_tokenizer: Path) -> None:
    # "aaaa" is 2 tokens and "bbb" 3
    assert of_tokens(byte_tokenizer, 5, ask("aaaa", "bbb")) == [None]
    assert of_tokens(byte_tokenizer, 4, ask("aaaa", "bbb")) == ["5 tokens; allowed are 4"]
    assert of_tokens(byte_tokenizer, 3, raw("aaaaaaaa")) == ["4 tokens; allowed are 3"]


@settings(max_examples=100, deadline=None)
@given(st.text(max_size=30), st.integers(1, 60))
def test_rows_that_are_not_counted_are_short_enough(byte_tokenizer: Path, text: str, limit: int) -> None:
    n_tokens = len(text.encode("utf-8", "replace")) - sum(len(run) // 2 for run in _runs_of_a(text))
    (finding,) = of_tokens(byte_tokenizer, limit, raw(text))
    assert (finding is not None) == (n_tokens > limit)


def test_a_lone_surrogate_is_counted_and_no_traceback(byte_tokenizer: Path) -> None:
    """It may come from a teacher's answer; encoding is the rule that rejects it, where that is on."""
    assert of_tokens(byte_tokenizer, 5, raw("bb\ud800")) == [None]
    assert of_tokens(byte_tokenizer, 2, raw("bb\ud800")) == ["3 tokens; allowed are 2"]


def _runs_of_a(text: str) -> list[str]:
    return "".join(sign if sign == "a" else " " for sign in text).split()


@pytest.mark.parametrize("content", [None, "not JSON"])
def test_a_missing_or_broken_tokenizer_is_one_clear_line(tmp_path: Path, content: str | None) -> None:
    path = tmp_path / "tokenizer.json"
    if content is not None:
        path.write_text(content)
    with pytest.raises(DataError, match=r"^clean\.length\.tokenizer: .*tokenizer\.json") as error:
        of_tokens(path, 10)
    assert "\n" not in str(error.value)
