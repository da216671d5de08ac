"""Copies: which rows are candidates, which are copies, and which of several stays."""

import json
import re
from collections.abc import Sequence
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tuneline.config.schema import CleanConfig, NearDuplicatesRuleConfig
from tuneline.data.arrays import Hashes, Indexes
from tuneline.data.dedup import answer_text, compared_text, equal_keys, keys_of, ranks
from tuneline.data.minhash import band_keys
from tuneline.data.near_copies import (
    Candidate,
    candidate_groups,
    equal_neighbours,
    near_copies,
    run_sets,
    shared_keys,
)
from tuneline.data.records import Example, Message, ToolCall, make_example
from tuneline.data.shingles import runs, words

NEAR = NearDuplicatesRuleConfig(enabled=True, ngram=5, bands=14, rows_per_band=8, min_jaccard=0.8, min_answer_jaccard=0)
TOOLFORMER = Path(__file__).resolve().parents[3] / "shared" / "data" / "toolformer_dedupe_only.json"
_WORD = re.compile(r"\w+|[+*/<>=%&|^~#$@\\()\[\]{}-]")


def ask(prompt: str) -> Example:
    return make_example("pool", 1, (Message("user", prompt), Message("assistant", "a")), None, {})


def bands_of(texts: Sequence[str]) -> Hashes:
    return band_keys(runs(words(texts), NEAR.ngram), NEAR)


def candidates(texts: Sequence[str], answers: Sequence[str]) -> list[Candidate]:
    bands = bands_of(texts)
    is_shared, is_last = shared_keys(bands)
    sets = zip(run_sets(texts, NEAR.ngram), run_sets(answers, NEAR.ngram), strict=True)
    found: list[Candidate] = []
    for row, (of_all, of_answers) in enumerate(sets):
        keys = [(band, int(bands[row, band])) for band in np.flatnonzero(is_shared[row]).tolist()]
        last = [(band, key) for band, key in keys if is_last[row, band]]
        found.append(Candidate(row, keys, last, of_all, of_answers))
    return found


def groups_of(columns: Sequence[Hashes]) -> list[Indexes]:
    alive = np.ones(len(columns[0]), np.bool_)
    return candidate_groups((equal_neighbours(column, alive) for column in columns), len(alive))


def near(
    texts: Sequence[str], answers: Sequence[str] = (), min_answer_jaccard: float = 0
) -> list[tuple[int, int, float]]:
    """Near copies among texts of which an earlier one ranks before a later one."""
    settings = NEAR.model_copy(update={"min_answer_jaccard": min_answer_jaccard})
    all_candidates = candidates(texts, answers or [""] * len(texts))
    groups = groups_of(list(bands_of(texts).T))
    return sorted(copy for group in groups for copy in near_copies([all_candidates[row] for row in group], settings))


def shingles(text: str) -> set[tuple[str, ...]]:
    words = _WORD.findall(text.casefold())
    return {tuple(words[i : i + 5]) for i in range(max(1, len(words) - 4))}


def similarity(one: set[tuple[str, ...]], other: set[tuple[str, ...]]) -> float:
    return len(one & other) / len(one | other)


def test_of_equal_rows_the_earliest_source_then_the_longest_then_the_smallest_id_stays() -> None:
    rank = ranks(np.array([1, 0, 0, 0]), np.array([9, 5, 7, 7]), np.array([1, 2, 4, 3], np.uint64))
    assert rank.tolist() == [3, 2, 1, 0]


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("It is 3.14 now", "It is 3:14 now"),
        ("1.5 or 3,5", "1,5 or 3.5"),
        ("1,000", "1.000"),
        ("1.000", "1 000"),
        ("é 1.2", "é 1 2"),
        ("1.2.3,4", "1.2,3.4"),
    ],
)
def test_rows_that_differ_in_a_sign_inside_a_number_are_no_folded_copies(
    all_rules: CleanConfig, one: str, other: str
) -> None:
    keys = keys_of([ask(one), ask(other)], all_rules)
    assert keys.folded[0] != keys.folded[1]


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("In 2020, 5 of 7.", "in 2020 5 of 7"),
        ("Pi is 3.14, e 2.72!", "pi is 3.14 e 2.72"),
        ("é. 1.5", "É 1.5"),
        ("1", "1."),
        ("5.", "5:"),
    ],
)
def test_case_and_prose_around_numbers_are_folded(all_rules: CleanConfig, one: str, other: str) -> None:
    keys = keys_of([ask(one), ask(other)], all_rules)
    assert keys.folded[0] == keys.folded[1]


