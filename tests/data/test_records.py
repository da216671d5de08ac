"""Canonical records: what is written is read back, and equal content has an equal id."""

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tuneline.data.record_files import iterate_rejected, read_examples, write_examples, write_rejected
from tuneline.data.records import Example, Json, Message, Rejected, Role, make_example, with_contents
from tuneline.errors import DataError

TEXT = st.text(max_size=20)
ROLE: st.SearchStrategy[Role] = st.sampled_from(["system", "user", "assistant", "tool"])
VALUES: st.SearchStrategy[Json] = st.none() | st.booleans() | st.integers(-(2**63), 2**63 - 1) | TEXT
META = st.dictionaries(TEXT, VALUES, max_size=3)
MESSAGES = st.lists(st.builds(Message, ROLE, TEXT), min_size=1, max_size=4).map(tuple)
EXAMPLES = st.builds(make_example, TEXT, st.integers(1, 9), MESSAGES, st.none(), META) | st.builds(
    make_example, TEXT, st.integers(1, 9), st.just(()), TEXT, META
)


@settings(deadline=None, max_examples=50)
@given(st.lists(EXAMPLES, max_size=5))
def test_what_is_written_is_read_back(tmp_path_factory: pytest.TempPathFactory, examples: list[Example]) -> None:
    path = tmp_path_factory.getbasetemp() / "examples.jsonl"
    write_examples(path, examples)
    assert read_examples(path) == examples
    assert path.read_bytes().count(b"\n") == len(examples)


def test_rejected_rows_are_read_back_and_a_lone_surrogate_cannot_stop_them(tmp_path: Path) -> None:
    path = tmp_path / "rejected.jsonl"
    rows = [
        Rejected("own", 3, "clean", "encoding", "why", {"text": "a"}),
        Rejected("own", 4, "x", "y", "z", "raw"),
    ]
    write_rejected(path, [*rows, Rejected("own", 5, "x", "y", "z", "\ud800")])
    assert list(iterate_rejected(path))[:2] == rows
    assert list(iterate_rejected(path))[2].line == 5


def test_the_id_depends_on_content_and_meta_and_on_nothing_else() -> None:
    turns = (Message("user", "a"), Message("assistant", "b"))
    example = make_example("pool", 1, turns, None, {"database": "x", "k": 1})
    assert make_example("other", 9, turns, None, {"k": 1, "database": "x"}).id == example.id
    others = [
        make_example("pool", 1, turns[::-1], None, example.meta),
        make_example("pool", 1, turns, None, {"database": "y", "k": 1}),
        make_example("pool", 1, (), "ab", example.meta),
        make_example("pool", 1, (Message("user", "ab"),), None, example.meta),
        with_contents(example, ["a", "c"]),
    ]
    assert len({example.id, *(other.id for other in others)}) == 6


@pytest.mark.parametrize(
    "line",
    [
        "oops",
        "[]",
        '{"id": "a"}',
        '{"id": "a", "line": 1, "messages": [], "meta": {}, "source": "s", "text": null}',
        '{"id": "a", "line": 1, "messages": [{"role": "bot", "content": "x"}], "meta": {}, "source": "s", '
        '"text": null}',
        '{"id": "a", "line": 1, "messages": [{"role": "\\ud800", "content": "x"}], "meta": {}, "source": "s", '
        '"text": null}',
        '{"id": "a", "line": 1, "messages": [], "meta": {}, "source": "s", "text": "a", "\\ud800": 1}',
        '{"id": "a", "line": 1, "messages": [], "meta": {}, "source": "s", "text": "a", "toolz": []}',
    ],
)
def test_a_damaged_file_is_an_error_with_file_and_line(line: str, tmp_path: Path) -> None:
    path = tmp_path / "examples.jsonl"
    write_examples(path, [make_example("s", 1, (), "fine", {})])
    path.write_text(path.read_text() + line + "\n")
    with pytest.raises(DataError, match=r"examples\.jsonl:2: "):
        read_examples(path)


def test_a_missing_file_is_an_error_naming_the_fix(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"absent\.jsonl: cannot be read .*run the stage"):
        read_examples(tmp_path / "absent.jsonl")
