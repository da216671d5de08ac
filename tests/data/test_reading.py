"""The strict reader: whatever the file holds, every row comes out once, as an object or with file:line."""

import csv
import io
import json
import time
import tracemalloc
from decimal import Decimal
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tuneline.data import json_array
from tuneline.data.compressed import MAX_RATIO
from tuneline.data.reading import read_rows
from tuneline.data.rows import MAX_ROW_BYTES, BadRow, Row
from tuneline.errors import DataError

GOOD = b'{"text": "fine"}'

# name -> (the line, what its reason must say)
BAD_LINES = {
    "bad JSON": (b'{"text": oops}', "not JSON"),
    "truncated": (b'{"text": "no end', "not JSON"),
    "two objects": (b'{"text": "a"} {"text": "b"}', "more text after the object, at column 14"),
    "invalid UTF-8": (b'{"text": "\xff"}', "byte 0xff at column 11 is not UTF-8"),
    "overlong UTF-8": (b'{"text": "\xc0\xaf"}', "is not UTF-8"),
    "UTF-8 surrogate": (b'{"text": "\xed\xa0\x80"}', "is not UTF-8"),
    "lone surrogate": (rb'{"text": "\ud800"}', "lone surrogate"),
    "lone surrogate in a key": (rb'{"text": "a", "\uDEAD": 1}', "lone surrogate"),
    "duplicate key": (b'{"text": "a", "text": "b"}', "key 'text' occurs twice"),
    "nested duplicate key": (b'{"text": "a", "m": [{"k": 1, "k": 2}]}', "key 'k' occurs twice"),
    "NaN": (b'{"text": "a", "score": NaN}', "NaN is not JSON"),
    "Infinity": (b'{"text": "a", "score": -Infinity}', "-Infinity is not JSON"),
    "float overflow": (b'{"text": "a", "score": 1e999}', "too large"),
    "5,000 digits": (b'{"text": "a", "n": ' + b"9" * 5000 + b"}", "an integer of 5000 digits"),
    "65 bits": (b'{"text": "a", "n": 9223372036854775808}', "an integer of 19 digits does not fit 64 bits"),
    "depth 65": (b'{"text": ' + b"[" * 64 + b"]" * 64 + b"}", "nested deeper than 64"),
    "depth 100,000": (b'{"text": ' + b"[" * 100_000 + b"]" * 100_000 + b"}", "nested deeper than 64"),
    "null": (b"null", "the row is null; an object is expected"),
    "scalar": (b"42", "the row is a number"),
    "true": (b"true", "the row is true or false"),
    "list": (b'[{"text": "a"}]', "the row is a list"),
    "BOM inside": (b'\xef\xbb\xbf{"text": "a"}', "not JSON"),
    "raw tab in a string": (b'{"text": "a\tb"}', "not JSON"),
    "UTF-16 line": ('{"text": "a"}'.encode("utf-16-le"), "not JSON"),
}


def rows_of(tmp_path: Path, content: bytes, extension: str = "jsonl") -> list[Row | BadRow]:
    path = tmp_path / f"rows.{extension}"
    path.write_bytes(content)
    return list(read_rows(path))


@pytest.mark.parametrize("name", BAD_LINES)
def test_a_bad_jsonl_line_is_rejected_with_its_place_and_the_others_stay(name: str, tmp_path: Path) -> None:
    line, reason = BAD_LINES[name]
    first, bad, last = rows_of(tmp_path, GOOD + b"\n" + line + b"\n" + GOOD + b"\n")
    assert isinstance(first, Row)
    assert isinstance(last, Row)
    assert isinstance(bad, BadRow)
    assert bad.place == f"{tmp_path}/rows.jsonl:2"
    assert bad.line == 2
    assert reason in bad.reason
    assert "\n" not in bad.reason


# What breaks the syntax of the whole array has a test of its own below.
SYNTAX = {"bad JSON", "truncated", "two objects", "UTF-16 line", "BOM inside", "raw tab in a string"}


@pytest.mark.parametrize("name", sorted(set(BAD_LINES) - SYNTAX))
def test_a_bad_array_element_is_rejected_alone(name: str, tmp_path: Path) -> None:
    line, reason = BAD_LINES[name]
    first, bad, last = rows_of(tmp_path, b"[" + GOOD + b",\n" + line + b",\n" + GOOD + b"]", "json")
    assert isinstance(first, Row)
    assert isinstance(last, Row)
    assert isinstance(bad, BadRow)
    assert bad.place == f"{tmp_path}/rows.json:2"
    assert reason.split(" at column")[0] in bad.reason