def test_a_sign_between_the_numbers_of_two_texts_is_in_no_number(all_rules: CleanConfig) -> None:
    texts = [make_example("pool", 1, (), text, {}) for text in ("", "5", ".", "5", "", "5.5", "\ud8005.5")]
    assert len(set(keys_of(texts, all_rules).folded.tolist())) == 5  # 5 twice, nothing twice
    assert len(keys_of(texts[:1], all_rules).folded) == 1


def test_only_alive_rows_are_copies_and_only_alive_rows_are_kept() -> None:
    keys = np.array([5, 5, 5, 6, 6], np.uint64)
    alive = np.array([False, True, True, True, False])
    found = equal_keys(keys, np.arange(5), alive)
    assert (found.rows.tolist(), found.kept.tolist()) == ([2], [1])


@given(st.lists(st.integers(0, 5), min_size=1, max_size=30))
@settings(max_examples=60, deadline=None)
def test_as_many_rows_stay_as_there_are_keys_in_any_order(keys: list[int]) -> None:
    column = np.array(keys, np.uint64)
    found = equal_keys(column, np.arange(len(keys)), np.ones(len(keys), np.bool_))
    assert len(keys) - len(found.rows) == len(set(keys))
    assert set(found.kept.tolist()).isdisjoint(found.rows.tolist())
    assert all(keys[row] == keys[kept] for row, kept in zip(found.rows, found.kept, strict=True))


@given(st.lists(st.tuples(st.integers(0, 8), st.integers(0, 8)), min_size=1, max_size=25))
@settings(max_examples=60, deadline=None)
def test_groups_are_the_connected_components_of_rows_that_share_a_key(rows: list[tuple[int, int]]) -> None:
    columns = [np.array(column, np.uint64) for column in zip(*rows, strict=True)]
    groups = groups_of(columns)
    label = {row: number for number, group in enumerate(groups) for row in group.tolist()}
    assert len(label) == sum(map(len, groups))
    for one, other in combinations(range(len(rows)), 2):
        if rows[one][0] == rows[other][0] or rows[one][1] == rows[other][1]:
            assert label[one] == label[other]
    for group in groups:
        reached = {int(group[0])}
        while grown := {
            row for row in set(group.tolist()) - reached for seen in reached
            if rows[row][0] == rows[seen][0] or rows[row][1] == rows[seen][1]
        }:  # fmt: skip
            reached |= grown
        assert reached == set(group.tolist())


def test_a_row_goes_only_for_a_kept_row_that_is_similar_enough() -> None:
    words = [f"word{number}" for number in range(60)]
    near_copy = [*words[:-2], "other", "end"]
    half = words[:30] + [f"else{number}" for number in range(30)]
    found = near([" ".join(words), " ".join(half), " ".join(near_copy)])
    expected = similarity(shingles(" ".join(words)), shingles(" ".join(near_copy)))
    assert [(row, kept) for row, kept, _ in found] == [(2, 0)]
    assert found[0][2] == pytest.approx(expected, abs=1e-12)


def test_a_chain_of_changes_is_cut_where_the_kept_row_is_too_far() -> None:
    words = [f"word{number}" for number in range(100)]
    new = [f"new{number}" for number in range(6)]
    chain = [" ".join(row) for row in (words, words[:-6] + new, new[::-1] + words[6:-6] + new)]
    sets = [shingles(text) for text in chain]
    assert similarity(sets[0], sets[1]) >= 0.8 > similarity(sets[0], sets[2])
    assert similarity(sets[1], sets[2]) >= 0.8
    assert [(row, kept) for row, kept, _ in near(chain)] == [(1, 0)]  # its neighbour is gone, so the third stays


