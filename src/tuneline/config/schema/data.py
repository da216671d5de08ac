"""What is learned from and tested on."""

from collections.abc import Mapping
from typing import Annotated, Literal

from pydantic import AfterValidator, Field

from tuneline.config.schema.section import (
    BelowOne,
    CommitHash,
    Count,
    Fraction,
    Name,
    NotNegative,
    RepoPath,
    Strict,
    Text,
    Texts,
    matching,
)

Format = Literal[
    "alpaca", "sharegpt", "openai", "prompt_completion", "text", "html", "preference", "kto", "prompt"
]  # fmt: skip
SourceFormat = Literal["auto", Format]
SourceRole = Literal["pool", "replay", "test", "benchmark"]
SourcePath = Annotated[
    str,
    AfterValidator(
        matching(
            r"[A-Za-z0-9_][A-Za-z0-9_.-]*(/[A-Za-z0-9_.*?][A-Za-z0-9_.*?-]*)*",
            "a path inside the repository, in letters, digits, _ . - and single /; * and ? stand for several files",
        )
    ),
]


class HubDatasetConfig(Strict):
    """A dataset on the hub, at one commit."""

    repo: RepoPath  # org/name
    revision: CommitHash
    config: Text | None  # the dataset's configuration (subset), where it has several
    split: Text  # e.g. train


class SourceConfig(Strict):
    """Files or a hub dataset, whose rows are of one format."""

    name: Name
    path: SourcePath | None  # a file under data.tracked_path, or a glob of files; null when hub is set
    hub: HubDatasetConfig | None
    format: SourceFormat  # auto looks at the first rows' keys
    role: SourceRole  # pool: split by hash; replay: training only, for the mixture; test, benchmark: held out as given
    columns: Mapping[Text, Text]  # a key of the format -> the rows' own name for it; empty: the names are the format's
    system_prompt: str | None  # for this source's conversations without one; null: data.system_prompt; "": none
    task_prefix: str | None  # put before the first user message, to tell tasks apart
    weight: NotNegative | None  # share of the training rows relative to the other weighted sources; null: every row
    count: Count | None  # exactly so many training rows; more than there are repeats them; null: every row


# YAML has lists only; a tuple keeps a frozen section frozen.
Sources = Annotated[tuple[SourceConfig, ...], Field(strict=False, min_length=1)]


class MixtureConfig(Strict):
    """How the training rows of several sources are put together; validation and test rows are never mixed."""

    n_rows: Count | None  # rows of the weighted sources together; null: as many as no repeated row allows
    replay_fraction: BelowOne  # share of the training rows that comes from sources with role replay


class DataConfig(Strict):
    """What is learned from and tested on."""

    name: Name
    tracked_path: RepoPath  # what DVC watches: the folder, or for hub datasets their conf file
    licence: Text  # of the data; goes into the model card and the lineage
    languages: Texts  # ISO 639-1 codes; go into the model card
    sources: Sources
    mixture: MixtureConfig
    meta_fields: Texts  # extra row keys that are carried to evaluation untouched
    system_prompt: Text | None  # put before every conversation that has no system message
    max_rejected_fraction: Fraction  # of rows read; ingest fails above it
