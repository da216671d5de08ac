"""Every value in params.yaml is tracked by a stage and read by code: `-S key=value` never changes nothing."""

import ast
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
LABELS = {"recipe.name", "data.name", "data.licence", "data.languages", "conf_digest"}
# What package itself acts on.
PACKAGED = {"export.pick", "export.vllm"}
# ${model.learning_rate.${method.family}} in conf/recipe, and ${item.init} of a phase in dvc.yaml.
# export.quants: conf/ computes of it which types are made without an importance matrix, with one, and verified.
COMPUTED_FROM = {"export.quants"}
READ_BY_YAML = {
    "ExportConfig.quants",
    "ModelConfig.learning_rate",
    "LearningRates.full",
    "LearningRates.adapter",
    "PhaseConfig.init",
}


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
    # package tells of nearly every section and would hide that the stage which acts on a value does not track it
    listed = [param for name, stage in stages.items() if name != "package" for param in stage.get("params") or []]
    tracked = {re.sub(r"\.\$\{.*\}", "", param) for param in listed}  # each phase and each type by its own instance
    interpolated = set(re.findall(r"\$\{([a-z_.]+)\}", Path("dvc.yaml").read_text(encoding="utf-8")))
    covered = tracked | interpolated
    untracked = [leaf for leaf in leaves(params) if not any(leaf == c or leaf.startswith(f"{c}.") for c in covered)]
    assert set(untracked) - LABELS - COMPUTED_FROM - PACKAGED == set()


def test_no_key_is_one_that_the_run_cache_of_dvc_leaves_out_so_that_two_values_would_be_one_result() -> None:
    """dvc/stage/cache.py, _get_cache_hash: `size` and `nfiles` at any depth, meant for outputs."""
    assert {name for section in sections() for name in section.model_fields} & {"size", "nfiles"} == set()


def code_outside_config() -> Iterator[ast.AST]:
    for path in Path("src/tuneline").rglob("*.py"):
        if "config" not in path.parts:
            yield from ast.walk(ast.parse(path.read_text(encoding="utf-8")))


def shapes(nodes: list[ast.AST]) -> dict[str, set[str]]:
    """The protocols that a room states its settings with, and their fields."""
    classes = [node for node in nodes if isinstance(node, ast.ClassDef) and "Protocol" in map(ast.unparse, node.bases)]
    return {node.name: {item.name for item in node.body if isinstance(item, ast.FunctionDef)} for node in classes}


def owners(section: type[BaseModel], nodes: list[ast.AST]) -> set[str]:
    """What the code calls a value of this section: its key in params.yaml, and arguments declared to be one."""
    kinds = {name for name, fields in shapes(nodes).items() if fields and fields <= section.model_fields.keys()}
    kinds |= {section.__name__}
    arguments = [node for node in nodes if isinstance(node, ast.arg) and node.annotation is not None]
    named = {node.arg for node in arguments if kinds & set(re.findall(r"\w+", ast.unparse(node.annotation or node)))}
    keys = {
        key
        for other in sections()
        for key, field in other.model_fields.items()
        if section.__name__ in re.findall(r"\w+", str(field.annotation))
    }
    return named | keys | {key.rstrip("s") for key in keys} | {kind.lower() for kind in kinds}


def sections() -> list[type[BaseModel]]:
    return [s for s in vars(schema).values() if isinstance(s, type) and issubclass(s, schema.Strict)]


def read_of(node: ast.AST) -> tuple[str, str] | None:
    """`params.train.seed`, `train.seed` and `phases[name].seed` as owner and field."""
    match node:
        case ast.Attribute(value=ast.Name(id=owner) | ast.Attribute(attr=owner), attr=field):
            return owner.lstrip("_"), field
        case ast.Attribute(value=ast.Subscript(value=ast.Name(id=owner) | ast.Attribute(attr=owner)), attr=field):
            return owner.lstrip("_"), field
    return None


def test_every_field_of_the_schema_is_read_by_code() -> None:
    nodes = list(code_outside_config())
    dvc = re.findall(r"\$\{(?:[a-z_]+\.)*([a-z_]+)\.([a-z_]+)\}", Path("dvc.yaml").read_text(encoding="utf-8"))
    reads = {read for node in nodes if (read := read_of(node))} | set(dvc)
    unread = set()
    for section in set(sections()) - {*HANDED_OVER}:
        known = owners(section, nodes)
        fields = {field for owner, field in reads if owner in known}
        unread |= {f"{section.__name__}.{field}" for field in section.model_fields.keys() - fields}
    assert unread == READ_BY_YAML
