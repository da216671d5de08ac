"""Every value in params.yaml is tracked by a stage and read by code: `-S key=value` never changes nothing."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf
from pydantic import BaseModel

from tuneline.commands.wiring import stages_of
from tuneline.config import schema

# Passed whole to PEFT and Transformers, whose names they bear.
HANDED_OVER = (schema.LoraConfig, schema.QuantizationConfig)
# Labels: they name a choice for people and in file names, and change no computation.
LABELS = {"recipe.name", "data.name", "conf_digest"}


def leaves(node: Any, prefix: str = "") -> Iterator[str]:
    for key, value in node.items():
        path = f"{prefix}{key}"
        if isinstance(value, dict):
            yield from leaves(value, f"{path}.")
        else:
            yield path


def test_every_leaf_of_params_yaml_is_tracked_by_a_stage() -> None:
    params = OmegaConf.to_container(OmegaConf.load("params.yaml"))
    stages = stages_of(Path("dvc.yaml"))
    listed = [param for stage in stages.values() for param in stage.get("params") or []]
    tracked = {re.sub(r"\.\$\{.*\}", "", param) for param in listed}  # each phase and each type by its own instance
    interpolated = set(re.findall(r"\$\{([a-z_.]+)\}", Path("dvc.yaml").read_text(encoding="utf-8")))
    covered = tracked | interpolated
    untracked = [leaf for leaf in leaves(params) if not any(leaf == c or leaf.startswith(f"{c}.") for c in covered)]
    assert set(untracked) - LABELS == set()


def test_every_field_of_the_schema_is_read_by_code() -> None:
    sections = [s for s in vars(schema).values() if isinstance(s, type) and issubclass(s, BaseModel)]
    sections = [s for s in sections if s not in HANDED_OVER]
    fields = {field for section in sections for field in section.model_fields}
    text = Path("dvc.yaml").read_text(encoding="utf-8")
    for path in Path("src/tuneline").rglob("*.py"):
        if "config" not in path.parts:
            text += path.read_text(encoding="utf-8")
    unread = sorted(field for field in fields if not re.search(rf"[.\"']{field}\b", text))
    assert set(unread) - {label.split(".")[-1] for label in LABELS} == set()