@pytest.mark.parametrize(
    ("content", "line"),
    [
        (b'[{"text": "a"},\n{"text": "b"', 2),
        (b'[{"text": "a"},\n{"text": "b"}', 2),
        (b'[{"text": "a"},\n', 2),
        (b'[{"text": "a"}\n {"text": "b"}]', 2),
        (b'[{"text": "a"}]\n[]', 2),
        (b'[{"text": "a"},\n{"text": "a\tb"}]', 2),
        (b'{"text": "a"}\n{"text": "b"}', 1),
    ],
)
def test_a_broken_array_is_an_error_with_its_line(content: bytes, line: int, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=rf"rows\.json:{line}: "):
        rows_of(tmp_path, content, "json")


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (b"", "is empty"),
        (b"\n \n\r\n\t\n", "holds no rows"),
        ('{"text": "a"}\n'.encode("utf-16"), "UTF-16"),
        ('{"text": "a"}\n'.encode("utf-16-be"), "zero byte"),
        ('{"text": "a"}\n'.encode("utf-32-le"), "zero byte"),
        (b"\x1f\x8b\x08\x00rest", r"gzip; let its name end in \.gz"),
        (b"\x28\xb5\x2f\xfdrest", r"zstd; let its name end in \.zst"),
        (b"PK\x03\x04rest", "zip"),
        (b"PAR1rest", "Parquet"),
    ],
)
def test_a_file_that_holds_no_utf8_rows_is_an_error_naming_it(content: bytes, problem: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=rf"rows\.jsonl: .*{problem}"):
        rows_of(tmp_path, content)


def test_an_empty_array_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="holds no rows"):
        rows_of(tmp_path, b" [ ] \n", "json")


def test_a_missing_file_a_folder_and_an_unknown_extension_are_errors_with_the_fix(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"absent\.jsonl: no such file; .*data\.sources"):
        list(read_rows(tmp_path / "absent.jsonl"))
    with pytest.raises(DataError, match="is no file"):
        list(read_rows(tmp_path))
    with pytest.raises(DataError, match=r"'\.xml' is unknown; allowed: \.jsonl, \.json, \.csv, \.parquet"):
        rows_of(tmp_path, b"<a/>", "xml")


def test_an_oversized_line_is_rejected_with_its_size_and_its_start(tmp_path: Path) -> None:
    long = b'{"text": "' + b"a" * MAX_ROW_BYTES + b'"}'
    first, bad, last = rows_of(tmp_path, GOOD + b"\n" + long + b"\n" + GOOD)
    assert isinstance(first, Row)
    assert isinstance(last, Row)
    assert isinstance(bad, BadRow)
    assert f"a line of {len(long) + 1} bytes" in bad.reason
    assert bad.raw.startswith('{"text": "aaa')
    assert len(bad.raw) < 2000


def test_a_bom_crlf_and_blank_lines_change_no_row_and_line_numbers_count_them(tmp_path: Path) -> None:
    rows = rows_of(tmp_path, b"\xef\xbb\xbf" + GOOD + b"\r\n\r\n" + GOOD)
    assert [(row.line, isinstance(row, Row)) for row in rows] == [(1, True), (3, True)]


def test_only_line_feeds_end_a_line(tmp_path: Path) -> None:
    text = "a\u2028b\u2029c\u0085d\x0be"
    content = json.dumps({"text": text}, ensure_ascii=False).encode().replace(b"\x0b", b"\\u000b")
    (row,) = rows_of(tmp_path, content)
    assert isinstance(row, Row)
    assert row.value == {"text": text}


def test_a_rejected_line_keeps_what_stood_in_the_file(tmp_path: Path) -> None:
    (bad,) = rows_of(tmp_path, b'{"text": "caf\xe9"}')
    assert isinstance(bad, BadRow)
    assert bad.raw == '{"text": "caf\\xe9"}'


def test_array_rows_are_numbered_by_element_and_placed_by_line(tmp_path: Path) -> None:
    first, second = rows_of(tmp_path, b'[\n{"a": 1,\n "b": 2},\n\n{"a": 3}\n]', "json")
    assert (first.line, first.place) == (1, f"{tmp_path}/rows.json:2")
    assert (second.line, second.place) == (2, f"{tmp_path}/rows.json:5")


