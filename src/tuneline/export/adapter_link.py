"""The link from an adapter to its GGUF on the base's GGUF: both engines have the weights apart."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from transformers import PreTrainedModel

from tuneline.config.schema import BudgetConfig, GgufType, ModelConfig
from tuneline.errors import BudgetError
from tuneline.export.budget import Figures, lora_link, outside_budget, usual_cause
from tuneline.export.reference import REFERENCE
from tuneline.export.verify import Link
from tuneline.model.adapters import bare_model, load_tuned
from tuneline.model.loading import load_config


@dataclass(frozen=True, slots=True, kw_only=True)
class AdapterLink(Link):
    """`folder` holds the adapter that was trained on `base`, `gguf` the base, `adapter` the adapter alone."""

    base: ModelConfig

    def config(self) -> Mapping[str, Any]:
        """The base's config.json."""
        return load_config(self.base).to_dict()

    def load(self) -> PreTrainedModel:
        """The unquantised base with the adapter's layers in it, not merged: as it was trained, but for QLoRA."""
        return bare_model(load_tuned(self.folder, self.base, REFERENCE, None))


def check_adapter_link(base_type: GgufType, metrics: Figures, budget: BudgetConfig) -> None:
    """Raise one `BudgetError` with every figure that is outside: link, figure, budget, usual cause."""
    problems = outside_budget(metrics, budget)
    if problems:
        raise BudgetError(
            f"verify_adapter (adapter -> its GGUF on the base in {base_type}): export.budgets.{base_type}: "
            f"{'; '.join(problems)}; {usual_cause(lora_link(base_type))}"
        )
