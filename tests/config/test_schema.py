"""Types, ranges and closed choices, one value at a time."""

from collections.abc import Callable
from typing import Any, get_args, get_origin

import pytest
from pydantic import BaseModel, ValidationError

from tuneline.config import schema
from tuneline.config.schema import Params

Check = Callable[[dict[str, Any]], Params]
Problem = Callable[[dict[str, Any]], str]
SECTIONS = [kind for kind in vars(schema).values() if isinstance(kind, type) and issubclass(kind, BaseModel)]


def sections_in(annotation: object) -> set[type[BaseModel]]:
    """The sections that a field's type names, and those inside them."""
    if isinstance(annotation, type) and get_origin(annotation) is None:
        fields = annotation.model_fields.values() if issubclass(annotation, BaseModel) else ()
        return set().union({annotation} if fields else set(), *[sections_in(field.annotation) for field in fields])
    return set().union(*[sections_in(part) for part in get_args(annotation)])


def test_the_package_gives_every_section_that_a_module_of_it_describes() -> None:
    assert sections_in(Params) == {*SECTIONS} - {schema.Strict}


def test_no_field_has_a_default() -> None:
    optional = [(kind, name) for kind in SECTIONS for name, f in kind.model_fields.items() if not f.is_required()]
    assert optional == []


def test_values_stay_as_they_are(values: dict[str, Any], check: Check) -> None:
    assert check({}).model_dump(mode="json") == values


def test_params_cannot_be_changed(check: Check) -> None:
    params = check({})
    with pytest.raises(ValidationError, match="frozen"):
        params.__setattr__("seed", 1)


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("seed", -1, "seed: -1, allowed is a value >= 0"),
        ("seed", "42", "seed: '42', allowed is a whole number"),
        ("seed", True, "seed: true, allowed is a whole number"),
        ("seed", None, "seed: null, allowed is a whole number"),
        ("lora.r", "abc", "lora.r: 'abc', allowed is a whole number"),
        ("lora.r", 0, "lora.r: 0, allowed is a value > 0"),
        ("lora.r", 8.5, "lora.r: 8.5, allowed is a whole number"),
        ("lora.lora_dropout", 1.0, "lora.lora_dropout: 1.0, allowed is a value < 1"),
        ("lora.lora_dropout", -0.1, "lora.lora_dropout: -0.1, allowed is a value >= 0"),
        ("lora.use_dora", 1, "lora.use_dora: 1, allowed is true or false"),
        ("model.trust_remote_code", "yes", "model.trust_remote_code: 'yes', allowed is true or false"),
        ("model.learning_rate.full", 0.0, "model.learning_rate.full: 0.0, allowed is a value > 0"),
        ("model.learning_rate.full", "3e-4", "model.learning_rate.full: '3e-4', allowed is a number"),
        ("recipe.phases.sft.learning_rate", float("nan"), "recipe.phases.sft.learning_rate: nan, allowed is a finite"),
        ("train.max_grad_norm", float("inf"), "train.max_grad_norm: inf, allowed is a finite number"),
        ("train.warmup_ratio", 1.5, "train.warmup_ratio: 1.5, allowed is a value < 1"),
        ("clean.max_rejected_fraction", 1.01, "clean.max_rejected_fraction: 1.01, allowed is a value <= 1"),
        ("eval.confidence", 1.0, "eval.confidence: 1.0, allowed is a value < 1"),
        ("eval.harness_tasks", "hellaswag", "eval.harness_tasks: 'hellaswag', allowed is a list"),
        ("data.sources", [], "data.sources: [], it must not be empty"),
        ("tracking.project", "", "tracking.project: '', it must not be empty"),
        ("data.system_prompt", "", "data.system_prompt: '', it must not be empty"),
        ("train", 3, "train: 3, allowed is a section with keys"),
        ("train", None, "train: null, allowed is a section with keys"),
        ("recipe.phases", {}, "recipe.phases: {}, it must not be empty"),
        ("conf_digest", "12", "conf_digest: '12', allowed is a SHA-256: 64 lower-case hex digits"),
        ("lora.target_modules", [], "lora.target_modules: [], allowed is all-linear, a regular expression"),
        ("lora.target_modules", ["q_proj", 3], "lora.target_modules: ['q_proj', 3], allowed is a list of module"),
        (
            "tracking.wandb",
            "ofline",
            "tracking.wandb: 'ofline', allowed is disabled, offline, online; did you mean 'offline'?",
        ),
        ("hardware.precision", "bf61", "hardware.precision: 'bf61', allowed is fp32, bf16, fp16; did you mean 'bf16'?"),
        ("method.name", "prefix", "method.name: 'prefix', allowed is full, lora, qlora, dora, rslora"),
    ],
)
def test_a_bad_value_is_one_clear_line(key: str, value: object, message: str, problem: Problem) -> None:
    assert problem({key: value}).startswith(message)


def test_a_bad_source_is_one_problem_even_if_it_is_the_only_one(values: dict[str, Any], problem: Problem) -> None:
    source = {**values["data"]["sources"][0], "role": "poll"}
    message = problem({"data.sources": [source]})
    assert message.startswith("data.sources[0].role: 'poll', allowed is pool, replay, test, benchmark")


@pytest.mark.parametrize("value", ["all-linear", r".*\.(q|v)_proj", ["q_proj", "v_proj"]])
def test_target_modules_may_be_a_word_a_pattern_or_a_list(value: object, check: Check) -> None:
    lora = check({"lora.target_modules": value}).lora
    assert lora is not None
    assert lora.target_modules == (tuple(value) if isinstance(value, list) else value)


def test_a_whole_number_is_a_number(check: Check) -> None:
    assert check({"train.weight_decay": 0}).train.weight_decay == 0.0


@pytest.mark.parametrize(
    "text", ["../secret", "/etc/passwd", "a//b", "a/", "-rf", "a b", "a;rm -rf x", "$(id)", "a\nb", ""]
)
@pytest.mark.parametrize("key", ["model.tracked_path", "recipe.phases.sft.init", "eval.resources", "data.tracked_path"])
def test_text_that_reaches_a_command_is_a_plain_path(key: str, text: str, changed: Any) -> None:
    with pytest.raises(ValidationError, match="a path inside the repository"):
        Params.model_validate(changed({key: text}))


@pytest.mark.parametrize("name", ["a b", "a;b", "$(id)", "A", "1a", "a/b", "a.b", ""])
def test_a_phase_name_is_a_plain_word(name: str, values: dict[str, Any]) -> None:
    values["recipe"]["phases"][name] = values["recipe"]["phases"]["sft"]
    with pytest.raises(ValidationError, match="lower-case letters"):
        Params.model_validate(values)


@pytest.mark.parametrize("name", ["a b", "a;b", "$(id)", "-x", ""])
def test_a_harness_task_name_is_a_plain_word(name: str, problem: Problem) -> None:
    assert problem({"eval.harness_tasks": [name]}).startswith("eval.harness_tasks[0]: ")


def test_the_embedded_base_is_local_and_a_hub_model_is_not(check: Check) -> None:
    model = check({}).model
    assert model.is_local
    assert not model.model_copy(update={"tracked_path": "conf/model/x.yaml"}).is_local


@pytest.mark.slow
def test_quant_types_are_those_of_llama_cpp() -> None:
    import llama_cpp

    of_llama_cpp = {name.removeprefix("LLAMA_FTYPE_MOSTLY_").lower() for name in dir(llama_cpp) if "FTYPE" in name}
    assert set(get_args(schema.QuantType)) <= of_llama_cpp