def test_one_object_is_a_file_with_one_row_wherever_its_lines_end(tmp_path: Path) -> None:
    (row,) = rows_of(tmp_path, b'\n{"a": 1,\n "b": [2]}\n', "json")
    assert isinstance(row, Row)
    assert (row.line, row.place, row.value) == (1, f"{tmp_path}/rows.json:2", {"a": 1, "b": [2]})


VALUE = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**63 - 1) | st.text(max_size=12),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=6,
)


@settings(deadline=None, max_examples=60)
@given(st.lists(st.dictionaries(st.text(max_size=3), VALUE, max_size=3), min_size=1, max_size=6), st.integers(1, 40))
@pytest.mark.parametrize("indent", [None, 1])
def test_an_array_gives_the_same_rows_through_a_window_of_any_size(
    tmp_path_factory: pytest.TempPathFactory, indent: int | None, rows: list[dict[str, object]], n_chars: int
) -> None:
    text = json.dumps(rows, indent=indent, ensure_ascii=False)
    path = tmp_path_factory.getbasetemp() / "window.json"
    path.write_text(text, encoding="utf-8")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(json_array, "_WINDOW_CHARS", n_chars)
        found = list(read_rows(path))
    assert [row.value for row in found if isinstance(row, Row)] == rows
    if indent == 1:  # then an element begins on a line of its own, at the only brace with one space before it
        starts = [number for number, line in enumerate(text.split("\n"), 1) if line.startswith(" {")]
        assert [row.place for row in found] == [f"{path}:{number}" for number in starts]


def test_a_large_array_is_read_through_a_small_window(tmp_path: Path) -> None:
    path = tmp_path / "rows.json"
    element = b'{"text": "' + b"a" * 10_000 + b'"}'
    path.write_bytes(b"[" + b",".join([element] * 3000) + b"]")  # 30 MB on one line
    tracemalloc.start()
    n_rows = sum(isinstance(row, Row) for row in read_rows(path))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert n_rows == 3000
    assert peak < 8 * 2**20


def test_an_array_element_that_is_too_long_is_an_error_with_its_line(tmp_path: Path) -> None:
    long = b'{"text": "' + b"a" * (2 * MAX_ROW_BYTES) + b'"}'
    with pytest.raises(DataError, match=rf"rows\.json:2: .*an element of more than {MAX_ROW_BYTES} characters"):
        rows_of(tmp_path, b"[" + GOOD + b",\n" + long + b",\n" + long + b"]", "json")


def test_a_line_of_plain_text_is_a_row_and_a_page_is_one(tmp_path: Path) -> None:
    text = b"first \xc3\xa9\r\n\n  second\nbad \xff\n"
    first, second, bad = rows_of(tmp_path, text, "txt")
    assert [(row.line, row.value) for row in (first, second) if isinstance(row, Row)] == [
        (1, {"text": "first é"}),
        (3, {"text": "  second"}),
    ]
    assert isinstance(bad, BadRow)
    assert (bad.line, bad.reason, bad.raw) == (4, "byte 0xff at column 5 is not UTF-8", "bad \\xff")
    (page,) = rows_of(tmp_path, "<p>é</p>\n<p>a</p>".encode(), "htm")
    assert isinstance(page, Row)
    assert (page.line, page.value) == (1, {"html": "<p>é</p>\n<p>a</p>"})
    (latin,) = rows_of(tmp_path, "<p>é</p>".encode("latin-1"), "html")
    assert isinstance(latin, BadRow)
    assert "is not UTF-8" in latin.reason


def test_csv_values_are_the_ones_the_standard_writer_wrote(tmp_path: Path) -> None:
    written = [
        {"prompt": 'say "hi", please', "completion": "two\nlines"},
        {"prompt": "u\u2028v", "completion": ""},
    ]
    file = io.StringIO()
    writer = csv.DictWriter(file, ["prompt", "completion"])
    writer.writeheader()
    writer.writerows(written)
    rows = rows_of(tmp_path, file.getvalue().encode(), "csv")
    assert [row.value for row in rows if isinstance(row, Row)] == written
    assert [row.line for row in rows] == [2, 4]  # the first record spans lines 2 and 3


