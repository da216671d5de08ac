"""What gives a held-out row away is found: equal prompts and answers, shared runs of words, near copies, in any row."""

import json
import random
import re
import tempfile
import tracemalloc
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from tuneline.config.schema import ContaminationConfig, SourceConfig, SplitConfig
from tuneline.data.contamination import pair_as_json
from tuneline.data.held_out import index_of
from tuneline.data.prompts import group_key, prompt_keys
from tuneline.data.record_files import write_examples
from tuneline.data.records import TEACHER_KEY, Example, Message, contents, make_example, with_id
from tuneline.data.sides import StoredRows
from tuneline.data.splitting import Divided, divide

SHARED = Path(__file__).resolve().parents[3] / "shared" / "data"
GATE = ContaminationConfig(action="drop", ngram=13, max_ngram_rows=10, min_jaccard=0.8)
EXACT = GATE.model_copy(update={"ngram": None, "min_jaccard": None})
NGRAM = GATE.model_copy(update={"min_jaccard": None})
NEAR = GATE.model_copy(update={"ngram": None})

# 30 different words, of which no two texts below share a run by chance
WORDS = [f"w{number}" for number in range(30)]


def source(name: str, role: str) -> SourceConfig:
    return SourceConfig.model_validate(
        {
            **{"name": name, "path": f"{name}.jsonl", "hub": None, "format": "auto", "role": role, "columns": {}},
            **{"system_prompt": None, "task_prefix": None, "weight": None, "count": None},
        }
    )


SOURCES = [source("pool", "pool"), source("more", "replay"), source("test", "test"), source("bench", "benchmark")]


def ask(prompt: str, answer: str, name: str = "pool", line: int = 1, system: str | None = None) -> Example:
    before = () if system is None else (Message("system", system),)
    return make_example(name, line, (*before, Message("user", prompt), Message("assistant", answer)), None, {})


def raw(text: str, name: str = "pool", line: int = 1) -> Example:
    return make_example(name, line, (), text, {})


@contextmanager
def gated(rows: Sequence[Example], config: ContaminationConfig = GATE, n_workers: int = 1) -> Iterator[Divided]:
    """What is divided reads its rows from the file, which is there inside the block."""
    split = SplitConfig(val_fraction=0.1, test_fraction=0.0, salt="tuneline", contamination=config)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_examples(folder / "examples.jsonl", rows)
        yield divide([folder / "examples.jsonl"], SOURCES, split, n_workers, folder, lambda rows, _: rows)


def gate(rows: Sequence[Example], config: ContaminationConfig = GATE, n_workers: int = 1) -> Divided:
    with gated(rows, config, n_workers) as divided:
        list(divided.contaminated())
    return divided


def kinds(row: Example, held_out: Example, config: ContaminationConfig = GATE) -> set[str]:
    return {pair.kind for pair in gate([row, held_out], config).pairs.get(0, ())}


def said(words: Sequence[str]) -> str:
    return " ".join(words)


TESTED = ask(said(WORDS[:15]), said(WORDS[15:]), "test")


def test_an_equal_answer_of_twenty_words_is_a_leak_and_a_shorter_one_is_not() -> None:
    long, short = said([f"a{n}" for n in range(20)]), said([f"a{n}" for n in range(19)])
    assert kinds(ask("one", long), ask("two", long.upper() + "!", "test"), EXACT) == {"exact"}
    assert kinds(ask("one", short), ask("two", short, "test"), EXACT) == set()


def test_a_run_of_thirteen_words_is_a_leak_and_twelve_are_not() -> None:
    thirteen = ["x", *WORDS[2:15], "y"]
    assert kinds(ask(said(thirteen), "ok"), TESTED) == {"ngram"}
    assert kinds(ask("q", said(thirteen)), TESTED) == {"ngram"}
    assert kinds(ask(said(["x", *WORDS[3:15], "y"]), "ok"), TESTED) == set()


def test_a_run_does_not_reach_from_one_message_into_the_next() -> None:
    # WORDS[8:21] are 13 words, 7 at the end of the tested prompt and 6 at the start of its answer
    assert kinds(ask(said(["x", *WORDS[8:21], "y"]), "ok"), TESTED) == set()


def test_the_whole_of_a_short_text_is_no_run() -> None:
    # "yes it is" is all of both texts, and only three words
    assert kinds(ask("one", "yes it is"), ask("two", "yes it is", "test")) == set()


