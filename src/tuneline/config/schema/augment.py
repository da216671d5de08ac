"""Rows written by a teacher model."""

from typing import Annotated, Literal

from pydantic import AfterValidator, Field

from tuneline.config.schema.section import (
    Count,
    CountOrZero,
    Fraction,
    Name,
    NotNegative,
    Positive,
    RepoPath,
    Strict,
    Text,
    matching,
)

Address = Annotated[
    str,
    AfterValidator(
        matching(
            r"https?://([^\s/@]*@)?(\[[0-9a-fA-F:.]+\]|[A-Za-z0-9._-]+)(:[0-9]{1,5})?([/?#]\S*)?",
            "an address such as http://127.0.0.1:8000/v1",
        )
    ),
]


class EndpointConfig(Strict):
    """Who writes: a server that speaks OpenAI's chat completions."""

    base_url: Address
    model: Text  # as the endpoint calls it
    api_key_env: Text | None  # NAME of the environment variable that holds the key; null: sent without a key
    limit_parameter: Literal["max_tokens", "max_completion_tokens"]  # how the endpoint calls a job's max_tokens
    sends_seed: bool  # send the experiment's seed along
    timeout_s: Positive  # seconds an answer may take
    max_retries: CountOrZero  # attempts after the first, when the endpoint is busy, failing or silent
    concurrency: Count  # requests under way at once
    max_total_tokens: Count  # tokens, prompts and answers, that one run may use


class TeacherJobConfig(Strict):
    """What the teacher writes, from which rows."""

    name: Name
    kind: Literal["rewrite", "generate"]  # rewrite: a row with one text replaced; generate: new prompts and answers
    source: Name  # a source with role pool, whose clean rows are shown to the teacher
    n_rows: Count | None  # rows of it, drawn by the hash of seed and id; null: every row
    template: RepoPath  # in the folder of templates
    target: Literal["answer", "prompt"] | None  # what rewrite replaces: the last answer or the last user message
    temperature: NotNegative | None  # of sampling; null: not sent, the endpoint's own
    max_tokens: Count  # tokens an answer may have


class AugmentConfig(Strict):
    """Rows written by a teacher model."""

    endpoint: EndpointConfig | None  # null without jobs
    jobs: Annotated[tuple[TeacherJobConfig, ...], Field(strict=False)]  # none: no network, no new rows
    max_rejected_fraction: Fraction  # of the rows in the answers; augment fails above it
    stages: Annotated[tuple[Literal["teacher"], ...], Field(strict=False)]  # none: no stage
    examples: Literal["data/clean/examples.jsonl", "data/augmented/clean/examples.jsonl"]  # what split divides
    reported: Literal["conf/augment/off.yaml", "data/augmented"]  # of theirs, by describe; off: nothing
