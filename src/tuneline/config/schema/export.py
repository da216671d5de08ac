"""GGUF files: which are made, how they are measured, which is shipped."""

from collections.abc import Mapping
from typing import Annotated, Literal

from pydantic import Field

from tuneline.config.schema.section import Count, Fraction, NotNegative, Strict

OutType = Literal["f16", "bf16", "f32"]
# llama.cpp's file types that need no importance matrix, in lower case.
QuantType = Literal[
    "q2_k", "q3_k_s", "q3_k_m", "q3_k_l", "q4_0", "q4_1", "q4_k_s", "q4_k_m", "q5_0", "q5_1", "q5_k_s",
    "q5_k_m", "q6_k", "q8_0", "iq3_s", "iq3_m", "iq4_nl", "iq4_xs",
]  # fmt: skip
GgufType = Literal[OutType, QuantType]
Pick = Literal[GgufType, "smallest_within_budget"]
QuantTypes = Annotated[tuple[QuantType, ...], Field(strict=False)]
GgufTypes = Annotated[tuple[GgufType, ...], Field(strict=False, min_length=1)]


class BudgetConfig(Strict):
    """How far a GGUF may be from the merged model."""

    kl_mean_nats: NotNegative  # mean KL(merged || GGUF) per token, in nats; at most
    top1_agreement: Fraction  # fraction of positions with the same most likely token; at least
    execution_accuracy_drop: Fraction  # loss of task score, 0..1; at most


class ImatrixConfig(Strict):
    """The importance matrix that quants are made with."""

    n_rows: Count  # training conversations, or all there are
    n_ctx: Count  # tokens of one piece of them


class ExportConfig(Strict):
    """GGUF files."""

    outtype: OutType  # type the converter writes; the quants are made from it
    quants: QuantTypes
    imatrix: ImatrixConfig | None  # null: every weight counts the same
    calibrated: Annotated[tuple[Literal["imatrix"], ...], Field(strict=False)]  # with imatrix: its stage
    plain: QuantTypes  # without imatrix: the quants
    weighted: QuantTypes  # with imatrix: the quants
    verified: GgufTypes  # outtype, then the quants: conf/ computes it
    pick: Pick  # the file in models/deploy
    all_within_budget: bool  # with a type picked by name; otherwise the outtype alone must hold
    vllm: bool  # models/deploy also ships the merged model in safetensors
    lora_base: GgufType | None  # models/deploy also ships the adapter alone, and the base in this type; null: neither
    lora_bases: Annotated[tuple[GgufType, ...], Field(strict=False)]  # of lora_base: the stages' instances
    verify_examples: Count  # held-out rows for the comparison of logits
    score_examples: Count | None  # held-out rows scored by the task; null: all
    n_ctx: Count  # tokens of context in llama.cpp
    budgets: Mapping[GgufType, BudgetConfig]  # at least one per verified type