def test_system_messages_give_nothing_away() -> None:
    instructions = said([f"s{n}" for n in range(40)])
    tested = ask("two", "no", "test", system=instructions)
    assert kinds(ask("one", "yes", system=instructions), tested) == set()
    assert kinds(ask(instructions, "yes"), tested) == set()


def taught(seed: Example, prompt: str) -> Example:
    return replace(ask(prompt, "ok", seed.source), meta={TEACHER_KEY: {"seed_row": seed.id}})


def test_what_a_teacher_made_from_a_contaminated_row_goes_with_it() -> None:
    leaking, fine = ask(said(WORDS[:15]), "ok"), ask("another question", "ok")
    made = [with_id(taught(row, f"in other words {number}")) for number, row in enumerate((leaking, fine))]
    with gated([leaking, fine, *made, TESTED], EXACT) as divided:
        assert sorted(divided.pairs) == [0, 2]
        reason = divided.reason(divided.pairs[2][0])
    assert reason.startswith("a teacher made it from a row of which is true: it answers")


def test_a_held_out_row_with_a_field_called_teacher_stays_held_out() -> None:
    tested = replace(TESTED, meta={TEACHER_KEY: "Ms Smith"})
    divided = gate([ask("a question", "ok"), tested, replace(tested, source="bench")])
    assert [len(divided.on(side)) for side in ("test", "benchmark")] == [1, 1]


def test_a_teachers_row_on_a_validation_prompt_is_on_no_side() -> None:
    rows = [ask(f"question {number}", "ok", line=number) for number in range(60)]
    divided = gate(rows)
    held_out = [rows[index] for index in divided.on("val")]
    assert held_out
    made = [with_id(taught(rows[0], row.messages[0].content)) for row in held_out]
    assert len(gate([*rows, *made]).on("none")) == len(made)


def test_a_run_in_more_training_rows_than_allowed_is_a_template_and_a_prompt_never_is() -> None:
    shared = said(WORDS[:13])
    for n_rows, found in ((10, 10), (11, 0)):
        rows = [ask(f"{number} {shared}", "ok", line=number) for number in range(n_rows)]
        assert len(gate([*rows, TESTED], NGRAM).pairs) == found
    copies = [ask(TESTED.messages[0].content, f"answer {number}", line=number) for number in range(11)]
    assert len(gate([*copies, TESTED]).pairs) == 11


def test_a_template_in_one_half_of_the_file_is_one_in_the_other_too() -> None:
    # parts of 2 MB: the run's eleventh row comes in a later part than its first ten
    filler = [raw(f"{number} " * 200_000, line=number) for number in range(100, 104)]
    rows = [ask(f"{number} {said(WORDS[:13])}", "ok", line=number) for number in range(11)]
    assert len(gate([*rows[:10], *filler, *rows[10:], TESTED], NGRAM).pairs) == 0
    assert len(gate([*rows[:5], *filler, *rows[6:], TESTED], NGRAM).pairs) == 10


def test_near_copies_are_judged_by_their_exact_similarity() -> None:
    # 26 runs of 5 words each; one word changed at an end leaves 25 in common: 25 / 27
    edited = ask(said(["other", *WORDS[1:15]]), said(WORDS[15:]))
    (pair,) = gate([edited, TESTED], NEAR).pairs[0]
    assert pair.kind == "near"
    assert pair.jaccard == pytest.approx(25 / 27)
    for limit, found in ((25 / 27, {"near"}), (0.93, set())):
        assert kinds(edited, TESTED, NEAR.model_copy(update={"min_jaccard": limit})) == found


@pytest.mark.parametrize(
    "row",
    [
        raw(f"before {said(WORDS[:13])} after"),
        with_id(Example("", "pool", 1, (Message("user", f"so {said(WORDS[:13])}"),), None, {})),
        with_id(
            Example(
                *("", "pool", 1, (Message("user", "which?"),), None, {}),
                chosen=(Message("assistant", "this"),),
                rejected=(Message("assistant", said(WORDS[15:28])),),
            )
        ),
        with_id(
            Example(
                *("", "pool", 1, (Message("user", "good?"), Message("assistant", said(WORDS[16:]))), None, {}),
                label=False,
            )
        ),
        ask(said(WORDS[1:14]), "ok", "more"),
    ],
    ids=["raw text", "prompt", "preference pair", "labelled", "replay"],
)
def test_rows_of_every_kind_are_compared(row: Example) -> None:
    assert kinds(row, TESTED) == {"ngram"}


