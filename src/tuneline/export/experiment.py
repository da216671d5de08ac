"""What a packaged model is the result of: every section of params.yaml that has a say in it, and a commit."""

from dataclasses import dataclass
from typing import Any

from pydantic import TypeAdapter

from tuneline.config.schema import (
    AugmentConfig,
    CleanConfig,
    DataConfig,
    EvalConfig,
    ExportConfig,
    GgufType,
    HardwareConfig,
    LoraConfig,
    MergeConfig,
    MethodConfig,
    ModelConfig,
    QuantizationConfig,
    RecipeConfig,
    SplitConfig,
    TrainConfig,
)
from tuneline.export.commit import Commit


@dataclass(frozen=True, slots=True)
class Experiment:
    """The sections by their names; tracking is left out, as it changes no result."""

    seed: int
    model: ModelConfig
    method: MethodConfig
    lora: LoraConfig | None
    quantization: QuantizationConfig | None
    recipe: RecipeConfig
    data: DataConfig
    clean: CleanConfig
    augment: AugmentConfig
    split: SplitConfig
    train: TrainConfig
    hardware: HardwareConfig
    eval: EvalConfig
    merge: MergeConfig
    export: ExportConfig
    shipped: GgufType  # what export.pick came to
    commit: Commit  # of code, configuration and data

    @property
    def title(self) -> str:
        """What the model is called: in its card, its file's name and the commands that load it."""
        return f"{self.model.name}-{self.data.name}-{self.method.name}"

    @property
    def gguf_name(self) -> str:
        """The packaged file; named after its content, as it will leave this repository."""
        return f"{self.title}-{self.shipped}.gguf"

    def settings(self) -> dict[str, Any]:
        """Plain values, for JSON: all but the commit, which sets nothing."""
        plain: dict[str, Any] = TypeAdapter(Experiment).dump_python(self, mode="json", exclude={"commit"})
        return plain
