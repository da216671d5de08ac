"""What every section of params.yaml is made of: the strict model, and types of values with their ranges."""

import re
from collections.abc import Callable
from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field


class Strict(BaseModel):
    """Every section: no unknown or missing key, no conversion ('1' is no number), no NaN, frozen."""

    model_config = ConfigDict(strict=True, frozen=True, extra="forbid", allow_inf_nan=False)


def matching(pattern: str, allowed: str) -> Callable[[str], str]:
    """Validates text that dvc.yaml puts into a command, where free text would be an injection."""

    def validate(text: str) -> str:
        if re.fullmatch(pattern, text) is None or ".." in text:
            raise ValueError(allowed)
        return text

    return validate


Count = Annotated[int, Field(gt=0)]
CountOrZero = Annotated[int, Field(ge=0)]
Positive = Annotated[float, Field(gt=0)]
NotNegative = Annotated[float, Field(ge=0)]
Fraction = Annotated[float, Field(ge=0, le=1)]
BelowOne = Annotated[float, Field(ge=0, lt=1)]
Text = Annotated[str, Field(min_length=1)]
Texts = Annotated[tuple[Text, ...], Field(strict=False)]
Name = Annotated[str, AfterValidator(matching(r"[a-z][a-z0-9_]*", "lower-case letters, digits and _ only"))]
RepoPath = Annotated[
    str,
    AfterValidator(
        matching(
            r"[A-Za-z0-9_][A-Za-z0-9_.-]*(/[A-Za-z0-9_.][A-Za-z0-9_.-]*)*",
            "a path inside the repository or a hub id, in letters, digits, _ . - and single /",
        )
    ),
]
CommitHash = Annotated[str, AfterValidator(matching(r"[0-9a-f]{40}", "a full commit hash: 40 lower-case hex digits"))]
Sha256 = Annotated[str, AfterValidator(matching(r"[0-9a-f]{64}", "a SHA-256: 64 lower-case hex digits"))]
Dtype = Literal["float32", "bfloat16", "float16"]
