"""How rows are divided into train, validation and test."""

from typing import Annotated, Literal

from pydantic import Field

from tuneline.config.schema.section import BelowOne, Count, Strict, Text


class ContaminationConfig(Strict):
    """Training rows that a held-out row (role test or benchmark, or drawn for the test) gives away."""

    action: Literal["drop", "fail"]
    ngram: Count | None  # words in a row that both hold; null: not compared (equal prompts always are)
    max_ngram_rows: Count  # a run of words in more training rows than this is their template, and gives nothing away
    min_jaccard: Annotated[float, Field(gt=0, le=1)] | None  # of near copies; null: not compared


class SplitConfig(Strict):
    """Train, validation and test rows."""

    val_fraction: BelowOne  # of the pool
    test_fraction: BelowOne  # of the pool, when no source has role test
    salt: Text  # another word draws another split
    contamination: ContaminationConfig
