"""Cleaning rules: what each takes out, what it leaves alone, and that every row is accounted for."""

import random
from collections import Counter
from collections.abc import Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tuneline.config.schema import CleanConfig, PiiRuleConfig, RuleConfig, SourceConfig
from tuneline.data.accounting import count_rows
from tuneline.data.cleaning import Cleaned, clean, rule_names
from tuneline.data.dedup import fold, near_duplicates
from tuneline.data.encoding import encoding_problem
from tuneline.data.lengths import empty_problem, length_problem
from tuneline.data.pii import redact
from tuneline.data.records import Example, Message, contents, make_example
from tuneline.data.refusals import declines
from tuneline.errors import DataError

SOURCES = [
    SourceConfig(name="pool", path="pool.jsonl", hub=None, format="auto", role="pool"),
    SourceConfig(name="more", path="more.jsonl", hub=None, format="auto", role="pool"),
    SourceConfig(name="test", path="test.jsonl", hub=None, format="auto", role="test"),
]


def ask(prompt: str, answer: str, source: str = "pool", line: int = 1) -> Example:
    return make_example(source, line, (Message("user", prompt), Message("assistant", answer)), None, {})


def raw(text: str, line: int = 1) -> Example:
    return make_example("pool", line, (), text, {})


def rules_of(cleaned: Cleaned) -> list[tuple[str, int, str]]:
    return [(row.source, row.line, row.rule) for row in cleaned.rejected]


# --- encoding


@pytest.mark.parametrize(
    "text",
    [
        "caf\ufffd",
        "a\0b",
        "a\x1b[0m",
        "a\x7f",
        "a\x85b",
        "a\ud800",
        # UTF-8 read as Windows-1252, made by doing it
        *(sign.encode("utf-8").decode("cp1252") for sign in ("é", "ü", "ñ", "’", "“", "–", "…", "£", "😀", "\ufeff")),
    ],
)
def test_a_text_that_was_decoded_wrongly_is_rejected(text: str) -> None:
    assert encoding_problem(ask(f"before {text} after", "fine"))
    assert encoding_problem(ask("fine", text))
    assert encoding_problem(raw(text))


@pytest.mark.parametrize(
    "text",
    [
        "tab\tline\nreturn\r\n",
        "SÃO PAULO, AMANHÃ, IRMÃ.",
        "a “AMANHÔ",
        "Âme, château, Übung, naïve, Привет, 日本語, हिन्दी, 😀",
        "1\u00a0000 €",
        "a\u2028b\u200bc",
    ],
)
def test_text_in_any_language_passes_the_encoding_rule(text: str) -> None:
    assert encoding_problem(ask(text, text)) is None


# --- empties, length


@pytest.mark.parametrize("text", ["", " ", "\n\t", "\u200b\ufeff", "\u00a0\u3000"])
def test_a_message_without_a_visible_character_is_empty(text: str) -> None:
    assert empty_problem(ask("a", text)) == "message 2 (assistant) is empty"
    assert empty_problem(ask(text, "a")) == "message 1 (user) is empty"
    assert empty_problem(raw(text)) == "empty"
    assert empty_problem(ask("a", "0")) is None


def test_length_limits_are_inclusive_and_per_message() -> None:
    assert length_problem(ask("ab", "abcd"), 2, 4) is None
    assert length_problem(ask("a", "abcd"), 2, 4) == "1 characters; allowed are 2 to 4"
    assert length_problem(ask("ab", "abcde"), 2, 4) == "5 characters; allowed are 2 to 4"
    assert length_problem(raw("日本語😀!"), 2, 4) == "5 characters; allowed are 2 to 4"


# --- refusals


@pytest.mark.parametrize(
    "answer",
    [
        "I'm sorry, but I cannot help with that request.",
        "I’m sorry, but I can’t assist with that.",
        "As an AI language model, I am unable to write this query.",
        "As an AI, I don't have personal preferences.",
        "I cannot assist with that.",
        "Sorry, I can't do that.",
        "Unfortunately, I am not able to provide medical advice.",
        "  I am afraid I won't be able to answer this.",
    ],
)
def test_an_answer_that_declines_is_a_refusal(answer: str) -> None:
    assert declines(answer)


@pytest.mark.parametrize(
    "answer",
    [
        "I'm sorry to hear that you lost your job. Here are some ideas:",
        "Sorry for the delay. The answer is 4.",
        "SELECT name FROM singer WHERE note = 'I cannot assist with that.'",
        "The model said: I'm sorry, but I cannot help.",
        "As an AI engineer you will build models.",
        "I can help with that.",
        "Unfortunately, the battle was lost in 1815.",
    ],
)
def test_an_apology_or_a_quotation_is_no_refusal(answer: str) -> None:
    assert not declines(answer)


