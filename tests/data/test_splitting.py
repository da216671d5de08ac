"""The split: by hash of the prompt, so stable and without a prompt on two sides; test rows are kept from training."""

import random
from collections.abc import Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tuneline.config.schema import SourceConfig, SplitConfig
from tuneline.data.contamination import group_key
from tuneline.data.records import Example, Message, Role, make_example
from tuneline.data.splitting import Splits, count_sides, place_on_unit_line, split
from tuneline.errors import DataError

POOL = SourceConfig(name="pool", path="pool.jsonl", hub=None, format="auto", role="pool")
TEST = SourceConfig(name="test", path="test.jsonl", hub=None, format="auto", role="test")
GIVEN_TEST = SplitConfig(val_fraction=0.2, test_fraction=0.0, salt="tuneline", on_contamination="drop")
HOLDOUT = SplitConfig(val_fraction=0.2, test_fraction=0.3, salt="tuneline", on_contamination="drop")


def ask(prompt: str, answer: str = "yes", source: str = "pool", line: int = 1) -> Example:
    return make_example(source, line, (Message("user", prompt), Message("assistant", answer)), None, {})


def many(n_rows: int, source: str = "pool") -> list[Example]:
    return [ask(f"question {source} {number}", line=number + 1, source=source) for number in range(n_rows)]


def sides(splits: Splits) -> dict[str, set[tuple[str, int]]]:
    named: list[tuple[str, Sequence[Example]]] = [("train", splits.train), ("val", splits.val), ("test", splits.test)]
    return {name: {(row.source, row.line) for row in rows} for name, rows in named}


def chat(*turns: str, system: str | None = None, line: int = 1) -> Example:
    """User and assistant in turns."""
    roles: tuple[Role, Role] = ("user", "assistant")
    messages = tuple(Message(roles[number % 2], turn) for number, turn in enumerate(turns))
    before = () if system is None else (Message("system", system),)
    return make_example("pool", line, (*before, *messages), None, {})


def test_the_group_is_the_words_before_the_last_answer_without_the_instructions() -> None:
    example = chat("CREATE TABLE t (a);\n\nQuestion: how many?", "SELECT 1", system="Be brief.")
    assert group_key(example) == "create table t a question how many"
    assert group_key(chat("One?", "1", "Two?", "2")) == "one 1 two"
    assert group_key(make_example("pool", 1, (), "Once, upon A time.", {})) == "once upon a time"
    assert group_key(ask("?!")) == "?!"
    assert group_key(ask("?!")) != group_key(ask("!!"))


def test_the_place_of_a_key_is_that_of_its_sha256() -> None:
    # printf 'tuneline\0a b' | sha256sum  begins with 0e017777
    assert place_on_unit_line("tuneline", "a b") == pytest.approx(int("0e017777", 16) / 16**8, abs=1e-9)


def test_places_are_spread_evenly() -> None:
    tenths = [int(10 * place_on_unit_line("tuneline", str(key))) for key in range(10_000)]
    # binomial with mean 1000, standard deviation 30
    assert all(abs(tenths.count(tenth) - 1000) < 4 * 30 for tenth in range(10))


def test_fractions_of_the_pool_come_out_about_right_and_a_salt_draws_another_split() -> None:
    pool = many(2000)
    drawn = split(pool, [POOL], HOLDOUT)
    assert abs(len(drawn.val) - 400) < 4 * 18  # sqrt(2000 * 0.2 * 0.8) = 18
    assert abs(len(drawn.test) - 600) < 4 * 21  # sqrt(2000 * 0.3 * 0.7) = 20.5
    other = split(pool, [POOL], HOLDOUT.model_copy(update={"salt": "other"}))
    assert sides(other)["val"] != sides(drawn)["val"]


def test_changing_the_validation_fraction_keeps_the_test_set() -> None:
    pool = many(500)
    tests = [
        sides(split(pool, [POOL], HOLDOUT.model_copy(update={"val_fraction": fraction})))["test"]
        for fraction in (0.0, 0.05, 0.2, 0.69)
    ]
    assert tests[0]
    assert all(test == tests[0] for test in tests)


def test_a_larger_validation_fraction_takes_rows_from_training_only() -> None:
    pool = many(500)
    few, more = (
        sides(split(pool, [POOL], HOLDOUT.model_copy(update={"val_fraction": fraction}))) for fraction in (0.1, 0.3)
    )
    assert few["val"] < more["val"]
    assert more["train"] < few["train"]


def test_a_test_source_goes_to_test_whole() -> None:
    splits = split(many(50) + many(20, "test"), [POOL, TEST], GIVEN_TEST)
    assert sides(splits)["test"] == {("test", line) for line in range(1, 21)}


def test_raw_text_is_never_drawn_into_the_test() -> None:
    texts = [make_example("pool", 1000 + number, (), f"text {number}", {}) for number in range(200)]
    splits = split(many(50) + texts, [POOL], HOLDOUT)
    assert all(row.text is None for row in splits.test)
    assert any(row.text is not None for row in splits.val)


def test_a_pool_row_whose_prompt_is_tested_is_dropped_with_the_reason() -> None:
    leaked = ask("Question, TEST 3?", "another answer", line=99)
    splits = split([*many(50), leaked, *many(20, "test")], [POOL, TEST], GIVEN_TEST)
    (rejected,) = splits.rejected
    assert (rejected.source, rejected.line, rejected.rule) == ("pool", 99, "contamination")
    assert rejected.reason == "it answers the prompt of test:4, a test row"
    assert len(splits.train) + len(splits.val) == 50


