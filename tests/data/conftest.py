"""What the tests of this room share: sections as the schema has them, and a source made of bytes."""

from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from tuneline.config.schema import (
    CleanConfig,
    LengthRuleConfig,
    PiiRuleConfig,
    RuleConfig,
    SourceConfig,
    SourceFormat,
    SplitConfig,
)
from tuneline.data.ingesting import Additions, Ingested, ingest

IngestBytes = Callable[..., Ingested]


@pytest.fixture
def all_rules() -> CleanConfig:
    on = RuleConfig(enabled=True)
    return CleanConfig(
        encoding=on,
        empties=on,
        length=LengthRuleConfig(enabled=True, min_chars=1, max_chars=400),
        refusals=on,
        pii=PiiRuleConfig(enabled=True, action="redact"),
        exact_duplicates=on,
        near_duplicates=on,
        max_rejected_fraction=0.5,
    )


@pytest.fixture
def pool_and_test() -> list[SourceConfig]:
    return [
        SourceConfig(name="pool", path="pool.jsonl", hub=None, format="auto", role="pool"),
        SourceConfig(name="more", path="more.jsonl", hub=None, format="auto", role="pool"),
        SourceConfig(name="test", path="test.jsonl", hub=None, format="auto", role="test"),
    ]


@pytest.fixture
def splitting() -> SplitConfig:
    return SplitConfig(val_fraction=0.2, test_fraction=0.0, salt="tuneline", on_contamination="drop")


@pytest.fixture
def ingest_bytes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> IngestBytes:
    """Write bytes as rows.<extension> in an empty working directory and ingest them as source `own`."""
    monkeypatch.chdir(tmp_path)

    def ingest_them(
        content: bytes,
        extension: str = "jsonl",
        chosen: SourceFormat = "auto",
        meta_fields: Sequence[str] = (),
        system_prompt: str | None = None,
    ) -> Ingested:
        path = Path(f"rows.{extension}")
        path.write_bytes(content)
        source = SourceConfig(name="own", path=str(path), hub=None, format=chosen, role="pool")
        return ingest([source], Additions(meta_fields, system_prompt), lambda rows, _: rows)

    return ingest_them
