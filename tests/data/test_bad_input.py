"""What people really hand over: each bad row is rejected with its place, each bad file is one clear line."""

import gzip
import io
import json
import os
import random
import tarfile
import tracemalloc
import zipfile
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.data.conftest import Collected, IngestBytes, IngestSources, MakeSource
from tuneline.data.compressed import MAX_RATIO
from tuneline.data.locating import located
from tuneline.data.reading import read_rows
from tuneline.data.rows import MAX_ROW_BYTES, BadRow, Row
from tuneline.errors import DataError

GOOD = b'{"prompt": "a", "completion": "b"}'
ANSWERED = b'{"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]}'


def chat(*turns: tuple[str, Any]) -> bytes:
    return json.dumps({"messages": [{"role": role, "content": content} for role, content in turns]}).encode()


# name -> (the line, the rule that takes it, what its reason says)
BAD_LINES: dict[str, tuple[bytes, str, str]] = {
    "bad JSON": (b'{"messages": oops}', "reader", "not JSON: Expecting value at column 14"),
    "truncated": (ANSWERED[:-20], "reader", "not JSON"),
    "truncated in a text": (GOOD[:-3], "reader", "not JSON: Unterminated string starting at column 31"),
    "invalid UTF-8": (ANSWERED.replace(b'"b"', b'"\xff"'), "reader", "is not UTF-8"),
    "UTF-16 line": (ANSWERED.decode().encode("utf-16-le"), "reader", "not JSON"),
    "BOM inside": (b"\xef\xbb\xbf" + ANSWERED, "reader", "not JSON"),
    "depth 100,000": (b'{"messages": ' + b"[" * 100_000 + b"]" * 100_000 + b"}", "reader", "nested deeper than 64"),
    "duplicate keys": (ANSWERED[:-1] + b', "messages": []}', "reader", "key 'messages' occurs twice"),
    "NaN": (ANSWERED[:-1] + b', "score": NaN}', "reader", "NaN is not JSON"),
    "Infinity": (ANSWERED[:-1] + b', "score": -Infinity}', "reader", "-Infinity is not JSON"),
    "5,000 digits": (ANSWERED[:-1] + b', "n": ' + b"9" * 5000 + b"}", "reader", "an integer of 5000 digits"),
    "null": (b"null", "reader", "the row is null; an object is expected"),
    "scalar": (b"42", "reader", "the row is a number"),
    "lone surrogate": (ANSWERED.replace(b'"b"', rb'"\ud83d"'), "reader", "lone surrogate"),
    "leading null in a list": (
        ANSWERED.replace(b"[", b"[null, ", 1),
        "format",
        "message 1 is null; an object is expected",
    ),
    "another format": (GOOD, "format", "no 'messages'; the keys are: completion, prompt"),
    "wrong type": (b'{"messages": "hello"}', "format", "messages is text; a list of messages is expected"),
    "wrong type of content": (chat(("user", "a"), ("assistant", 7)), "format", "message 2: content is a number"),
    "unknown role": (chat(("user", "a"), ("bot", "b")), "conversation", "message 2: role 'bot' is unknown; allowed:"),
    "no assistant turn": (chat(("user", "a")), "conversation", "the last message is user's"),
    "two user turns": (chat(("user", "a"), ("user", "b"), ("assistant", "c")), "conversation", "user follows user"),
    "no turn": (b'{"messages": []}', "conversation", "there is no message"),
}


@pytest.mark.parametrize("name", BAD_LINES)
def test_a_bad_line_is_rejected_with_file_line_and_reason_and_the_others_stay(
    name: str, ingest_bytes: IngestBytes
) -> None:
    line, rule, reason = BAD_LINES[name]
    result = ingest_bytes(b"\n".join([ANSWERED, line, ANSWERED]))
    assert [example.line for example in result.examples] == [1, 3]
    (bad,) = result.rejected
    assert (bad.line, bad.rule) == (2, rule)
    assert bad.reason.startswith("rows.jsonl:2: ")
    assert reason in bad.reason
    assert "\n" not in bad.reason
    assert bad.row in (line.decode("utf-8", "backslashreplace"), _parsed(line))


def _parsed(line: bytes) -> Any:
    try:
        return json.loads(line)
    except (ValueError, RecursionError):
        return None


