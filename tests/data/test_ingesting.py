"""Whole sources: the same result from any number of processes and any size of parts, in little memory."""

import gzip
import json
import tracemalloc
from collections.abc import Iterable
from pathlib import Path

import pytest

from tests.data.conftest import Collected, IngestSources, MakeSource
from tuneline.data import opening
from tuneline.data.ingesting import IngestOutputs, ingest
from tuneline.data.opening import Additions
from tuneline.errors import DataError


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Files of several kinds, with bad rows and blank lines among 300 rows."""
    monkeypatch.chdir(tmp_path)
    rows = [{"prompt": f"question {number}", "completion": "answer\n" * (number % 7)} for number in range(100)]
    lines = [b"" if number % 10 == 3 else json.dumps(row).encode() for number, row in enumerate(rows)]
    lines[50], lines[98] = b"null", b"\xff" * 3000
    data = tmp_path / "data"
    data.mkdir()
    (data / "a.jsonl").write_bytes(b"\n".join(lines))
    (data / "b.jsonl.gz").write_bytes(gzip.compress(b"\n".join(lines)))
    (data / "c.json").write_text(json.dumps(rows))
    return tmp_path


def read(folder: Path) -> tuple[bytes, bytes]:
    return (folder / "out/examples.jsonl").read_bytes(), (folder / "out/rejected.jsonl").read_bytes()


def test_the_same_bytes_come_from_any_number_of_processes_and_any_size_of_parts(
    folder: Path, monkeypatch: pytest.MonkeyPatch, make_source: MakeSource, ingest_sources: IngestSources
) -> None:
    whole: Collected = ingest_sources(make_source(path="data/*"))
    expected = read(folder)
    n_rows = 90 + 90 + 100  # without the blank lines
    assert (len(whole.examples), len(whole.rejected)) == (n_rows - 4, 4)
    assert [(row.file, row.line) for row in whole.rejected] == [
        *(("a.jsonl", 51), ("a.jsonl", 99)),
        *(("b.jsonl.gz", 51), ("b.jsonl.gz", 99)),
    ]
    for n_chars, n_workers in ((1000, 1), (1000, 2), (1, 2)):
        monkeypatch.setattr(opening, "_PART_CHARS", n_chars)
        again = ingest_sources(make_source(path="data/*"), n_workers=n_workers)
        assert (again, read(folder)) == (whole, expected)


def test_a_source_that_is_missing_ends_ingest_before_a_row_of_another_is_read(
    folder: Path, make_source: MakeSource
) -> None:
    read: list[str] = []

    def watched(rows: Iterable[int], name: str) -> Iterable[int]:
        read.append(name)
        return rows

    sources = (make_source("first", path="data/a.jsonl"), make_source("exam", path="exam.jsonl", role="benchmark"))
    outputs = IngestOutputs(folder / "examples.jsonl", folder / "rejected.jsonl")
    with pytest.raises(DataError, match=r"^exam\.jsonl: no such file; .* change data\.sources\[1\]\.path$"):
        ingest(sources, Additions((), None, Path()), outputs, 1, watched, lambda _: None)
    assert read == []


def test_memory_does_not_grow_with_the_number_of_rows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, make_source: MakeSource, ingest_sources: IngestSources
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(opening, "_PART_CHARS", 2**16)
    row = b"[" + b'"' + b"a" * 5000 + b'"]\n'  # rejected, so that the test's own list of examples stays empty
    good = b'{"text": "a"}\n'
    peaks = []
    for n_rows in (200, 2000):  # 1 and 10 MB
        (tmp_path / "rows.jsonl").write_bytes(good + row * n_rows)
        monkeypatch.setattr("tests.data.conftest.iterate_rejected", lambda _, n_rows=n_rows: [None] * n_rows)
        tracemalloc.start()
        ingest_sources(make_source(path="rows.jsonl"))
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] < peaks[0] * 1.5
    assert peaks[1] < 4 * 2**20
