"""The split: by hash of the prompt, so stable and without a prompt on two sides; test rows are kept from training."""

import json
import random
import tempfile
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tuneline.config.schema import ContaminationConfig, MixtureConfig, SourceConfig, SplitConfig
from tuneline.data.prompts import group_key
from tuneline.data.record_files import iterate_rejected, read_examples, write_examples
from tuneline.data.records import Example, Message, Rejected, Role, make_example
from tuneline.data.sides import place_on_unit_line
from tuneline.data.splitting import count_sides, divide, mix_training_rows, refuse_contamination, write_sides
from tuneline.errors import DataError


def source(name: str, role: str = "pool", weight: float | None = None, count: int | None = None) -> SourceConfig:
    return SourceConfig.model_validate(
        {
            **{"name": name, "path": f"{name}.jsonl", "hub": None, "format": "auto", "role": role, "columns": {}},
            **{"system_prompt": None, "task_prefix": None, "weight": weight, "count": count},
        }
    )


POOL, TEST = source("pool"), source("test", "test")
DROP = ContaminationConfig(action="drop", ngram=13, max_ngram_rows=10, min_jaccard=0.8)
GIVEN_TEST = SplitConfig(val_fraction=0.2, test_fraction=0.0, salt="tuneline", contamination=DROP)
HOLDOUT = SplitConfig(val_fraction=0.2, test_fraction=0.3, salt="tuneline", contamination=DROP)
AS_IT_IS = MixtureConfig(n_rows=None, replay_fraction=0.0)


@dataclass(frozen=True)
class Splits:
    """What the stage writes."""

    train: list[Example]
    val: list[Example]
    test: list[Example]
    rejected: list[Rejected]
    pairs: list[dict[str, Any]]
    counts: dict[str, int | float]


def split(
    examples: Sequence[Example],
    sources: Sequence[SourceConfig],
    config: SplitConfig,
    mixture: MixtureConfig = AS_IT_IS,
    n_workers: int = 1,
) -> Splits:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_examples(folder / "examples.jsonl", examples)
        return split_files([folder / "examples.jsonl"], folder, sources, config, mixture, n_workers)


def split_files(
    files: Sequence[Path],
    folder: Path,
    sources: Sequence[SourceConfig],
    config: SplitConfig,
    mixture: MixtureConfig = AS_IT_IS,
    n_workers: int = 1,
) -> Splits:
    divided = divide(files, sources, config, n_workers, folder, unwatched)
    refuse_contamination(divided, config.contamination, folder / "contamination.jsonl")
    mixed = mix_training_rows(divided, mixture, config, seed=1)
    write_sides(folder, divided, mixed)
    return Splits(
        train=read_examples(folder / "train.jsonl"),
        val=read_examples(folder / "val.jsonl"),
        test=read_examples(folder / "test.jsonl"),
        rejected=list(iterate_rejected(folder / "rejected.jsonl")),
        pairs=[json.loads(line) for line in (folder / "contamination.jsonl").read_text("utf-8").splitlines()],
        counts=count_sides(divided, mixed),
    )


def unwatched(rows: Iterable[int], _: str) -> Iterable[int]:
    return rows


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


def test_contamination_can_fail_instead_and_names_the_row_and_the_file_of_all_pairs(tmp_path: Path) -> None:
    leaked = ask("question test 3", line=99)
    fail = GIVEN_TEST.model_copy(update={"contamination": DROP.model_copy(update={"action": "fail"})})
    write_examples(tmp_path / "in.jsonl", [*many(50), leaked, *many(20, "test")])
    with pytest.raises(DataError) as caught:
        split_files([tmp_path / "in.jsonl"], tmp_path, [POOL, TEST], fail)
    assert str(caught.value) == (
        f"pool:99: it answers the prompt of test:4, a test row; 1 such rows, all in {tmp_path}/contamination.jsonl;"
        " remove them, or set split.contamination.action: drop"
    )
    (pair,) = (tmp_path / "contamination.jsonl").read_text().splitlines()
    assert json.loads(pair)["row"] == "pool:99"