@pytest.mark.parametrize(
    "text", ["a\u2028b\u2029c\u0085d", "nul \0 inside", "\u200bzero width", "😀", "\ufeffBOM", "\x1b[0m"]
)
def test_odd_but_legal_characters_change_nothing_at_the_door(text: str, ingest_bytes: IngestBytes) -> None:
    # control characters are the business of the rule `encoding`
    for ensure_ascii in (True, False):
        row = json.dumps({"text": text}, ensure_ascii=ensure_ascii).encode()
        (example,) = ingest_bytes(row).examples
        assert example.text == text


@pytest.mark.parametrize("answer", ["", " \n"])
def test_an_empty_answer_is_kept_at_the_door_and_rejected_by_the_rule_for_it(
    answer: str, ingest_bytes: IngestBytes
) -> None:
    from tuneline.data.length_rules import empties_rule

    (example,) = ingest_bytes(chat(("user", "a"), ("assistant", answer))).examples
    assert example.messages[-1].content == answer
    (finding,) = empties_rule()([example])
    assert isinstance(finding, str)  # the reason for which the row goes


def test_two_rows_with_the_same_id_are_both_kept_because_ids_come_from_content(ingest_bytes: IngestBytes) -> None:
    rows = b'{"id": 1, "prompt": "a", "completion": "b"}\n{"id": 1, "prompt": "c", "completion": "d"}\n' * 2
    examples = ingest_bytes(rows).examples
    assert [example.line for example in examples] == [1, 2, 3, 4]
    assert examples[0].id == examples[2].id != examples[1].id == examples[3].id


@pytest.mark.parametrize("extension", ["jsonl", "json", "csv", "parquet", "txt", "html", "jsonl.gz", "csv.zst"])
def test_an_empty_file_is_an_error(extension: str, ingest_bytes: IngestBytes) -> None:
    with pytest.raises(DataError, match=rf"^rows\.{extension}: is empty; put rows into it, or name another file$"):
        ingest_bytes(b"", extension)


@pytest.mark.parametrize("extension", ["jsonl", "json", "txt", "html"])
def test_a_file_of_blank_lines_is_an_error(extension: str, ingest_bytes: IngestBytes) -> None:
    with pytest.raises(DataError, match=rf"^rows\.{extension}: holds no rows; put rows into it, or name another file$"):
        ingest_bytes(b"\n \n\r\n\t\n", extension)


def test_a_utf16_file_is_an_error_and_a_bom_is_no_problem(ingest_bytes: IngestBytes) -> None:
    with pytest.raises(DataError, match=r"rows\.jsonl: is UTF-16; convert it: iconv"):
        ingest_bytes(GOOD.decode().encode("utf-16"))
    assert len(ingest_bytes(b"\xef\xbb\xbf" + GOOD).examples) == 1


@pytest.mark.parametrize("order", ["le", "be"])
def test_a_utf32_file_with_its_mark_is_an_error_whose_advice_works(order: str, ingest_bytes: IngestBytes) -> None:
    content = ("\ufeff" + GOOD.decode()).encode(f"utf-32-{order}")
    with pytest.raises(DataError, match=r"rows\.jsonl: is UTF-32; convert it: iconv -f UTF-32 -t UTF-8$"):
        ingest_bytes(content)
    assert content.decode("utf-32").encode() == GOOD  # what iconv does with that name


