"""The whole of params.yaml, one module per group of conf/. The values are in conf/: no defaults here.

Rules that compare two keys are in `tuneline.config.rules`; `tuneline.config.params.read_params` applies both.
"""

from typing import Annotated

from pydantic import Field

from tuneline.config.schema.augment import AugmentConfig
from tuneline.config.schema.clean import CleanConfig
from tuneline.config.schema.data import DataConfig
from tuneline.config.schema.eval import EvalConfig
from tuneline.config.schema.export import ExportConfig
from tuneline.config.schema.hardware import HardwareConfig
from tuneline.config.schema.merge import MergeConfig
from tuneline.config.schema.method import LoraConfig, MethodConfig, QuantizationConfig
from tuneline.config.schema.model import ModelConfig
from tuneline.config.schema.recipe import RecipeConfig
from tuneline.config.schema.section import Sha256, Strict
from tuneline.config.schema.split import SplitConfig
from tuneline.config.schema.tracking import TrackingConfig
from tuneline.config.schema.train import TrainConfig


class Composition(Strict):
    """Where params.yaml comes from."""

    conf_digest: Sha256  # of conf/**/*.yaml when params.yaml was composed


class Settings(Strict):
    """What has a say in a result: every section but tracking, which only watches."""

    seed: Annotated[int, Field(ge=0, lt=2**32)]  # of every random draw
    model: ModelConfig
    method: MethodConfig
    lora: LoraConfig | None  # null: no adapter
    quantization: QuantizationConfig | None  # null: the base is not quantised
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


class Params(Settings, Composition):  # pydantic begins with the fields of the last, and messages list keys so
    """The whole of params.yaml."""

    tracking: TrackingConfig
