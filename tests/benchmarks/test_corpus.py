"""Rows that are made up, pairs whose similarity is known, and the score that they give."""

from itertools import islice
from pathlib import Path
from statistics import fmean

import pytest

from tuneline.benchmarks.corpus import chat_rows, replaced, row, write_rows
from tuneline.benchmarks.planted import Pair, pairs_of, planted_rows, score
from tuneline.data.record_files import read_examples
from tuneline.data.records import contents


def test_rows_are_the_same_for_a_seed_and_more_rows_only_add() -> None:
    assert list(chat_rows(200, 3)) == list(islice(chat_rows(400, 3), 200))
    assert list(chat_rows(20, 3)) != list(chat_rows(20, 4))


def test_rows_have_about_250_words_and_copies_among_them() -> None:
    rows = list(chat_rows(2000, 1))
    assert 240 < fmean(len(text.split()) for text in map(" ".join, map(contents, rows))) < 260
    assert 0.02 < 1 - len({example.id for example in rows}) / len(rows) < 0.04


def test_rows_come_back_from_their_file(tmp_path: Path) -> None:
    write_rows(tmp_path / "rows.jsonl", chat_rows(300, 1))
    assert read_examples(tmp_path / "rows.jsonl") == list(chat_rows(300, 1))


def test_so_many_words_are_replaced() -> None:
    import random

    text = " ".join(f"w{number}" for number in range(50))
    edited = replaced(random.Random(1), text, 7)
    assert sum(a != b for a, b in zip(text.split(), edited.split(), strict=True)) == 7


def test_the_similarity_of_a_pair_by_hand() -> None:
    # runs of 2 words: {q a, a b, b c, c d} and {q a, a b, b x, x d}: two shared of six
    (pair,) = pairs_of([(row(1, ("Q?", "A b, c d.")), row(2, ("q", "a b x d")))], ngram=2)
    assert pair == Pair((1, 2), 2 / 6)


def test_planted_pairs_lie_on_both_sides_of_the_similarity_asked() -> None:
    pairs = pairs_of(list(planted_rows(300, 1, 0.8)), 5)
    assert [line for pair in pairs for line in pair.lines] == list(range(1, 601))
    assert sum(pair.jaccard >= 0.8 for pair in pairs) == pytest.approx(150, abs=40)
    assert min(pair.jaccard for pair in pairs) > 0.4
    assert sum(0.8 <= pair.jaccard < 0.9 for pair in pairs) > 40  # near the limit, where they are hard to find
    assert sum(0.7 <= pair.jaccard < 0.8 for pair in pairs) > 20


def test_recall_and_precision_by_hand() -> None:
    pairs = [Pair((1, 2), 0.9), Pair((3, 4), 0.85), Pair((5, 6), 0.6), Pair((7, 8), 0.5), Pair((9, 10), 0.8)]

    def cluster(kept: int, *copies: int) -> dict[str, object]:
        return {"kept": f"made_up:{kept}", "copies": [{"place": f"made_up:{copy}"} for copy in copies]}

    # one of three found whichever row stays, a decoy found, a row taken for another pair's
    found = score(pairs, [cluster(2, 1), cluster(5, 6), cluster(7, 3)], 0.8)  # type: ignore[list-item]  # Json is invariant
    assert (found.n_similar, found.n_decoys, found.n_found, found.n_found_similar, found.n_other) == (3, 2, 2, 1, 1)
    assert found.recall == pytest.approx(1 / 3)
    assert found.precision == pytest.approx(1 / 3)
