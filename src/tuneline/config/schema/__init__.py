"""What params.yaml may hold: each key, its type, unit and range; one module per group of conf/. No defaults here."""

from tuneline.config.schema.augment import AugmentConfig, EndpointConfig, TeacherJobConfig
from tuneline.config.schema.clean import (
    CleanConfig,
    EncodingRuleConfig,
    LanguageRuleConfig,
    LengthRuleConfig,
    NearDuplicatesRuleConfig,
    PiiAction,
    PiiRuleConfig,
    RepetitionRuleConfig,
    RuleConfig,
    SpecialTokensRuleConfig,
    ToxicityRuleConfig,
)
from tuneline.config.schema.data import (
    DataConfig,
    Format,
    HubDatasetConfig,
    MixtureConfig,
    SourceConfig,
    SourceFormat,
    SourceRole,
)
from tuneline.config.schema.eval import EvalConfig, EvalTask
from tuneline.config.schema.export import BudgetConfig, ExportConfig, GgufType, ImatrixConfig, OutType, Pick, QuantType
from tuneline.config.schema.hardware import Attention, Device, HardwareConfig, Precision
from tuneline.config.schema.merge import (
    AdapterCombination,
    CombineConfig,
    CombineSourceConfig,
    MajoritySign,
    MergeConfig,
    ModelCombination,
)
from tuneline.config.schema.method import Family, LoraConfig, MethodConfig, QuantizationConfig
from tuneline.config.schema.model import LearningRates, ModelConfig
from tuneline.config.schema.recipe import Objective, PhaseConfig, RecipeConfig
from tuneline.config.schema.section import Dtype, Strict
from tuneline.config.schema.split import ContaminationConfig, SplitConfig
from tuneline.config.schema.tracking import TrackingConfig
from tuneline.config.schema.train import TrainConfig
from tuneline.config.schema.whole import Params

__all__ = [
    "AdapterCombination",
    "Attention",
    "AugmentConfig",
    "BudgetConfig",
    "CleanConfig",
    "CombineConfig",
    "CombineSourceConfig",
    "ContaminationConfig",
    "DataConfig",
    "Device",
    "Dtype",
    "EncodingRuleConfig",
    "EndpointConfig",
    "EvalConfig",
    "EvalTask",
    "ExportConfig",
    "Family",
    "Format",
    "GgufType",
    "HardwareConfig",
    "HubDatasetConfig",
    "ImatrixConfig",
    "LanguageRuleConfig",
    "LearningRates",
    "LengthRuleConfig",
    "LoraConfig",
    "MajoritySign",
    "MergeConfig",
    "MethodConfig",
    "MixtureConfig",
    "ModelCombination",
    "ModelConfig",
    "NearDuplicatesRuleConfig",
    "Objective",
    "OutType",
    "Params",
    "PhaseConfig",
    "Pick",
    "PiiAction",
    "PiiRuleConfig",
    "Precision",
    "QuantType",
    "QuantizationConfig",
    "RecipeConfig",
    "RepetitionRuleConfig",
    "RuleConfig",
    "SourceConfig",
    "SourceFormat",
    "SourceRole",
    "SpecialTokensRuleConfig",
    "SplitConfig",
    "Strict",
    "TeacherJobConfig",
    "ToxicityRuleConfig",
    "TrackingConfig",
    "TrainConfig",
]