@pytest.mark.parametrize(
    ("record", "reason"),
    [
        (b"only one", "1 values for 2 columns (prompt, completion)"),
        (b"a,b,c", "3 values for 2 columns"),
        (b'"a"b,c', "expected after"),
        (b"caf\xe9,b", "byte 0xe9 at column 4 is not UTF-8"),
        (b"a\rb,c", "new-line character"),
    ],
)
def test_a_bad_csv_record_is_rejected_with_its_place_and_the_others_stay(
    record: bytes, reason: str, tmp_path: Path
) -> None:
    first, bad, last = rows_of(tmp_path, b"prompt,completion\na,b\n" + record + b"\nc,d\n", "csv")
    assert isinstance(first, Row)
    assert isinstance(last, Row)
    assert isinstance(bad, BadRow)
    assert bad.place == f"{tmp_path}/rows.csv:3"
    assert reason in bad.reason
    assert bad.raw == record.decode("utf-8", "backslashreplace")


@pytest.mark.parametrize(
    ("content", "place"),
    [
        (b'prompt,completion\na,b\n"c,d\ne,f\ng,h\n', r"rows\.csv:3: .* 3 lines"),
        (b'prompt,completion\n"a\nb",c\nd,"e\n', r"rows\.csv:4: .* 1 lines"),
        (b'prompt,"completion\na,b\n', r"rows\.csv:1: .* 2 lines"),
    ],
)
def test_an_unclosed_csv_quote_is_an_error_where_its_record_begins(content: bytes, place: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=rf"{place} up to the end of the file are one value; close it"):
        rows_of(tmp_path, content, "csv")


@pytest.mark.parametrize("header", [b"prompt,prompt", b"prompt,", b'"a"b'])
def test_a_csv_header_must_name_each_column_once(header: bytes, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"rows\.csv:1: the header"):
        rows_of(tmp_path, header + b"\na,b\n", "csv")


def write_parquet(path: Path, columns: dict[str, list[object]]) -> None:
    import pyarrow  # type: ignore[import-untyped]  # no stubs
    import pyarrow.parquet  # type: ignore[import-untyped]

    pyarrow.parquet.write_table(pyarrow.table(columns), path)


def test_parquet_rows_keep_nested_values_and_nulls(tmp_path: Path) -> None:
    messages = [[{"role": "user", "content": None}], None]
    path = tmp_path / "rows.parquet"
    write_parquet(path, {"messages": [*messages], "price": [Decimal("1.50"), None]})
    assert [row.value for row in read_rows(path) if isinstance(row, Row)] == [
        {"messages": messages[0], "price": "1.50"},
        {"messages": None, "price": None},
    ]


def test_a_parquet_value_without_a_json_counterpart_rejects_its_row(tmp_path: Path) -> None:
    path = tmp_path / "rows.parquet"
    write_parquet(path, {"text": ["a", "b", "c"], "score": [1.0, float("nan"), 2.0], "raw": [b"x", None, None]})
    first, second, third = read_rows(path)
    assert isinstance(first, BadRow)
    assert "raw is a bytes" in first.reason
    assert isinstance(second, BadRow)
    assert "score is a number (nan)" in second.reason
    assert second.place == f"{path}:2"
    assert isinstance(third, Row)


def test_a_file_that_is_no_parquet_is_an_error_naming_it(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"rows\.parquet: not a readable Parquet file"):
        rows_of(tmp_path, b"PAR1 nothing else", "parquet")


LINE_PIECES = st.sampled_from(
    [
        b'{"text": "a"}',
        b"null",
        b"[",
        b"{",
        b'"',
        b"\xff",
        b"\\",
        b" ",
        b"\r",
        b'{"a": 1, "a": 2}',
        b",",
        b"]",
        b"\0",
    ]
)


@settings(deadline=None, max_examples=50)
@given(st.lists(st.lists(LINE_PIECES, max_size=4).map(b"".join) | st.binary(max_size=20), min_size=1, max_size=8))
def test_every_jsonl_line_that_is_not_blank_comes_out_once_in_order(
    tmp_path_factory: pytest.TempPathFactory, lines: list[bytes]
) -> None:
    content = GOOD + b"\n" + b"\n".join(lines)  # a good first line: the look at the first bytes has its own test
    path = tmp_path_factory.getbasetemp() / "any.jsonl"
    path.write_bytes(content)
    expected = [number for number, line in enumerate(content.split(b"\n"), 1) if line.strip()]
    assert [row.line for row in read_rows(path)] == expected


