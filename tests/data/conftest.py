"""What the tests of this room share: sections of conf/, sources, and what comes of ingesting them."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from omegaconf import OmegaConf

from tuneline.config.schema import CleanConfig, SourceConfig, SourceFormat, SplitConfig
from tuneline.data.ingesting import IngestOutputs, ingest
from tuneline.data.opening import Additions
from tuneline.data.record_files import iterate_rejected, read_examples
from tuneline.data.records import Example, Rejected

_CONF = Path(__file__).resolve().parents[2] / "conf"
_OPTIONS: dict[str, Any] = {
    **{"path": None, "hub": None, "format": "auto", "role": "pool", "columns": {}},
    **{"system_prompt": None, "task_prefix": None, "weight": None, "count": None},
}


@dataclass(frozen=True)
class Collected:
    """What came out of sources."""

    examples: list[Example]
    rejected: list[Rejected]
    notes: list[str]

    @property
    def reasons(self) -> list[str]:
        return [row.reason for row in self.rejected]


IngestSources = Callable[..., Collected]
IngestBytes = Callable[..., Collected]
MakeSource = Callable[..., SourceConfig]


@pytest.fixture
def all_rules() -> CleanConfig:
    return CleanConfig.model_validate(OmegaConf.to_container(OmegaConf.load(_CONF / "clean/strict.yaml")))


@pytest.fixture
def splitting() -> SplitConfig:
    section = SplitConfig.model_validate(OmegaConf.to_container(OmegaConf.load(_CONF / "split/holdout.yaml")))
    return section.model_copy(update={"val_fraction": 0.2, "test_fraction": 0.0})


@pytest.fixture(scope="session")
def make_source() -> MakeSource:
    """A source called `own` from the keys that matter, the others as in conf/data/own_jsonl.yaml."""
    return lambda name="own", **options: SourceConfig(name=name, **(_OPTIONS | options))


@pytest.fixture
def pool_and_test(make_source: MakeSource) -> list[SourceConfig]:
    return [
        make_source("pool", path="pool.jsonl"),
        make_source("more", path="more.jsonl"),
        make_source("test", path="test.jsonl", role="test"),
    ]


@pytest.fixture
def ingest_sources(tmp_path: Path) -> IngestSources:
    """Ingest sources below the working directory, through the files that the stage writes."""

    def ingest_them(
        *sources: SourceConfig,
        meta_fields: Sequence[str] = (),
        system_prompt: str | None = None,
        n_workers: int = 1,
    ) -> Collected:
        outputs = IngestOutputs(tmp_path / "out/examples.jsonl", tmp_path / "out/rejected.jsonl")
        additions = Additions(tuple(meta_fields), system_prompt, Path())
        done = ingest(sources, additions, outputs, n_workers, lambda rows, _: rows, lambda _: None)
        examples, rejected = read_examples(outputs.examples), list(iterate_rejected(outputs.rejected))
        assert (done.tally.n_kept, done.tally.n_rejected) == (len(examples), len(rejected))
        return Collected(examples, rejected, done.notes)

    return ingest_them


@pytest.fixture
def ingest_bytes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, make_source: MakeSource, ingest_sources: IngestSources
) -> IngestBytes:
    """Write bytes as rows.<extension> in an empty working directory and ingest them as source `own`."""
    monkeypatch.chdir(tmp_path)

    def ingest_them(
        content: bytes,
        extension: str = "jsonl",
        chosen: SourceFormat = "auto",
        meta_fields: Sequence[str] = (),
        system_prompt: str | None = None,
        **options: Any,
    ) -> Collected:
        path = Path(f"rows.{extension}")
        path.write_bytes(content)
        source = make_source(path=str(path), format=chosen, **options)
        return ingest_sources(source, meta_fields=meta_fields, system_prompt=system_prompt)

    return ingest_them