def test_an_empty_side_is_an_error_that_says_which_and_why() -> None:
    with pytest.raises(DataError, match="no training row is left of 0 pool rows"):
        split(many(5, "test"), [POOL, TEST], GIVEN_TEST)
    with pytest.raises(DataError, match="there is no test row"):
        split(many(50), [POOL, TEST], GIVEN_TEST)
    with pytest.raises(DataError, match=r"split\.val_fraction 0\.001 of 3 pool rows is no row"):
        split(many(3) + many(2, "test"), [POOL, TEST], GIVEN_TEST.model_copy(update={"val_fraction": 0.001}))


def test_no_row_at_all_is_an_error_too() -> None:
    with pytest.raises(DataError, match="no training row is left of 0 pool rows"):
        split([], [POOL, TEST], GIVEN_TEST)


def test_no_validation_rows_are_fine_when_none_were_asked_for() -> None:
    splits = split(many(3) + many(2, "test"), [POOL, TEST], GIVEN_TEST.model_copy(update={"val_fraction": 0.0}))
    assert (len(splits.train), len(splits.val)) == (3, 0)


def test_the_counts_add_up() -> None:
    splits = split([*many(50), ask("question test 3", line=99), *many(20, "test")], [POOL, TEST], GIVEN_TEST)
    counts = splits.counts
    assert counts["n_read"] == 71
    assert counts["n_read"] == sum(
        counts[f"n_{side}"] for side in ("train", "val", "test", "rejected_by_contamination")
    )
    assert counts["n_train_from_pool"] + counts["n_val_from_pool"] == 50
    assert (counts["n_test_from_test"], counts["n_test_groups"]) == (20, 20)


OLD, BENCH = source("old", "replay"), source("bench", "benchmark")


def test_replay_rows_are_only_ever_trained_on_and_benchmark_rows_are_on_no_side() -> None:
    rows = many(50) + many(50, "old") + many(10, "test") + many(10, "bench")
    splits = split(rows, [POOL, OLD, TEST, BENCH], GIVEN_TEST, MixtureConfig(n_rows=None, replay_fraction=0.5))
    assert {row.source for row in splits.train} == {"pool", "old"}
    assert {row.source for row in splits.val} == {"pool"}
    assert {row.source for row in splits.test} == {"test"}
    assert splits.counts["n_benchmark"] == 10


def test_a_row_that_gives_a_benchmark_row_away_is_dropped_with_its_pairs_in_a_file() -> None:
    leaked = [ask("question bench 3", "other", line=99), ask("question bench 4", "other", "old", 98)]
    rows = [*many(50), *leaked, *many(10, "test"), *many(10, "bench")]
    splits = split(rows, [POOL, OLD, TEST, BENCH], GIVEN_TEST, MixtureConfig(n_rows=None, replay_fraction=0.0))
    assert [(row.source, row.line, row.reason) for row in splits.rejected] == [
        ("pool", 99, "it answers the prompt of bench:4, a benchmark row"),
        ("old", 98, "it answers the prompt of bench:5, a benchmark row"),
    ]
    assert [(pair["kind"], pair["row"], pair["held_out"], pair["shared"]) for pair in splits.pairs] == [
        ("exact", "pool:99", "bench:4", "question bench 3"),
        ("exact", "old:98", "bench:5", "question bench 4"),
    ]
    by_kind = {kind: splits.counts[f"n_contaminated_by_{kind}"] for kind in ("exact", "ngram", "near")}
    assert by_kind == {"exact": 2, "ngram": 0, "near": 0}


def test_a_row_contaminated_in_two_ways_is_counted_in_both_and_rejected_once() -> None:
    long = " ".join(f"word{number}" for number in range(30))
    splits = split(
        [*many(50), ask("question test 3", long, line=99), ask("question test 3", long, "test", 1)],
        [POOL, TEST],
        GIVEN_TEST,
    )
    assert len(splits.rejected) == 1
    by_kind = {kind: splits.counts[f"n_contaminated_by_{kind}"] for kind in ("exact", "ngram", "near")}
    assert by_kind == {"exact": 1, "ngram": 1, "near": 1}


