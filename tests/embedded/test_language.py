"""The generated language: queries run, shapes and values are held out, the corpus answers no question."""

import itertools
import random
import re
import sqlite3

from tuneline.embedded.corpus import documents
from tuneline.embedded.english import COMMENTS, Wordings, question
from tuneline.embedded.queries import random_query, sql
from tuneline.embedded.world import DATABASES, is_held_out, random_database


def test_every_query_runs_in_sqlite() -> None:
    rng = random.Random(3)
    for _ in range(300):
        database = random_database(rng, uncommon_table_fraction=0.5)
        connection = sqlite3.connect(":memory:")
        connection.executescript(database.create)
        connection.execute(sql(random_query(database, "train", rng)))


def test_training_queries_hold_no_held_out_value() -> None:
    rng = random.Random(4)
    for _ in range(500):
        query = random_query(rng.choice(DATABASES), "train", rng)
        values = [v for c in query.conditions if c.operator != "LIKE" for v in c.values]
        assert not any(is_held_out(value) for value in values)


def test_some_shapes_are_held_out_and_single_conditions_never() -> None:
    rng = random.Random(5)
    queries = [random_query(rng.choice(DATABASES), "train", rng) for _ in range(2000)]
    held_out = [query for query in queries if query.has_held_out_shape]
    assert held_out
    assert all(len(query.conditions) > 1 for query in held_out)


def test_question_names_every_value_of_its_query() -> None:
    rng = random.Random(6)
    for _ in range(300):
        query = random_query(rng.choice(DATABASES), "train", rng)
        asked = question(query, rng)
        assert all(str(value) in asked for condition in query.conditions for value in condition.values)


def test_wordings_choose_held_out_ones_only_when_allowed() -> None:
    wordings, rng = Wordings(("a", "b"), ("c",)), random.Random(7)
    assert {wordings.choose(rng, held_out=False) for _ in range(100)} == {"a", "b"}
    assert {wordings.choose(rng, held_out=True) for _ in range(100)} == {"a", "b", "c"}


def test_corpus_is_the_same_for_the_same_seed_only() -> None:
    first, again, other = (list(itertools.islice(documents(seed, 8, 0.5), 20)) for seed in (1, 1, 2))
    assert first == again != other


def test_corpus_shows_no_chat_and_answers_no_question() -> None:
    """A question is followed by another question or nothing, never by a query."""
    for document in itertools.islice(documents(8, 8, 0.5), 400):
        assert not re.search(r"<\||Question:", document)
        lines = document.split("\n")
        for line, following in itertools.pairwise(lines):
            is_question = re.fullmatch(r"(-- )?[A-Z][a-z].*[?.]", line) is not None
            assert not (is_question and following.startswith("SELECT")), document
    assert all("{text}" in form for form in COMMENTS)
