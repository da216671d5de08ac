"""What holds for every file in conf/."""

import re
import types
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import get_args, get_origin

import pytest
from omegaconf import OmegaConf
from pydantic import BaseModel

from tuneline.config.schema import GgufType, Params

KEY_LINE = re.compile(r"^(?P<indent>[ -]*)(?P<key>[a-z_0-9]+):(?P<rest>.*)$")


def conf_files(conf: Path) -> list[Path]:
    files = sorted(conf.rglob("*.yaml"))
    return [path for path in files if path.relative_to(conf).parts[0] != "harness"]  # lm-eval's own format


@pytest.mark.parametrize("forbidden", ["???", "oc.env", "now:", "_target_", "oc.decode", "hydra:"])
def test_no_open_value_no_environment_no_clock_no_code(forbidden: str, conf: Path) -> None:
    # each would put a placeholder, a secret, a changing value or a call into params.yaml
    assert [path.name for path in conf_files(conf) if forbidden in path.read_text(encoding="utf-8")] == []


def commented_keys(path: Path) -> tuple[set[str], set[str]]:
    """Keys with a value in a file, and keys with a comment beside or right above, at least once."""
    valued, commented = set(), set()
    above = ""
    for line in path.read_text(encoding="utf-8").splitlines():
        found = KEY_LINE.match(line)
        if found and found["rest"].split("#")[0].strip():
            valued.add(found["key"])
        if found and ("# " in found["rest"] or above.strip().startswith("#")):
            commented.add(found["key"])
        above = line
    return valued, commented


def test_every_value_has_a_comment(conf: Path) -> None:
    budgets = set(get_args(GgufType))  # one comment for all
    for path in conf_files(conf):
        if path.parent.name != "experiment":
            valued, commented = commented_keys(path)
            assert valued - commented - budgets == set(), path


def leaves(section: type[BaseModel]) -> Iterator[str]:
    """The names of all fields in the schema that hold a value and no section."""
    for name, field in section.model_fields.items():
        inner = section_in(field.annotation)
        if inner is None:
            yield name
        else:
            yield from leaves(inner)


def section_in(annotation: object) -> type[BaseModel] | None:
    if isinstance(annotation, type) and get_origin(annotation) is None:
        return annotation if issubclass(annotation, BaseModel) else None
    inside = get_args(annotation)[-1:] if get_origin(annotation) is Mapping else get_args(annotation)
    assert annotation is not types.NoneType
    return next((found for part in inside if (found := section_in(part)) is not None), None)


def test_every_field_of_the_schema_is_explained_in_conf(conf: Path) -> None:
    fields = set(leaves(Params))
    assert len(fields) > 80
    beside_a_value = set().union(*[commented_keys(path)[1] for path in conf_files(conf)])
    comments = "\n".join(re.findall("# .*", "\n".join(path.read_text(encoding="utf-8") for path in conf_files(conf))))
    assert fields - beside_a_value - set(re.findall(r"\b([a-z_0-9]+): ", comments)) == set()


@pytest.mark.parametrize("group", ["model", "hardware", "recipe", "method", "eval"])
def test_a_file_is_called_what_it_says(group: str, conf: Path) -> None:
    for path in (conf / group).glob("*.yaml"):
        content = OmegaConf.load(path)
        named = content.method.name if group == "method" else content.task if group == "eval" else content.name
        assert named == path.stem


def test_every_method_sets_the_same_keys(conf: Path) -> None:
    # a key that one method leaves out would keep the value of none, and break `params: [lora]` in dvc.yaml
    keys = {path.stem: set(OmegaConf.load(path).keys()) for path in (conf / "method").glob("*.yaml")}
    assert set(map(frozenset, keys.values())) == {frozenset({"method", "lora", "quantization"})}


def test_a_hub_model_is_marked_unpinned_until_it_is_pinned(conf: Path) -> None:
    for path in (conf / "model").glob("*.yaml"):
        model = OmegaConf.load(path)
        if model.tracked_path != model.name_or_path:
            marked = f"UNPINNED: `tuneline pin {path.stem}`" in path.read_text(encoding="utf-8")
            assert marked == (model.revision is None), path
            assert model.tracked_path == f"conf/model/{path.name}"


def test_the_lists_of_the_cleaning_rules_are_the_same_in_every_choice() -> None:
    choices = [OmegaConf.load(path) for path in sorted(Path("conf/clean").glob("*.yaml"))]
    for key in ("special_tokens.tokens", "toxicity.allowed_words"):
        lists = [OmegaConf.select(choice, key) for choice in choices]
        assert lists[0]
        assert lists == [lists[0]] * len(choices)