@settings(deadline=None, max_examples=50)
@given(st.lists(LINE_PIECES | st.just(b"\n") | st.binary(max_size=5), max_size=20).map(b"".join))
@pytest.mark.parametrize(
    "start", [("json", b"["), ("json", b""), ("csv", b"text,other\n"), ("csv", b""), ("jsonl", b"")]
)
def test_no_bytes_crash_the_reader(
    tmp_path_factory: pytest.TempPathFactory, start: tuple[str, bytes], content: bytes
) -> None:
    extension, head = start
    path = tmp_path_factory.getbasetemp() / f"any.{extension}"
    path.write_bytes(head + content)
    try:
        rows = list(read_rows(path))
    except DataError as error:
        assert str(error).startswith(str(path))  # noqa: PT017  (either outcome is right)
    else:
        assert rows
        assert len({row.line for row in rows}) == len(rows)


def test_an_unclosed_string_of_escaped_quotes_is_rejected_in_linear_time(tmp_path: Path) -> None:
    started = time.monotonic()
    (bad,) = rows_of(tmp_path, b'{"a": ' + b"[" * 65 + b'"' + b'\\"' * 500_000)
    assert isinstance(bad, BadRow)
    assert time.monotonic() - started < 5


@pytest.mark.parametrize("extension", ["jsonl", "txt"])
def test_an_oversized_line_that_begins_with_blanks_is_rejected_and_not_lost(extension: str, tmp_path: Path) -> None:
    bad, good = rows_of(tmp_path, b" " * 2000 + b"a" * MAX_ROW_BYTES + b"\n" + GOOD, extension)
    assert isinstance(bad, BadRow)
    assert isinstance(good, Row)


def test_a_bad_byte_in_a_quoted_csv_record_rejects_the_whole_record(tmp_path: Path) -> None:
    bad, good = rows_of(tmp_path, b'\na,b\n"x\n\xff\nc,d\ne,f",y\n1,2\n', "csv")
    assert isinstance(bad, BadRow)
    assert isinstance(good, Row)
    assert (bad.line, good.line, good.value) == (3, 7, {"a": "1", "b": "2"})


def test_a_csv_quote_left_open_before_more_than_a_row_may_hold_is_the_same_error(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"rows\.csv:2: the record that begins here has a quote that is never closed"):
        rows_of(tmp_path, b'a,b\n"x,y\n' + b"c,d\n" * (MAX_ROW_BYTES // 3), "csv")


def test_parquet_values_that_python_cannot_hold_reject_their_row(tmp_path: Path) -> None:
    import pyarrow.parquet

    for kind in (pyarrow.timestamp("us"), pyarrow.duration("us"), pyarrow.timestamp("us", "Mars/Base")):
        table = pyarrow.table({"text": ["x"], "t": pyarrow.array([2**62], kind)})
        pyarrow.parquet.write_table(table, file := io.BytesIO())
        (bad,) = rows_of(tmp_path, file.getvalue(), "parquet")
        assert isinstance(bad, BadRow)
    table = pyarrow.table({"text": ["a", "b" * (MAX_ROW_BYTES + 1), "c"]})
    pyarrow.parquet.write_table(table, file := io.BytesIO())
    first, big, last = rows_of(tmp_path, file.getvalue(), "parquet")
    assert isinstance(first, Row)
    assert isinstance(big, BadRow)
    assert isinstance(last, Row)


@pytest.mark.parametrize("in_list", [False, True])
def test_a_parquet_bomb_is_an_error_before_it_fills_the_memory(in_list: bool, tmp_path: Path) -> None:
    import pyarrow
    import pyarrow.parquet

    text = "a" * 200_000
    path = tmp_path / "rows.parquet"
    column = [[{"content": text}] if in_list else text] * 1024
    pyarrow.parquet.write_table(pyarrow.table({"text": column}), path, compression="zstd")
    assert path.stat().st_size < 20_000
    read = read_rows(path)
    assert [next(read).line for _ in range(16)] == list(range(1, 17))  # little at a time: a few come before the error
    with pytest.raises(DataError, match=rf"rows\.parquet: unpacks to more than {MAX_RATIO} times its size"):
        list(read)


def test_parquet_rows_are_the_same_across_batches(tmp_path: Path) -> None:
    path = tmp_path / "rows.parquet"
    write_parquet(path, {"text": [str(number) for number in range(1000)]})
    assert [(row.line, row.value) for row in read_rows(path) if isinstance(row, Row)] == [
        (number + 1, {"text": str(number)}) for number in range(1000)
    ]
