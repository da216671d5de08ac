"""Repetition: each measure agrees with a plain count of words, and no shortcut misses a row that a limit rejects."""

import json
import math
import random
from collections import Counter
from pathlib import Path

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from tuneline.config.schema import RepetitionRuleConfig
from tuneline.data.finding import Finding
from tuneline.data.records import Example, Message, make_example
from tuneline.data.repetition import Repetition, measure, repetition_rule

FOLDER = Path(__file__).resolve().parents[3] / "shared" / "data"
LIMITS = RepetitionRuleConfig(
    enabled=True,
    min_words=10,
    max_duplicate_line_fraction=0.3,
    max_top_bigram_fraction=0.2,
    max_top_trigram_fraction=0.18,
    max_top_fourgram_fraction=0.16,
    max_duplicate_fivegram_fraction=0.15,
    max_duplicate_tengram_fraction=0.1,
)
NO_LIMITS = RepetitionRuleConfig(
    enabled=True,
    min_words=1,
    max_duplicate_line_fraction=1.0,
    max_top_bigram_fraction=1.0,
    max_top_trigram_fraction=1.0,
    max_top_fourgram_fraction=1.0,
    max_duplicate_fivegram_fraction=1.0,
    max_duplicate_tengram_fraction=1.0,
)


def raw(text: str) -> Example:
    return make_example("pool", 1, (), text, {})


def ask(prompt: str, answer: str) -> Example:
    return make_example("pool", 1, (Message("user", prompt), Message("assistant", answer)), None, {})


def judge(*examples: Example, section: RepetitionRuleConfig = LIMITS) -> list[Finding]:
    return list(repetition_rule(section)(examples))


def plainly(text: str) -> Repetition:
    """The measures of a text of words and line feeds, counted on the words themselves."""
    words = text.split()
    lines = [line.strip() for line in text.split("\n") if line.strip()]

    def occurrences(n: int) -> Counter[tuple[str, ...]]:
        return Counter(tuple(words[place : place + n]) for place in range(len(words) - n + 1))

    def top(n: int) -> float:
        most = max(occurrences(n).values(), default=0)
        return min(1.0, n * most / len(words)) if most > 1 else 0.0

    def covered(n: int) -> float:
        seen = occurrences(n)
        inside = {
            place + step
            for place in range(len(words) - n + 1)
            if seen[tuple(words[place : place + n])] > 1
            for step in range(n)
        }
        return len(inside) / len(words)

    duplicates = 1 - len(set(lines)) / len(lines)
    return Repetition(duplicates, top(2), top(3), top(4), covered(5), covered(10))


def random_text(draw: random.Random) -> str:
    """Words from a small or large vocabulary, with some lines and passages copied from before."""
    vocabulary = [f"w{number}" for number in range(draw.choice((2, 8, 60, 2000)))]
    lines: list[str] = []
    for _ in range(draw.randint(1, 8)):
        if lines and draw.random() < 0.3:
            lines.append(draw.choice(lines))
        else:
            lines.append(" ".join(draw.choices(vocabulary, k=draw.randint(1, 40))))
    return "\n".join(lines)


@pytest.mark.parametrize("seed", range(60))
def test_measures_agree_with_a_plain_count_of_words(seed: int) -> None:
    text = random_text(random.Random(seed))
    assert measure(text) == pytest.approx(plainly(text))


@pytest.mark.parametrize("seed", range(5))
def test_many_rows_at_once_are_judged_as_each_alone(seed: int) -> None:
    draw = random.Random(seed)
    texts = [random_text(draw) for _ in range(200)]
    limits = {
        "duplicate_line": LIMITS.max_duplicate_line_fraction,
        "top_bigram": LIMITS.max_top_bigram_fraction,
        "top_trigram": LIMITS.max_top_trigram_fraction,
        "top_fourgram": LIMITS.max_top_fourgram_fraction,
        "duplicate_fivegram": LIMITS.max_duplicate_fivegram_fraction,
        "duplicate_tengram": LIMITS.max_duplicate_tengram_fraction,
    }
    expected = [
        len(text.split()) >= LIMITS.min_words
        and any(share > limits[name] for name, share in plainly(text)._asdict().items())
        for text in texts
    ]
    assert {True, False} <= set(expected)
    assert [finding is not None for finding in judge(*map(raw, texts))] == expected