def test_a_benchmark_of_raw_text_and_the_test_are_both_held_out() -> None:
    rows = [ask("one", said(WORDS)), ask("p", "a", "test"), raw(f"x {said(WORDS)}", "bench", 7)]
    with gated(rows, NGRAM) as divided:
        reasons = [divided.reason(pair) for pair in divided.pairs[0]]
    assert reasons == ["it has 13 words in a row in common with bench:7, a benchmark row"]


def test_a_pair_or_a_prompt_on_a_tested_prompt_is_found() -> None:
    turn = (Message("user", "Which one?"),)
    pair = with_id(
        Example(
            *("", "pool", 1, turn, None, {}),
            chosen=(Message("assistant", "a"), Message("user", "And?"), Message("assistant", "b")),
            rejected=(Message("assistant", "c"),),
        )
    )
    prompt = with_id(Example("", "pool", 1, turn, None, {}))
    (one,) = prompt_keys(ask("which one", "x"))
    assert [key == one for key in prompt_keys(pair)] == [True, False, True, True]
    assert (group_key(pair), group_key(prompt)) == ("which one", "which one")
    assert kinds(pair, ask("which one", "z", "test")) == {"exact"}
    assert kinds(prompt, ask("which one", "z", "test")) == {"exact"}


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("Is 7 > 5?", "Is 7 < 5?"),
        ("What is 7 + 5?", "What is 7 - 5?"),
        ("in C++", "in C#"),
        ("😀", "😢"),
        ("?!", "!!"),
        ("a != b", "a = b"),
    ],
)
def test_a_sign_makes_another_prompt(one: str, other: str) -> None:
    assert prompt_keys(ask(one, "x")) != prompt_keys(ask(other, "x"))
    assert kinds(ask(one, "x"), ask(other, "y", "test")) == set()


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("Who, me?", "who  me"),
        ("List all ships.!!", "list all ships"),
        ("caf\u00e9", "CAFE\u0301"),
        ("“Yes” – no", '"yes" no'),
    ],
)
def test_case_prose_punctuation_and_composition_make_no_other_prompt(one: str, other: str) -> None:
    assert prompt_keys(ask(one, "x")) == prompt_keys(ask(other, "x"))


def test_the_prompts_of_a_long_dialogue_take_linear_time() -> None:
    turns = tuple(Message("user" if n % 2 == 0 else "assistant", f"turn {n} of many") for n in range(20_000))
    assert len(prompt_keys(make_example("pool", 1, turns, None, {}))) == 10_000


def test_a_row_that_only_answers_is_its_own_group() -> None:
    alone = [make_example("pool", 1, (Message("assistant", text),), None, {}) for text in ("One.", "Two.")]
    assert [group_key(row) for row in alone] == ["one", "two"]


def test_keys_of_ascii_text_are_those_of_any_text() -> None:
    text = "A_b c-1\tD!\x00e\x1ff"
    with_umlaut = group_key(ask(f"{text} ä", "x")).removesuffix(" ä")
    assert group_key(ask(text, "x")) == with_umlaut == "a b c 1 d e f"


def test_pairs_show_both_rows_and_the_words_as_the_held_out_row_writes_them() -> None:
    tested = ask(f"Hello,  {said(WORDS[:6]).upper()} -\n{said(WORDS[6:14])}", "ok", "test", 5)
    row = ask(f"{said(WORDS[:6])} - {said(WORDS[6:14])}", "no", line=3)
    divided = gate([row, tested], NGRAM)
    assert [pair_as_json(pair, row, tested) for pair in divided.pairs[0]] == [
        {
            **{"kind": "ngram", "row": "pool:3", "row_id": row.id, "held_out": "test:5", "held_out_id": tested.id},
            "shared": said([*[word.upper() for word in WORDS[:6]], "-", *WORDS[6:14]]),
        }
    ]


def test_a_row_has_at_most_three_pairs_of_a_way_the_closest_first() -> None:
    tests = [ask(f"{number} {said(WORDS[: 13 + number])}", "ok", "test", number) for number in range(6)]
    (pairs,) = gate([ask(said(WORDS), "no"), *tests], NGRAM).pairs.values()
    assert [pair.held_out for pair in pairs] == [5, 4, 3]


