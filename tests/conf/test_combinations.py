"""Every combination of the groups' choices is valid, or refused with the reason that a reader of conf/ expects."""

from collections.abc import Callable, Iterator
from itertools import combinations, product
from pathlib import Path
from random import Random
from typing import Any

import pytest

from tuneline.config.params import validated
from tuneline.errors import ConfigError

Values = dict[str, Any]
Choices = dict[str, str]
ByHand = Callable[[Choices], Values]
SOME_COMMIT = "0123456789abcdef0123456789abcdef01234567"
EXPERIMENTS = ("embedded_full", "own_data", "qwen3_8b_qlora_4090")


def refused_keys(values: Values, pinned: bool) -> set[str]:
    """The keys that the validation complains about; `pinned` pretends that `tuneline pin` was run."""
    if pinned and values["model"]["tracked_path"].startswith("conf/"):
        values["model"]["revision"] = SOME_COMMIT
    try:
        validated(values, "conf")
    except ConfigError as error:
        lines = str(error).splitlines()
        problems = lines[1:] if len(lines) > 1 else [lines[0].removeprefix("conf: ")]
        return {problem.split(":")[0].strip() for problem in problems}
    return set()


def expected_keys(choices: Choices) -> set[str]:
    """What cannot go together, by the names of the files."""
    keys = set()
    if choices["method"] == "qlora" and choices["hardware"] == "mps":
        keys.add("hardware.device")
    if (choices["data"] == "own_jsonl") != (choices["split"] == "holdout"):
        keys.add("split.test_fraction")
    if choices["data"] == "own_jsonl" and choices["eval"] == "text_to_sql":
        keys.add("eval.task")
    if choices["data"] == "own_jsonl" and choices["augment"] == "paraphrase":
        keys.add("augment.jobs[0].source")
    return keys


def all_combinations(choices: dict[str, list[str]]) -> Iterator[Choices]:
    return (dict(zip(choices, row, strict=True)) for row in product(*choices.values()))


ALONE = (
    "data",
    "clean",
    "augment",
    "split",
    "eval",
)  # groups whose files hold no interpolation: their sections never vary


def test_groups_that_stand_alone_refer_to_nothing(conf: Path) -> None:
    files = [path for group in ALONE for path in (conf / group).glob("*.yaml")]
    assert [path for path in files if "${" in path.read_text(encoding="utf-8")] == []


def pairwise(choices: dict[str, list[str]]) -> Iterator[Choices]:
    """Few combinations in which every two choices of different groups meet."""
    random = Random(0)
    waiting = {frozenset([(a, x), (b, y)]) for a, b in combinations(choices, 2) for x in choices[a] for y in choices[b]}
    while waiting:
        first = dict(min(waiting, key=sorted))
        drawn = [{g: first.get(g) or random.choice(c) for g, c in choices.items()} for _ in range(20)]
        best = max(drawn, key=lambda row: len(waiting & pairs(row)))
        waiting -= pairs(best)
        yield best


def pairs(row: Choices) -> set[frozenset[tuple[str, str]]]:
    return {frozenset(two) for two in combinations(row.items(), 2)}


def test_every_pair_of_choices_is_valid_or_refused_with_the_reason(
    choices: dict[str, list[str]], by_hand: ByHand
) -> None:
    rows = list(pairwise(choices))
    wrong = {str(row): keys for row in rows if (keys := refused_keys(by_hand(row), True)) != expected_keys(row)}
    assert wrong == {}
    assert len(rows) >= len(choices["model"]) * len(choices["hardware"])


@pytest.mark.slow
def test_every_combination_is_valid_or_refused_with_the_reason(choices: dict[str, list[str]], by_hand: ByHand) -> None:
    # Ways to combine models meet every other choice in pairs, above: here they would be thirteen times the work.
    fewer = {**choices, "merge": ["default"]}
    related = list(all_combinations({group: names for group, names in fewer.items() if group not in ALONE}))
    alone = list(all_combinations({group: choices[group] for group in ALONE}))
    sections = [{group: values[group] for group in ALONE} for values in map(by_hand, alone)]
    wrong = {}
    for first in related:
        values = by_hand(first)
        for second, section in zip(alone, sections, strict=True):
            row = {**first, **second}
            if (keys := refused_keys({**values, **section}, True)) != expected_keys(row):
                wrong[str(row)] = keys
    assert wrong == {}
    assert len(related) * len(alone) >= 10_000


def test_every_unpinned_hub_model_is_refused(choices: dict[str, list[str]], by_hand: ByHand) -> None:
    refused = {model for model in choices["model"] if refused_keys(by_hand({"model": model}), False)}
    unpinned = {model for model in choices["model"] if by_hand({"model": model})["model"]["revision"] is None}
    assert refused == unpinned - {"sqlama"}


@pytest.mark.parametrize(
    "changed",
    [
        {},
        {"method": "qlora", "model": "qwen3_8b", "hardware": "h200_141gb"},
        {"method": "full", "recipe": "pretrain_then_sft", "data": "own_jsonl", "clean": "off"},
    ],
)
def test_merging_by_hand_is_what_hydra_does(changed: Choices, by_hand: ByHand, by_hydra: Callable[..., Values]) -> None:
    assert by_hand(changed) == by_hydra(*[f"{group}={choice}" for group, choice in changed.items()])


@pytest.mark.parametrize("experiment", EXPERIMENTS)
def test_named_experiments_are_valid(experiment: str, by_hydra: Callable[..., Values]) -> None:
    assert refused_keys(by_hydra(f"experiment={experiment}"), True) == set()


def test_the_named_experiments_are_all_tested(conf: Path) -> None:
    assert sorted(path.stem for path in (conf / "experiment").glob("*.yaml")) == sorted(EXPERIMENTS)