@pytest.mark.parametrize(
    ("key", "text"),
    [
        ("max_duplicate_line_fraction", "one\ntwo\none\nthree\none"),  # 2 of 5 lines
        ("max_top_bigram_fraction", "a b c a b d a b e f"),  # 3 x 2 of 10 words
        ("max_top_trigram_fraction", "a b c d a b c e f g"),  # 2 x 3
        ("max_top_fourgram_fraction", "a b c d e a b c d f"),  # 2 x 4
        ("max_duplicate_fivegram_fraction", "a b c d e x a b c d e y z"),  # 10 of 13
        ("max_duplicate_tengram_fraction", "a b c d e f g h i j x a b c d e f g h i j"),  # 20 of 21
    ],
)
def test_each_limit_is_inclusive_and_named(key: str, text: str) -> None:
    share = {"line": 0.4, "bigram": 0.6, "trigram": 0.6, "fourgram": 0.8, "fivegram": 10 / 13, "tengram": 20 / 21}
    limit = share[key.split("_")[2]]
    assert judge(raw(text), section=NO_LIMITS.model_copy(update={key: limit})) == [None]
    (finding,) = judge(raw(text), section=NO_LIMITS.model_copy(update={key: limit - 0.01}))
    assert isinstance(finding, str)
    assert f"{key.removeprefix('max_')} is {limit:.3f}" in finding


@pytest.mark.parametrize("n_blocks", range(2, 20))
def test_a_share_that_is_over_its_limit_by_the_least_is_not_missed(n_blocks: int) -> None:
    """Words apart from each other in repeated runs of 5 or 10: the least places that begin a repeated pair."""
    for size in (5, 10):
        for n_others in range(40):
            blocks = (" ".join([*(f"b{place}" for place in range(size)), f"s{block}"]) for block in range(n_blocks))
            text = " ".join([*blocks, *(f"o{other}" for other in range(n_others))])
            for name, share in plainly(text)._asdict().items():
                limits = NO_LIMITS.model_copy(update={f"max_{name}_fraction": math.nextafter(share, 0)})
                assert (judge(raw(text), section=limits) == [None]) == (share == 0), (name, text)


def test_a_loop_goes_and_the_same_answer_said_once_stays() -> None:
    said = "The capital of France is Paris, which lies on the river Seine and has two million people."
    assert judge(ask("Capital?", said)) == [None]
    (finding,) = judge(ask("Capital?", " ".join([said] * 3)))
    assert isinstance(finding, str)
    assert finding.startswith("message 2 (assistant) repeats itself: ")


def test_prompts_short_texts_code_and_tables_are_not_judged() -> None:
    loop = "again and " * 30
    assert judge(ask(loop, "Yes.")) == [None]
    assert judge(raw("a b a b a b a b a")) == [None]  # 9 words of 10
    code = "```python\n" + "x = x + 1\n" * 30 + "```"
    table = "| a | b |\n|---|---|\n" + "| 1 | 2 |\n" * 30
    prose = "This explains what happens in ten or more different words, only once."
    assert judge(ask("Code?", f"{prose}\n{code}"), ask("Table?", f"{prose}\n\n{table}")) == [None, None]


def test_an_answer_to_be_avoided_may_loop() -> None:
    loop, fine = (Message("assistant", "again and " * 30),), (Message("assistant", "Yes."),)
    pair = Example("", "pool", 1, (Message("user", "So?"),), None, {}, chosen=fine, rejected=loop)
    (kept,), (gone,) = judge(pair), judge(replace(pair, chosen=loop, rejected=fine))
    assert kept is None
    assert isinstance(gone, str)
    assert gone.startswith("chosen message 1 (assistant)")


@settings(deadline=None)
@given(st.lists(st.sampled_from(["", "a", "a b", "```\n", "x\n\n", "日本", "| |", "\ud800"])).map(" ".join))
def test_any_text_can_be_measured(text: str) -> None:
    assert all(0 <= share <= 1 for share in measure(text))
    assert len(judge(raw(text or " "), ask("a", text), section=NO_LIMITS)) == 2


@pytest.mark.skipif(not FOLDER.is_dir(), reason="the public samples are not beside the repository")
@pytest.mark.parametrize("preset", ["strict", "enterprise"])
def test_the_limits_in_conf_cost_good_answers_less_than_one_percent(preset: str) -> None:
    conf = Path(__file__).resolve().parents[2] / "conf" / "clean" / f"{preset}.yaml"
    section = RepetitionRuleConfig.model_validate(yaml.safe_load(conf.read_text(encoding="utf-8"))["repetition"])
    rows = json.loads((FOLDER / "alpaca_en_demo.json").read_text(encoding="utf-8"))
    findings = judge(*(ask("?", row["output"]) for row in rows), section=section)
    assert sum(finding is not None for finding in findings) < 10
    loops = [ask("?", " ".join([row["output"]] * 3)) for row in rows if len(row["output"].split()) > 20]
    loops = [loop for loop in loops if "```" not in loop.messages[1].content and "|" not in loop.messages[1].content]
    assert all(finding is not None for finding in judge(*loops, section=section))