def test_system_messages_and_order_of_fields_do_not_make_rows_alike() -> None:
    system = Message("system", "You answer every question about the town library in one short sentence. " * 5)
    rows = [
        make_example("own", number, (system, Message("user", text), Message("assistant", text)), None, {})
        for number, text in enumerate(("When does it open?", "Who may borrow films?"))
    ]
    assert near([compared_text(row) for row in rows]) == []


PASSAGE = " ".join(f"word{number}" for number in range(120))


def test_rows_on_one_passage_stay_where_their_answers_differ() -> None:
    answers = ["The mill was built in 1820.", "Nobody knows its owner.", "The mill was built in 1820!"]
    texts = [f"{PASSAGE} Question {number}? {answer}" for number, answer in enumerate(answers)]
    assert [(row, kept) for row, kept, _ in near(texts)] == [(1, 0), (2, 0)]
    assert [(row, kept) for row, kept, _ in near(texts, answers, min_answer_jaccard=0.5)] == [(2, 0)]


def test_with_rivals_of_other_answers_the_most_similar_one_that_teaches_alike_counts() -> None:
    words = PASSAGE.split()
    texts = [" ".join([*words[:-2], "some", "thing"]), " ".join([*words[:-1], "thing"]), PASSAGE]
    assert [(row, kept) for row, kept, _ in near(texts, ["yes", "no", "yes"], min_answer_jaccard=0.5)] == [(2, 0)]


def test_the_answers_of_a_row_are_the_texts_of_its_assistant() -> None:
    call = Message("assistant", "", (ToolCall("search", {"query": "mill"}),))
    turns = (Message("system", "Be brief."), Message("user", "When?"), call, Message("tool", "{}"))
    row = make_example("own", 1, (*turns, Message("assistant", "In 1820.")), None, {})
    assert "In 1820." in answer_text(row)
    assert "search" in answer_text(row)
    assert not {"Be brief.", "When?", "{}"} & set(answer_text(row).splitlines())
    assert answer_text(make_example("own", 1, (), "raw text", {})) == ""


@given(st.lists(st.lists(st.integers(0, 4), min_size=2, max_size=2), min_size=1, max_size=20))
@settings(max_examples=60, deadline=None)
def test_shared_keys_are_those_of_a_count(rows: list[list[int]]) -> None:
    is_shared, is_last = shared_keys(np.array(rows, np.uint64))
    for place, row in enumerate(rows):
        for band, key in enumerate(row):
            assert is_shared[place, band] == (sum(other[band] == key for other in rows) > 1)
            assert is_last[place, band] == all(other[band] != key for other in rows[place + 1 :])


def test_short_texts_are_compared_whole() -> None:
    assert near(["yes it is", "Yes, it is!", "yes it was"]) == [(1, 0, 1.0)]


@pytest.mark.skipif(not TOOLFORMER.exists(), reason="needs the real data set")
@pytest.mark.parametrize(("step", "at_least"), [(6, 10), pytest.param(3, 40, marks=pytest.mark.slow)])
def test_the_rule_agrees_with_all_pairs_compared_exactly_on_real_rows(step: int, at_least: int) -> None:
    rows = json.loads(TOOLFORMER.read_text())[::step]
    texts = [f"{row['instruction']}\n{row['input']}\n{row.get('output') or row.get('response')}" for row in rows]
    found = near(texts)
    sets = [shingles(text) for text in texts]
    sizes = [len(one) for one in sets]
    exact = {
        (one, other)
        for one, other in combinations(range(len(sets)), 2)
        if 0.8 <= sizes[one] / sizes[other] <= 1.25 and similarity(sets[one], sets[other]) >= 0.8
    }
    assert len(exact) >= at_least
    for row, kept, jaccard in found:
        assert jaccard == pytest.approx(similarity(sets[row], sets[kept]), abs=1e-12)
    assert {(kept, row) for row, kept, _ in found} <= exact  # precision 1: the rank is the order here
    gone = {row for row, _, _ in found}
    left = [pair for pair in exact if gone.isdisjoint(pair)]
    assert len(left) <= 0.05 * len(exact)  # recall at least 0.95