def test_any_number_of_processes_finds_the_same() -> None:
    rows = [ask(f"{n} {said(WORDS[n % 5 : n % 5 + 13])} {'pad ' * 30_000}", "ok", line=n) for n in range(40)]
    config = NGRAM.model_copy(update={"max_ngram_rows": 1000})
    found = [gate([*rows, TESTED], config, n_workers).pairs for n_workers in (1, 2)]
    assert found[0] == found[1]
    assert len(found[0]) == 24  # of 5 starts, 0, 1 and 2 leave all 13 words inside the tested prompt: 8 rows each


def long_rows(n_rows: int) -> Iterator[Example]:
    """Of about 2,000 characters each."""
    rng = random.Random(5)
    vocabulary = [f"word{number:05}" for number in range(5000)]
    for number in range(n_rows):
        yield ask(said(rng.choices(vocabulary, k=100)), said(rng.choices(vocabulary, k=100)), "test", number)


def peak_bytes(n_rows: int) -> int:
    tracemalloc.start()
    try:
        index_of(long_rows(n_rows), GATE)
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def test_an_index_takes_a_few_times_the_text_of_the_held_out_rows() -> None:
    """What a row costs beyond the first ones: some bytes for each run of words, of which each word begins two."""
    n_chars = sum(len(text) for row in long_rows(1500) for text in contents(row))
    assert (peak_bytes(1500) - peak_bytes(300)) / (n_chars * 1200 / 1500) < 8


def test_held_out_rows_are_read_again_when_a_message_needs_them() -> None:
    with gated([ask("one", "two"), TESTED, *long_rows(3)]) as divided:
        assert isinstance(divided.held_out, StoredRows)
        assert list(divided.held_out) == [TESTED, *long_rows(3)]
        assert [divided.held_out[index] for index in (3, 0)] == [list(long_rows(3))[2], TESTED]


def test_an_index_of_many_pieces_is_that_of_one_sorted_table() -> None:
    """Rows of one and of several pieces, with keys in several rows, in one row twice, and in none."""
    rng = random.Random(6)
    rows = [ask(said(rng.choices("abcd", k=rng.randrange(9))), "ok", "test", n) for n in range(700)]
    index = index_of(iter(rows), GATE.model_copy(update={"ngram": 3}))
    runs = [naive_runs(row.messages[0].content.split(), 3) for row in rows]
    having = [index.runs.having(key).tolist() for key in range(len(index.runs.keys))]
    by_run = sorted([number for number, row in enumerate(runs) if run in row] for run in set().union(*runs))
    assert sorted(having) == by_run
    assert np.all(np.diff(index.runs.keys) > 0)
    shingles = [naive_runs([*row.messages[0].content.split(), "ok"], 5) for row in rows]
    assert index.n_shingles.tolist() == [len(row) for row in shingles]


VOCABULARY = ["a", "b", "c", "d"]
TEXTS = st.lists(st.sampled_from(VOCABULARY), min_size=0, max_size=14)


def naive_runs(words: Sequence[str], n: int) -> set[tuple[str, ...]]:
    return {tuple(words[first : first + n]) for first in range(len(words) - n + 1)}


@settings(deadline=None, max_examples=60)
@given(rows=st.lists(st.tuples(TEXTS, TEXTS), min_size=1, max_size=8), tests=st.lists(TEXTS, min_size=1, max_size=3))
def test_runs_and_near_copies_are_those_of_a_naive_comparison(
    rows: list[tuple[list[str], list[str]]], tests: list[list[str]]
) -> None:
    config = GATE.model_copy(update={"ngram": 3, "max_ngram_rows": 2, "min_jaccard": 0.5})
    learned = [ask(f"p{n} {said(prompt)}", said(answer), line=n) for n, (prompt, answer) in enumerate(rows)]
    held_out = [ask(f"t{n} {said(prompt)}", f"t{n}", "test", n) for n, prompt in enumerate(tests)]
    found = gate([*learned, *held_out], config).pairs
    tested = set().union(*(naive_runs([f"t{n}", *prompt], 3) for n, prompt in enumerate(tests)))
    texts = [naive_runs([f"p{n}", *prompt], 3) | naive_runs(answer, 3) for n, (prompt, answer) in enumerate(rows)]
    n_rows = Counter(run for row in texts for run in row)
    assert {row for row, pairs in found.items() if any(pair.kind == "ngram" for pair in pairs)} == {
        number for number, row in enumerate(texts) if any(n_rows[run] <= 2 for run in row & tested)
    }
    whole = [naive_runs([f"p{n}", *prompt, *answer], 5) for n, (prompt, answer) in enumerate(rows)]
    others = [naive_runs([f"t{n}", *prompt, f"t{n}"], 5) for n, prompt in enumerate(tests)]
    assert {row for row, pairs in found.items() if any(pair.kind == "near" for pair in pairs)} == {
        number
        for number, row in enumerate(whole)
        if any(row and other and len(row & other) / len(row | other) >= 0.5 for other in others)
    }