def test_only_the_assistant_can_refuse(all_rules: CleanConfig) -> None:
    cleaned = clean([ask("I cannot help with that. What does it mean?", "It declines.")], SOURCES, all_rules)
    assert not cleaned.rejected


# --- PII


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("write to anna@example.org.", "write to <EMAIL>."),
        ("<bob.miller+x@mail.example.co.uk>", "<<EMAIL>>"),
        ("WHERE email = 'eve_k@example.com'", "WHERE email = '<EMAIL>'"),
        ("call +1 202-555-0110 now", "call <PHONE> now"),
        ("(+1 202-555-0110)", "(<PHONE>)"),
        ("+44 20 7946 0912 when it is done", "<PHONE> when it is done"),
        ("+491701234567", "<PHONE>"),
        ("+49 (170) 1234567 2 times", "<PHONE> 2 times"),
        ("0049 170 1234567", "<PHONE>"),
        ("(555) 123-4567", "<PHONE>"),
        ("call 555-123-4567.", "call <PHONE>."),
        ("tel:555.123.4567", "tel:<PHONE>"),
        ("name,555-123-4567,city", "name,<PHONE>,city"),
        ("1-800-555-0199", "<PHONE>"),
        ("030 12345678", "<PHONE>"),
        ("0171/1234567", "<PHONE>"),
        ("020 7946 0958", "<PHONE>"),
        ("06 12 34 56 78", "<PHONE>"),
        ("a@b.org and c@d.org", "<EMAIL> and <EMAIL>"),
        ("+1 202-555-0110+1 202-555-0110", "<PHONE><PHONE>"),
        ("555-123-4567\n555-123-4568\n555-123-4569", "<PHONE>\n<PHONE>\n<PHONE>"),
    ],
)
def test_addresses_and_numbers_written_as_such_are_redacted(text: str, expected: str) -> None:
    found, n_emails, n_phones = redact(text)
    assert found == expected
    assert (n_emails, n_phones) == (expected.count("<EMAIL>"), expected.count("<PHONE>"))


@pytest.mark.parametrize(
    "text",
    [
        "SELECT name FROM t WHERE id = 1234567890 AND price BETWEEN 1000000000 AND 2000000000;",
        "INSERT INTO t VALUES (1, 2024, 987654321, 3.14159265358979, -1234567890.5);",
        "WHERE day >= '2024-01-15' AND day < '2024-02-15 10:30:45'",
        "WHERE email LIKE '%@gmail.com' OR email LIKE '%smith@gmail.com'",
        "01.02.2024 10, 01-02-2024, 2024-01-15T10:30:45+0100, 2010-2020 2021-2022",
        "1990 1991 1992 1993, 10 20 30 40 50, 1 000 000 000, 1.000.000.000, 1,000,000,000",
        "id 123-45-6789, ISBN 978-3-16-148410-0, card 4111 1111 1111 1111, IP 192.168.100.200",
        "550e8400-e29b-41d4-a716-446655440000, ORD-555-123-4567, v2.10.3456, A/C No. 00632000001783",
        "01001000 01100101, 0101 1100 11",
        "472547338\n+960397912423686\n-------",
        "5 +1234567890 = 1234567895, x+1234567890, 1234567890-987654321",
        "200 - 42 - 18 - 14 = <<200-42-18-14=126>>126, $76000-$22800",
        "c = a @ b.transpose(); @app.route('/x'); pip install x@latest; user@localhost",
        "doi 10.1111/1365-2664.12646, phone 12345678, room 012",
    ],
)
def test_numbers_dates_ids_and_code_are_left_alone(text: str) -> None:
    assert redact(text) == (text, 0, 0)


@pytest.mark.parametrize(
    "text",
    [
        "+" + "1" * 20_000 + "x",
        "+1" + " 12" * 7000 + "x",
        "a" * 20_000 + "@",
        "1-" * 9000,
        "a@" + "b." * 9000,
        "+1 202-555-0110" * 9000,
    ],
)
@pytest.mark.timeout(5)
def test_no_text_makes_the_pii_rule_hang(text: str) -> None:
    redact(text)


def test_redaction_changes_content_and_therefore_the_id_and_is_counted(all_rules: CleanConfig) -> None:
    row = ask("Mail anna@example.org or bob@example.org", "call +1 202-555-0110")
    cleaned = clean([row], SOURCES, all_rules)
    expected = ask("Mail <EMAIL> or <EMAIL>", "call <PHONE>")
    assert cleaned.examples == [expected]
    assert expected.id != row.id
    assert cleaned.redaction_counts() == {"n_redacted_emails": 2, "n_redacted_phones": 1, "n_redacted_rows": 1}