@pytest.mark.parametrize(
    "leaked",
    [
        chat("question test 3", "yes", "Are you sure?", "I am.", line=99),
        chat("question test 3", "yes", "Are you sure?", "I am.", "Really?", "Yes.", line=99),
        chat("question test 3", "no", system="Answer in one word.", line=99),
    ],
    ids=["first of two turns", "first of three turns", "other instructions"],
)
def test_a_tested_prompt_is_found_before_any_answer_and_under_any_instructions(leaked: Example) -> None:
    splits = split([*many(50), leaked, *many(20, "test")], [POOL, TEST], GIVEN_TEST)
    assert [(row.line, row.reason) for row in splits.rejected] == [(99, "it answers the prompt of test:4, a test row")]


def test_words_of_a_tested_prompt_that_are_not_a_whole_prompt_are_no_contamination() -> None:
    apart = [chat("question", "test 3", "go on", "yes", line=99), chat("question test 3 4", "yes", line=98)]
    assert split([*many(50), *apart, *many(20, "test")], [POOL, TEST], GIVEN_TEST).rejected == []


def test_a_conversation_that_passes_a_drawn_test_prompt_is_dropped_too() -> None:
    pool = many(50)
    tested = split(pool, [POOL], HOLDOUT).test
    longer = [chat(row.messages[0].content, "yes", f"and {row.line}", "no", line=row.line + 1000) for row in pool]
    splits = split(pool + longer, [POOL], HOLDOUT)
    kept = {row.messages[0].content for row in splits.train + splits.val}
    assert tested
    assert not kept & {row.messages[0].content for row in tested}
    assert all(row.line > 1000 for row in splits.rejected)


def test_contamination_can_fail_instead_and_names_the_row() -> None:
    leaked = ask("question test 3", line=99)
    fail = GIVEN_TEST.model_copy(update={"on_contamination": "fail"})
    with pytest.raises(DataError, match=r"pool:99: it answers the prompt of test:4.*; 1 such rows; .*on_contamination"):
        split([*many(50), leaked, *many(20, "test")], [POOL, TEST], fail)


def test_an_empty_side_is_an_error_that_says_which_and_why() -> None:
    with pytest.raises(DataError, match="no training row is left of 0 pool rows"):
        split(many(5, "test"), [POOL, TEST], GIVEN_TEST)
    with pytest.raises(DataError, match="there is no test row"):
        split(many(50), [POOL, TEST], GIVEN_TEST)
    with pytest.raises(DataError, match=r"split\.val_fraction 0\.001 of 3 pool rows is no row"):
        split(many(3) + many(2, "test"), [POOL, TEST], GIVEN_TEST.model_copy(update={"val_fraction": 0.001}))


def test_no_validation_rows_are_fine_when_none_were_asked_for() -> None:
    splits = split(many(3) + many(2, "test"), [POOL, TEST], GIVEN_TEST.model_copy(update={"val_fraction": 0.0}))
    assert (len(splits.train), len(splits.val)) == (3, 0)


def test_the_counts_add_up() -> None:
    splits = split([*many(50), ask("question test 3", line=99), *many(20, "test")], [POOL, TEST], GIVEN_TEST)
    counts = count_sides(splits, [POOL, TEST])
    assert counts["n_read"] == 71
    assert counts["n_read"] == sum(
        counts[f"n_{side}"] for side in ("train", "val", "test", "rejected_by_contamination")
    )
    assert counts["n_train_from_pool"] + counts["n_val_from_pool"] == 50
    assert (counts["n_test_from_test"], counts["n_test_groups"]) == (20, 20)


PROMPTS = st.text(alphabet="ab? ", max_size=5)
ROWS = st.lists(st.tuples(PROMPTS, st.sampled_from(["yes", "no"])), min_size=1, max_size=30).map(
    lambda pairs: [ask(prompt, answer, line=line) for line, (prompt, answer) in enumerate(pairs, 1)]
)
# certain rows, so that no side is empty whatever else is drawn
FIRM = [ask(f"firm {number}", line=1000 + number) for number in range(60)]


@settings(deadline=None, max_examples=50)
@given(rows=ROWS, added=ROWS, seed=st.integers(0, 9))
def test_a_row_keeps_its_side_when_rows_are_shuffled_and_others_are_added(
    rows: list[Example], added: list[Example], seed: int
) -> None:
    before = sides(split(FIRM + rows, [POOL], HOLDOUT))
    later = [ask(row.messages[0].content, line=row.line + 5000) for row in added]
    shuffled = random.Random(seed).sample([*FIRM, *rows, *later], len(FIRM) + len(rows) + len(later))
    after = sides(split(shuffled, [POOL], HOLDOUT))
    assert all(before[side] <= after[side] for side in before)


@settings(deadline=None, max_examples=50)
@given(rows=ROWS, tests=ROWS)
def test_no_prompt_is_on_two_sides_and_no_row_is_lost(rows: list[Example], tests: list[Example]) -> None:
    held_out = [ask(row.messages[0].content, "maybe", "test", row.line) for row in tests]
    for examples, sources, settings_ in (
        (FIRM + rows, [POOL], HOLDOUT),
        (FIRM + rows + held_out, [POOL, TEST], GIVEN_TEST),
    ):
        splits = split(examples, sources, settings_)
        keys = [{group_key(row) for row in side} for side in (splits.train, splits.val, splits.test)]
        assert not keys[0] & keys[1]
        assert not keys[0] & keys[2]
        assert not keys[1] & keys[2]
        n_rows = len(splits.train) + len(splits.val) + len(splits.test) + len(splits.rejected)
        assert n_rows == len(examples)
