"""Hub datasets: the pinned revision is what is asked for, and what goes wrong is one line with the fix."""

import sys
from collections.abc import Sequence
from types import ModuleType
from typing import Any

import pytest

from tests.data.conftest import IngestSources, MakeSource
from tuneline.config.schema import HubDatasetConfig
from tuneline.data import tables
from tuneline.data.hub import read_hub
from tuneline.data.rows import BadRow, Row
from tuneline.errors import DataError

PINNED = HubDatasetConfig(repo="org/chats", revision="0123456789abcdef" * 2 + "01234567", config="de", split="train")


class FakeDatasetsError(Exception):
    """Stands in for the library's own errors, which are neither OSError nor ValueError."""


class FakeHub:
    """Stands in for the datasets library, which is too slow to import in a fast test; remembers what it was asked."""

    def __init__(self, rows: Sequence[dict[str, Any]], error: Exception | None = None) -> None:
        self.rows = rows
        self.error = error
        self.asked: list[tuple[str, dict[str, Any]]] = []

    def load_dataset(self, path: str, **options: Any) -> Sequence[dict[str, Any]]:
        self.asked.append((path, options))
        if self.error is not None:
            raise self.error
        return self.rows

    def install(self, monkeypatch: pytest.MonkeyPatch) -> "FakeHub":
        module = ModuleType("datasets")
        module.load_dataset = self.load_dataset  # type: ignore[attr-defined]  # a stand-in is made of such
        exceptions = ModuleType("datasets.exceptions")
        exceptions.DatasetsError = FakeDatasetsError  # type: ignore[attr-defined]
        monkeypatch.setitem(sys.modules, "datasets", module)
        monkeypatch.setitem(sys.modules, "datasets.exceptions", exceptions)
        return self


def test_exactly_the_pinned_revision_configuration_and_split_are_loaded(monkeypatch: pytest.MonkeyPatch) -> None:
    hub = FakeHub([{"text": "a"}]).install(monkeypatch)
    list(read_hub(PINNED))
    assert hub.asked == [("org/chats", {"name": "de", "split": "train", "revision": PINNED.revision})]


def test_hub_rows_become_examples_like_rows_of_a_file_and_are_loaded_once(
    monkeypatch: pytest.MonkeyPatch, make_source: MakeSource, ingest_sources: IngestSources
) -> None:
    rows: list[dict[str, Any]] = [{"prompt": "a", "completion": "b"}, {"prompt": "a", "completion": None}]
    hub = FakeHub(rows).install(monkeypatch)
    ingested = ingest_sources(make_source("chats", hub=PINNED))
    assert len(hub.asked) == 1
    assert [example.line for example in ingested.examples] == [1]
    assert [row.reason for row in ingested.rejected] == [
        "org/chats@0123456789ab:2: completion is null; text, or a list of messages, is expected"
    ]


def test_a_hub_value_without_a_json_counterpart_rejects_its_row(monkeypatch: pytest.MonkeyPatch) -> None:
    rows: list[dict[str, Any]] = [{"text": "a", "picture": b"png"}, {"text": "b", "picture": None}]
    FakeHub(rows).install(monkeypatch)
    bad, good = read_hub(PINNED)
    assert isinstance(bad, BadRow)
    assert bad.reason.startswith("picture is a bytes")
    assert isinstance(good, Row)


def test_an_oversized_hub_row_is_rejected_with_its_size_and_the_others_stay(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tables, "MAX_ROW_BYTES", 1000)
    turn = {"role": "user", "content": "x" * 400}
    FakeHub([{"text": "a"}, {"text": "x" * 1001}, {"messages": [turn] * 3}, {"text": "b"}]).install(monkeypatch)
    first, flat, nested, last = read_hub(PINNED)
    assert isinstance(first, Row)
    assert isinstance(last, Row)
    for bad, n_chars in ((flat, 1001), (nested, 1212)):  # three times 400 and "user"
        assert isinstance(bad, BadRow)
        assert bad.reason == f"a row of {n_chars} characters; at most 1000 are allowed"
        assert len(bad.raw) < 1000
    assert flat.place == "org/chats@0123456789ab:2"


@pytest.mark.parametrize("n_chars", range(0, 80, 3))
def test_what_is_cut_of_a_bad_row_ends_in_no_half_of_an_address(n_chars: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tables, "MAX_ROW_BYTES", 1000)
    text = f"{'x' * n_chars} ann.smith@example-mail.com"
    FakeHub([{"picture": text.encode()}, {"text": f"{text} {'y' * 1000}"}]).install(monkeypatch)
    unreadable, oversized = read_hub(PINNED)
    assert isinstance(unreadable, BadRow)
    assert isinstance(oversized, BadRow)
    assert "ann.smith" not in unreadable.reason
    assert "ann.smith" not in oversized.raw


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (
            ConnectionError("Couldn't reach 'org/chats' on the Hub"),
            "the hub cannot be reached .*set .*path instead of hub",
        ),
        (FileNotFoundError("Dataset 'org/chats' doesn't exist\non the Hub"), "cannot be loaded .*check .*revision"),
        (ValueError("Unknown split 'train'"), "cannot be loaded .*Unknown split"),
        (FakeDatasetsError("An error occurred while generating the dataset"), "cannot be loaded .*generating"),
        (RuntimeError("Dataset scripts are no longer supported"), "cannot be loaded .*scripts"),
    ],
)
def test_a_dataset_that_cannot_be_had_is_one_line_naming_it_and_the_fix(
    error: Exception, expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    FakeHub([], error).install(monkeypatch)
    with pytest.raises(DataError, match=f"org/chats@0123456789ab: {expected}") as caught:
        list(read_hub(PINNED))
    assert "\n" not in str(caught.value)


def test_an_empty_split_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    FakeHub([]).install(monkeypatch)
    with pytest.raises(DataError, match="split 'train' holds no rows"):
        list(read_hub(PINNED))


@pytest.mark.slow
def test_the_real_library_takes_the_options_that_are_passed() -> None:
    import inspect

    import datasets  # type: ignore[import-untyped]  # no stubs

    parameters = inspect.signature(datasets.load_dataset).parameters
    assert {"path", "name", "split", "revision"} <= parameters.keys()
    assert issubclass(datasets.exceptions.DatasetGenerationError, datasets.exceptions.DatasetsError)
    assert "trust_remote_code" not in parameters  # it cannot run a dataset's own code, so there is nothing to refuse
