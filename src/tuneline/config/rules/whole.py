"""All of the rules, in the order of params.yaml; one module per group of conf/."""

from collections.abc import Iterator

from tuneline.config.rules.augment import augment_rules
from tuneline.config.rules.clean import clean_rules
from tuneline.config.rules.data import data_rules
from tuneline.config.rules.eval import eval_rules
from tuneline.config.rules.export import export_rules, lora_export_rules
from tuneline.config.rules.hardware import hardware_rules
from tuneline.config.rules.merge import merge_rules
from tuneline.config.rules.method import method_rules, quantization_rules
from tuneline.config.rules.model import model_rules
from tuneline.config.rules.recipe import recipe_rules
from tuneline.config.rules.split import split_rules
from tuneline.config.rules.train import train_rules
from tuneline.config.schema import Params


def broken_rules(params: Params) -> Iterator[str]:
    """Every broken rule, one line each."""
    yield from model_rules(params.model)
    yield from method_rules(params)
    yield from quantization_rules(params)
    yield from recipe_rules(params.recipe, params.model)
    yield from data_rules(params.data)
    yield from clean_rules(params.clean)
    yield from augment_rules(params)
    yield from split_rules(params)
    yield from train_rules(params)
    yield from hardware_rules(params.hardware)
    yield from eval_rules(params)
    yield from merge_rules(params)
    yield from export_rules(params.export, params.model)
    yield from lora_export_rules(params)