def gsm8k(name: str, source_name: str) -> list[Example]:
    lines = (SHARED / f"gsm8k_{name}.jsonl").read_text(encoding="utf-8").splitlines()
    rows = [json.loads(line) for line in lines]
    return [ask(row["question"], row["answer"], source_name, line) for line, row in enumerate(rows, 1)]


@pytest.fixture(scope="module")
def train() -> list[Example]:
    return gsm8k("train", "pool")


@pytest.fixture(scope="module")
def tested() -> list[Example]:
    return gsm8k("test", "test")


needs_samples = pytest.mark.skipif(not SHARED.is_dir(), reason="the public samples are not beside the repository")


def edited(row: Example, rng: random.Random) -> Example:
    """One word of the question and one of the answer replaced."""
    texts = []
    for message in row.messages:
        words = message.content.split(" ")
        words[rng.randrange(len(words))] = "edited"
        texts.append(" ".join(words))
    return ask(texts[0], texts[1], line=row.line + 10_000)


@needs_samples
@pytest.mark.parametrize("change", ["nothing", "answer", "one word each"])
def test_a_twentieth_of_a_benchmark_planted_in_its_training_rows_is_caught_completely(
    train: list[Example], tested: list[Example], change: str
) -> None:
    rng = random.Random(7)
    leaked = rng.sample(tested, len(tested) // 20)
    match change:
        case "nothing":
            planted = [replace(row, source="pool", line=row.line + 10_000) for row in leaked]
        case "answer":
            planted = [ask(row.messages[0].content, "I forgot.", line=row.line + 10_000) for row in leaked]
        case _:
            planted = [edited(row, rng) for row in leaked]
    rows = [*train, *planted]
    rng.shuffle(rows)
    divided = gate([*rows, *tested])
    caught = {rows[number].line for number in divided.pairs if rows[number].line > 10_000}
    assert len(planted) == 65
    assert caught == {row.line for row in planted}


def naive_words(text: str) -> list[str]:
    """Text as runs are made of it: without any sign."""
    return re.findall(r"\w+", text.lower())


@needs_samples
def test_the_training_rows_of_a_benchmark_that_are_flagged_are_those_of_a_naive_comparison(
    train: list[Example], tested: list[Example]
) -> None:
    pairs = gate([*train, *tested]).pairs
    runs_of = [
        set().union(*(naive_runs(naive_words(message.content), 13) for message in row.messages)) for row in train
    ]
    n_rows = Counter(run for row in runs_of for run in row)
    foreign = {run for row in tested for m in row.messages for run in naive_runs(naive_words(m.content), 13)}
    naive = {n for n, row in enumerate(runs_of) if any(n_rows[run] <= 10 for run in row & foreign)}
    assert {20, 406} <= naive  # lines 21 and 407: "some of the stamps had a ...", "first movie is 1 hour and ..."
    assert set(pairs) == naive
    assert len(naive) == 10


def test_signs_are_no_words_of_a_run() -> None:
    sums = "2 + 2 = 4 ; 3 * ( 4 - 1 ) = 9 ; 8 / 4 = 2"  # 10 numbers, 24 with the signs
    assert kinds(ask("one", f"x {sums} y"), ask("two", f"z {sums} t", "test"), NGRAM) == set()


def test_an_answer_in_signs_is_as_long_as_its_words() -> None:
    code = "[ 1 + 2 ] * 3 - { 4 / 5 } % 6 = 7 < 8 > 9 & 10 | 11 ^ 12"
    assert kinds(ask("one", code), ask("two", code, "test"), EXACT) == set()