def test_pii_can_drop_the_row_instead(all_rules: CleanConfig) -> None:
    drop = all_rules.model_copy(update={"pii": PiiRuleConfig(enabled=True, action="drop")})
    cleaned = clean([ask("Mail anna@example.org", "yes")], SOURCES, drop)
    assert rules_of(cleaned) == [("pool", 1, "pii")]
    assert cleaned.rejected[0].reason == "holds 1 email"


def test_meta_is_never_redacted(all_rules: CleanConfig) -> None:
    row = make_example("pool", 1, (), "a@b.org", {"owner": "a@b.org"})
    (kept,) = clean([row], SOURCES, all_rules).examples
    assert kept.meta == {"owner": "a@b.org"}


# --- duplicates


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("Who, me?", "who me"),
        ("Show the  names!!", " show the names\n"),
        ("caf\u00e9", "CAFE\u0301"),
        ("“Yes” – he said…", '"yes" he said.'),
        ("STRASSE", "straße"),
        ("你好，世界。", "你好 世界"),
    ],
)
def test_case_punctuation_and_white_space_make_no_difference(one: str, other: str) -> None:
    assert fold(one) == fold(other)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("WHERE x > 5", "WHERE x < 5"),
        ("3 + 4", "3 - 4"),
        ("a*b", "a/b"),
        ("f(x)", "f[x]"),
        ("it's", "its"),
        ("?", "!"),
        ("5 %", "5 $"),
        ("a_b", "a b"),
    ],
)
def test_signs_with_a_meaning_make_a_difference(one: str, other: str) -> None:
    assert fold(one) != fold(other)


def test_near_duplicates_compare_every_message_with_its_role() -> None:
    assert near_duplicates([ask("a b", "c"), ask("A  B!", "C.", line=2)]) == {1: "a copy of pool:1"}
    assert near_duplicates([ask("a", "b c"), ask("a b", "c"), raw("a b c")]) == {}


def test_of_several_copies_the_first_by_source_order_and_line_stays(all_rules: CleanConfig) -> None:
    rows = [ask("q", "a", "more", 1), ask("q", "a", "pool", 7), ask("q", "a", "pool", 3), ask("Q?", "A.", "more", 2)]
    cleaned = clean(rows, SOURCES, all_rules)
    assert [(row.source, row.line) for row in cleaned.examples] == [("pool", 3)]
    assert rules_of(cleaned) == [
        ("pool", 7, "exact_duplicates"),
        ("more", 1, "exact_duplicates"),
        ("more", 2, "near_duplicates"),
    ]
    assert {row.reason for row in cleaned.rejected} == {"a copy of pool:3"}


def test_a_pool_row_is_no_copy_of_a_test_row(all_rules: CleanConfig) -> None:
    sources = [SOURCES[2], SOURCES[0]]  # the test comes first here
    cleaned = clean([ask("q", "a", "pool", 1), ask("q", "a", "test", 1)], sources, all_rules)
    assert places(cleaned.examples) == [("test", 1), ("pool", 1)]


def test_rows_of_test_sources_are_held_out_as_given(all_rules: CleanConfig) -> None:
    given = [
        ask("\ufffd", "a", "test", 1),
        ask("q", "", "test", 2),
        ask("q", "I cannot help with that.", "test", 3),
        ask("mail anna@example.org", "a" * 401, "test", 4),
        ask("q", "a", "test", 5),
        ask("q", "a", "test", 6),
    ]
    pool = [ask("mail anna@example.org", "yes", "pool", 1), ask("", "no", "pool", 2)]
    cleaned = clean([*pool, *given], SOURCES, all_rules)
    assert [row for row in cleaned.examples if row.source == "test"] == given
    assert cleaned.redaction_counts()["n_redacted_rows"] == 1
    counts = count_rows(cleaned.examples, cleaned.rejected, rule_names(all_rules), SOURCES)
    assert (counts["n_kept_from_test"], counts["n_rejected_from_test"]) == (6, 0)
    assert (counts["n_kept_from_pool"], counts["n_rejected_from_pool"]) == (1, 1)


def test_rows_that_differ_in_an_address_only_are_copies_once_it_is_redacted(all_rules: CleanConfig) -> None:
    rows = [ask("mail anna@example.org", "yes", line=1), ask("mail bob@example.org", "yes", line=2)]
    assert rules_of(clean(rows, SOURCES, all_rules)) == [("pool", 2, "exact_duplicates")]


# --- the whole