def test_validation_rows_are_never_mixed_and_every_row_read_is_accounted_for() -> None:
    few, more = source("pool", weight=1.0), source("more", weight=3.0)
    rows = [*many(100), *many(40, "more"), ask("question test 3", line=199), *many(20, "test"), *many(5, "bench")]
    splits = split(rows, [few, more, TEST, BENCH], GIVEN_TEST, MixtureConfig(n_rows=120, replay_fraction=0.0))
    plain = split(rows, [POOL, source("more"), TEST, BENCH], GIVEN_TEST)
    counts = splits.counts
    assert splits.val == plain.val
    assert (counts["n_train_from_pool"], counts["n_train_from_more"]) == (30, 90)
    assert counts["n_train_before_mixture_from_more"] == plain.counts["n_train_from_more"]
    assert counts["n_train_groups"] == 120 - counts["n_repeats_by_mixture"]
    on_sides = counts["n_train"] + counts["n_val"] + counts["n_test"] + counts["n_benchmark"]
    beside = counts["n_rejected_by_contamination"] + counts["n_left_out_by_mixture"]
    assert counts["n_read"] == 166 == on_sides + beside - counts["n_repeats_by_mixture"]


def test_two_files_are_split_as_one(tmp_path: Path) -> None:
    pool, added = many(50), [ask(f"question pool {n}", f"another {n}", line=100 + n) for n in range(20)]
    files = [tmp_path / name for name in ("one.jsonl", "none.jsonl", "two.jsonl")]
    for path, rows in zip(files, (pool, [], [*added, *many(10, "test")]), strict=True):
        write_examples(path, rows)
    (tmp_path / "out").mkdir()
    assert split_files(files, tmp_path / "out", [POOL, TEST], GIVEN_TEST) == split(
        [*pool, *added, *many(10, "test")], [POOL, TEST], GIVEN_TEST
    )


def test_any_number_of_processes_writes_the_same_bytes(tmp_path: Path) -> None:
    # rows of 60 kB: about 4 parts
    rows = [ask(f"question pool {n}", f"{n} {'pad ' * 15_000}", line=n) for n in range(120)]
    write_examples(tmp_path / "in.jsonl", [*rows, ask("question pool 7", "x", "test")])
    written = []
    for n_workers in (1, 2):
        folder = tmp_path / str(n_workers)
        folder.mkdir()
        split_files([tmp_path / "in.jsonl"], folder, [POOL, TEST], GIVEN_TEST, n_workers=n_workers)
        written.append({path.name: path.read_bytes() for path in folder.glob("*.jsonl")})
    assert written[0] == written[1]
    assert sorted(written[0]) == ["contamination.jsonl", "rejected.jsonl", "test.jsonl", "train.jsonl", "val.jsonl"]


def test_lines_are_copied_as_they_are_and_blank_ones_are_none(tmp_path: Path) -> None:
    write_examples(tmp_path / "in.jsonl", many(50) + many(3, "test"))
    data = (tmp_path / "in.jsonl").read_bytes()
    (tmp_path / "in.jsonl").write_bytes(data.replace(b"\n", b"\n\n", 20).rstrip(b"\n"))
    split_files([tmp_path / "in.jsonl"], tmp_path, [POOL, TEST], GIVEN_TEST)
    written = b"".join((tmp_path / f"{side}.jsonl").read_bytes() for side in ("train", "val", "test"))
    assert sorted(written.splitlines()) == sorted(data.splitlines())


def test_a_broken_line_is_named_by_its_number(tmp_path: Path) -> None:
    write_examples(tmp_path / "in.jsonl", many(20))
    with (tmp_path / "in.jsonl").open("ab") as file:
        file.write(b"{broken\n")
    with pytest.raises(DataError, match=r"in\.jsonl:21: not JSON"):
        split_files([tmp_path / "in.jsonl"], tmp_path, [POOL, TEST], GIVEN_TEST)


def test_a_row_of_a_source_that_is_not_configured_is_an_error() -> None:
    with pytest.raises(DataError, match=r"source 'bench' is not in data\.sources"):
        split([*many(20), *many(3, "bench")], [POOL, TEST], GIVEN_TEST)


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