def test_a_line_of_200_megabytes_is_rejected_in_little_memory(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    with path.open("wb") as file:
        file.write(GOOD + b"\n")
        file.seek(200 * 2**20, os.SEEK_CUR)  # zeros that take no disk
        file.write(b"\n" + GOOD + b"\n")
    tracemalloc.start()
    first, bad, last = read_rows(path)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert isinstance(first, Row)
    assert isinstance(last, Row)
    assert isinstance(bad, BadRow)
    assert bad.line == 2
    assert bad.reason == f"a line of {200 * 2**20 + 1} bytes; at most {MAX_ROW_BYTES} are allowed"
    assert peak < 3 * MAX_ROW_BYTES


def zstd(data: bytes) -> bytes:
    import pyarrow  # type: ignore[import-untyped]  # no stubs

    packed: bytes = pyarrow.Codec("zstd").compress(data, asbytes=True)
    return packed


PACKERS: list[tuple[str, Callable[[bytes], bytes]]] = [("gz", gzip.compress), ("zst", zstd)]


@pytest.mark.parametrize(("suffix", "pack"), PACKERS)
@pytest.mark.parametrize("extension", ["jsonl", "json", "csv", "parquet", "txt", "html"])
def test_packed_files_give_the_same_rows_as_unpacked_ones(
    extension: str, suffix: str, pack: Callable[[bytes], bytes], tmp_path: Path
) -> None:
    plain = tmp_path / f"rows.{extension}"
    plain.write_bytes(_sample(extension))
    packed = tmp_path / f"rows.{extension}.{suffix}"
    packed.write_bytes(pack(plain.read_bytes()))
    expected = [row.value for row in read_rows(plain) if isinstance(row, Row)]
    assert expected
    assert [row.value for row in read_rows(packed) if isinstance(row, Row)] == expected


def _sample(extension: str) -> bytes:
    match extension:
        case "json":
            return b"[" + GOOD + b"]"
        case "csv":
            return b"\xef\xbb\xbfprompt,completion\na,b\n"
        case "parquet":
            import pyarrow.parquet  # type: ignore[import-untyped]  # no stubs

            pyarrow.parquet.write_table(pyarrow.table({"text": ["a", "b"]}), file := io.BytesIO())
            return file.getvalue()
    return GOOD + b"\n" + GOOD


@pytest.mark.parametrize(("suffix", "pack"), PACKERS)
def test_packed_data_that_is_cut_off_or_broken_is_an_error(
    suffix: str, pack: Callable[[bytes], bytes], ingest_bytes: IngestBytes
) -> None:
    noise = random.Random(1).randbytes(300_000).hex()
    packed = pack(b'{"text": "' + noise.encode() + b'"}\n' + b'{"text": "a"}\n' * 100)
    for broken in (packed[:-5], packed[: len(packed) // 2], packed + b"junk"):
        with pytest.raises(DataError, match=rf"^rows\.jsonl\.{suffix}: its packed data is cut off or broken"):
            ingest_bytes(broken, f"jsonl.{suffix}")
    with pytest.raises(DataError, match=rf"is no \.{suffix} file"):
        ingest_bytes(GOOD, f"jsonl.{suffix}")


@pytest.mark.parametrize("line_end", [b"", b'"}\n'])
def test_a_gzip_bomb_is_an_error_whether_it_is_one_line_or_many(line_end: bytes, ingest_bytes: IngestBytes) -> None:
    start = gzip.compress(b'{"text": "' + b"a" * 1000 + line_end)
    row = b"a" * 10 * 2**20 if not line_end else (b'{"text": "' + b"a" * 2**20 + line_end) * 10
    bomb = start + gzip.compress(row) * 5  # members of one file, unpacked one behind the other
    assert len(bomb) < 5 * 10 * 2**20 / MAX_RATIO / 3
    with pytest.raises(DataError, match=rf"^rows\.jsonl\.gz: unpacks to more than {MAX_RATIO} times its size"):
        ingest_bytes(bomb, "jsonl.gz", chosen="text")


def test_zst_data_behind_a_frame_to_skip_is_read(tmp_path: Path) -> None:
    skipped = b"\x50\x2a\x4d\x18" + (4).to_bytes(4, "little") + b"size"  # as pzstd begins every piece
    for number, packed in enumerate(
        (skipped + zstd(GOOD + b"\n"), skipped + zstd(GOOD[:9]) + skipped + zstd(GOOD[9:]))
    ):
        path = tmp_path / f"rows{number}.jsonl.zst"
        path.write_bytes(packed)
        assert [row.value for row in read_rows(path) if isinstance(row, Row)] == [json.loads(GOOD)]


def _zip() -> bytes:
    with zipfile.ZipFile(file := io.BytesIO(), "w") as archive:
        archive.writestr("rows.jsonl", GOOD)
    return file.getvalue()


def _tar() -> bytes:
    with tarfile.open(fileobj=(file := io.BytesIO()), mode="w") as archive:
        archive.addfile(tarfile.TarInfo("rows.jsonl"))
    return file.getvalue()


@pytest.mark.parametrize(
    ("content", "kind"),
    [(_zip(), "zip"), (_tar(), "tar"), (b"7z\xbc\xaf\x27\x1crest", "7z"), (b"Rar!\x1a\x07\x00", "rar")],
)
@pytest.mark.parametrize("extension", ["jsonl", "json", "csv", "txt", "html", "jsonl.gz"])
def test_an_archive_instead_of_data_is_an_error_that_names_it(
    content: bytes, kind: str, extension: str, ingest_bytes: IngestBytes
) -> None:
    packed = gzip.compress(content) if extension.endswith("gz") else content
    with pytest.raises(DataError, match=rf"^rows\.{extension}: is a {kind} archive; unpack it first$"):
        ingest_bytes(packed, extension)


def test_csv_rows_that_are_ragged_are_rejected(ingest_bytes: IngestBytes) -> None:
    result = ingest_bytes(b"prompt,completion\na,b\nonly\na,b,c\nc,d\n", "csv")
    assert [example.line for example in result.examples] == [2, 5]
    assert result.reasons == [
        "rows.csv:3: 1 values for 2 columns (prompt, completion)",
        "rows.csv:4: 3 values for 2 columns (prompt, completion)",
    ]


def test_nested_nulls_in_parquet_are_rejected_where_a_value_is_needed(ingest_bytes: IngestBytes) -> None:
    import pyarrow.parquet  # no stubs

    turns = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]
    rows = [turns, None, [None, *turns], [{"role": "user", "content": None}, turns[1]], [{**turns[0], "role": None}]]
    pyarrow.parquet.write_table(pyarrow.table({"messages": rows}), file := io.BytesIO())
    result = ingest_bytes(file.getvalue(), "parquet")
    assert [example.line for example in result.examples] == [1]
    assert result.reasons == [
        "rows.parquet:2: messages is null; a list of messages is expected",
        "rows.parquet:3: message 1 is null; an object is expected",
        "rows.parquet:4: message 1: content is null; text is expected",
        "rows.parquet:5: message 1: role is null; text is expected",
    ]


def test_a_parquet_text_that_is_not_utf8_rejects_its_row(tmp_path: Path) -> None:
    import pyarrow
    import pyarrow.parquet

    texts = pyarrow.array([b"fine", b"caf\xe9", b"good"], pyarrow.binary()).view(pyarrow.string())
    path = tmp_path / "rows.parquet"
    pyarrow.parquet.write_table(pyarrow.table({"text": texts}), path)
    first, bad, last = read_rows(path)
    assert [row.value["text"] for row in (first, last) if isinstance(row, Row)] == ["fine", "good"]
    assert isinstance(bad, BadRow)
    assert (bad.place, bad.reason) == (f"{path}:2", "a text that is not UTF-8")


def test_a_path_or_link_that_leaves_the_repository_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, make_source: MakeSource, ingest_sources: IngestSources
) -> None:
    inside, outside = tmp_path / "repository", tmp_path / "outside"
    inside.mkdir()
    outside.mkdir()
    (outside / "rows.jsonl").write_bytes(GOOD)
    (inside / "rows.jsonl").symlink_to(outside / "rows.jsonl")
    (inside / "linked").symlink_to(outside)
    (inside / "own.jsonl").write_bytes(GOOD)
    (inside / "alias.jsonl").symlink_to(inside / "own.jsonl")
    monkeypatch.chdir(inside)
    refused_by_the_schema_too = "../outside/rows.jsonl", str(outside / "rows.jsonl")
    for path in ("rows.jsonl", "linked/rows.jsonl", "linked/*.jsonl", *refused_by_the_schema_too):
        source = make_source().model_copy(update={"path": path})
        problem = r"rows\.jsonl: leads out of the repository, .* change data\.sources\[0\]\.path"
        with pytest.raises(DataError, match=problem):
            ingest_sources(source)
    assert len(ingest_sources(make_source(path="alias.jsonl")).examples) == 1


def test_a_missing_file_names_its_source_whatever_the_role(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, make_source: MakeSource, ingest_sources: IngestSources
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "rows.jsonl").write_bytes(GOOD)
    missing = make_source("exam", path="data/exam.jsonl", role="benchmark")
    with pytest.raises(DataError, match=r"^data/exam\.jsonl: no such file; .* or change data\.sources\[1\]\.path$"):
        ingest_sources(make_source(path="rows.jsonl"), missing)
    with pytest.raises(DataError, match=r"^data/\*\.jsonl: matches no file; .* change data\.sources\[0\]\.path$"):
        ingest_sources(make_source(path="data/*.jsonl"))
    assert not (tmp_path / "out/examples.jsonl").exists()


def test_a_glob_takes_its_files_by_path_and_names_the_file_of_each_row(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, make_source: MakeSource, ingest_sources: IngestSources
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("b.jsonl", "a/z.jsonl", "a/deep/y.jsonl.gz", ".hidden.jsonl"):
        path = tmp_path / "data" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(gzip.compress(GOOD + b"\nnull\n") if name.endswith("gz") else GOOD + b"\nnull\n")
    result = ingest_sources(make_source(path="data/**/*.jsonl*"))
    files = ["a/deep/y.jsonl.gz", "a/z.jsonl", "b.jsonl"]
    assert [(row.file, row.line) for row in result.examples] == [(file, 1) for file in files]
    assert [(row.file, row.line) for row in result.rejected] == [(file, 2) for file in files]
    assert result.examples[1].place == "own/a/z.jsonl:1"
    assert result.notes[0].endswith("; 3 files")
    assert [row.file for row in ingest_sources(make_source(path="data/a/z.jsonl")).examples] == [""]


def test_a_bracket_in_a_glob_stands_for_itself(tmp_path: Path) -> None:
    for name in ("rows[1]-a.jsonl", "rows1-a.jsonl"):
        (tmp_path / name).write_bytes(GOOD)
    found = located(str(tmp_path / "rows[1]*.jsonl"), "data.sources[0].path", tmp_path)
    assert [file.label for file in found] == ["rows[1]-a.jsonl"]


def test_two_stars_at_the_end_of_a_glob_take_every_file_below(tmp_path: Path) -> None:
    for name in ("a.jsonl", "deep/b.jsonl", "deep/er/c.jsonl"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(GOOD)
    found = located(str(tmp_path / "**"), "data.sources[0].path", tmp_path)
    assert [file.label for file in found] == ["a.jsonl", "deep/b.jsonl", "deep/er/c.jsonl"]


LINE = st.one_of(
    st.sampled_from([line for line, _, _ in BAD_LINES.values() if len(line) < 1000]),
    st.builds(lambda prompt, answer: chat(("user", prompt), ("assistant", answer)), st.text(), st.text()),
    st.binary(max_size=20).map(lambda data: data.replace(b"\n", b"")),
)


@settings(deadline=None, max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(LINE, max_size=12), st.randoms(use_true_random=False))
def test_every_line_is_kept_or_rejected_and_their_order_does_not_matter(
    ingest_bytes: IngestBytes, lines: list[bytes], chance: random.Random
) -> None:
    # one good line in front, so that the file as a whole can be used
    result: Collected = ingest_bytes(b"\n".join([ANSWERED, *lines]), chosen="openai")
    n_rows = 1 + sum(1 for line in lines if line.strip())
    assert len(result.examples) + len(result.rejected) == n_rows
    chance.shuffle(lines)
    again: Collected = ingest_bytes(b"\n".join([ANSWERED, *lines]), chosen="openai")
    assert Counter(row.id for row in again.examples) == Counter(row.id for row in result.examples)
    assert Counter(row.rule for row in again.rejected) == Counter(row.rule for row in result.rejected)


@settings(deadline=None, max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(LINE, min_size=1, max_size=12), st.integers(1, 200))
def test_reading_a_file_in_parts_gives_the_rows_of_the_whole(tmp_path: Path, lines: list[bytes], n_bytes: int) -> None:
    from tuneline.data.json_rows import lines_in_parts, read_part

    path = tmp_path / "rows.jsonl"
    path.write_bytes(b"\xef\xbb\xbf" + b"\n".join([ANSWERED, *lines]))
    parts = list(lines_in_parts(path, n_bytes))
    assert [row for part in parts for row in read_part(part)] == list(read_rows(path))


@pytest.mark.parametrize("path", ["a**b.jsonl", "loop.jsonl", "n" * 300 + ".jsonl"])
def test_a_path_that_cannot_be_looked_up_is_one_line(path: str, tmp_path: Path) -> None:
    (tmp_path / "loop.jsonl").symlink_to("loop.jsonl")
    with pytest.raises(DataError, match=r"cannot be looked up .* change data\.sources\[0\]\.path$"):
        located(str(tmp_path / path), "data.sources[0].path", tmp_path)


def test_a_file_that_may_not_be_read_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(*_: object) -> None:
        raise PermissionError(13, "Permission denied")

    (tmp_path / "rows.jsonl").write_bytes(GOOD)
    monkeypatch.setattr(Path, "open", refused)
    with pytest.raises(DataError, match=r"cannot be opened \(Permission denied\)"):
        list(read_rows(tmp_path / "rows.jsonl"))