def test_each_rule_counts_what_it_took_and_the_first_that_finds_something_takes_it(all_rules: CleanConfig) -> None:
    rows = [
        ask("\ufffd", "", line=1),
        ask("q", "", line=2),
        ask("q", "a" * 401, line=3),
        ask("q", "I cannot help with that.", line=4),
        ask("q", "a", line=5),
        ask("q", "a", line=6),
        ask("Q", "a", line=7),
    ]
    cleaned = clean(rows, SOURCES, all_rules)
    counts = count_rows(cleaned.examples, cleaned.rejected, rule_names(all_rules), SOURCES)
    assert counts == {
        "n_read": 7,
        "n_kept": 1,
        "n_rejected": 6,
        "rejected_fraction": 6 / 7,
        "n_rejected_by_encoding": 1,
        "n_rejected_by_empties": 1,
        "n_rejected_by_length": 1,
        "n_rejected_by_refusals": 1,
        "n_rejected_by_pii": 0,
        "n_rejected_by_exact_duplicates": 1,
        "n_rejected_by_near_duplicates": 1,
        "n_kept_from_pool": 1,
        "n_rejected_from_pool": 6,
        "n_kept_from_more": 0,
        "n_rejected_from_more": 0,
        "n_kept_from_test": 0,
        "n_rejected_from_test": 0,
    }


def test_rules_are_the_sections_of_conf_in_their_order(all_rules: CleanConfig) -> None:
    assert rule_names(all_rules) == [name for name in CleanConfig.model_fields if name != "max_rejected_fraction"]


@pytest.mark.parametrize("name", ["encoding", "empties", "refusals", "exact_duplicates", "near_duplicates"])
def test_a_rule_that_is_off_takes_nothing(name: str, all_rules: CleanConfig) -> None:
    rows = [ask("\ufffd", "a"), ask("e", "", line=6), ask("q", "I cannot help with that.", line=2)]
    rows += [ask("x", "a", line=number) for number in (3, 4)] + [ask("X", "a", line=5)]
    off = all_rules.model_copy(update={name: RuleConfig(enabled=False)})
    assert name in {row.rule for row in clean(rows, SOURCES, all_rules).rejected}
    assert name not in {row.rule for row in clean(rows, SOURCES, off).rejected}


def test_a_row_of_an_unknown_source_is_an_error_with_its_place(all_rules: CleanConfig) -> None:
    with pytest.raises(DataError, match="old:4: no such source"):
        clean([ask("q", "a", "old", 4)], SOURCES, all_rules)


PIECES = st.sampled_from(
    ["a", "A", " ", "!", "b", "\ufffd", "x@y.org", "z@y.org", "I cannot help with that.", "+1 202-555-0110"]
)
TEXTS = st.lists(PIECES, max_size=4).map("".join)


@st.composite
def many_rows(draw: st.DrawFn) -> list[Example]:
    pairs = draw(st.lists(st.tuples(TEXTS, TEXTS, st.sampled_from(["pool", "more", "test"])), max_size=30))
    return [ask(prompt, answer, source, line) for line, (prompt, answer, source) in enumerate(pairs, 1)]


def places(rows: Sequence[Example]) -> list[tuple[str, int]]:
    return [(row.source, row.line) for row in rows]


@settings(deadline=None, max_examples=50)
@given(rows=many_rows(), seed=st.integers(0, 9))
def test_kept_and_rejected_are_what_was_read_whatever_the_order(rows: list[Example], seed: int) -> None:
    on = RuleConfig(enabled=True)
    rules = CleanConfig.model_validate(
        {
            "encoding": on,
            "empties": on,
            "length": {"enabled": True, "min_chars": 1, "max_chars": 30},
            "refusals": on,
            "pii": {"enabled": True, "action": "redact"},
            "exact_duplicates": on,
            "near_duplicates": on,
            "max_rejected_fraction": 1.0,
        }
    )
    cleaned = clean(rows, SOURCES, rules)
    accounted = places(cleaned.examples) + [(row.source, row.line) for row in cleaned.rejected]
    assert Counter(accounted) == Counter(places(rows))
    shuffled = random.Random(seed).sample(rows, len(rows))
    assert clean(shuffled, SOURCES, rules) == cleaned
    # clean rows stay as they are: the rules have nothing left to do
    again = clean(cleaned.examples, SOURCES, rules)
    assert (again.examples, again.rejected) == (cleaned.examples, [])
    pool = [row for row in cleaned.examples if row.source != "test"]
    assert all(redact(text)[1:] == (0, 0) for row in pool for text in contents(row))
    assert [row for row in cleaned.examples if row.source == "test"] == [row for row in rows if row.source == "test"]
