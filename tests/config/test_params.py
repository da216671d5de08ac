"""Reading params.yaml as a file."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tuneline.config.params import read_params, validated
from tuneline.errors import ConfigError


@pytest.fixture
def edited(pytestconfig: pytest.Config, tmp_path: Path) -> Callable[[str, str], Path]:
    """A copy of params.yaml with one piece of text replaced."""

    def edit(old: str, new: str) -> Path:
        text = (pytestconfig.rootpath / "params.yaml").read_text(encoding="utf-8")
        assert old in text
        path = tmp_path / "params.yaml"
        path.write_text(text.replace(old, new, 1), encoding="utf-8")
        return path

    return edit


def message_of(path: Path) -> str:
    with pytest.raises(ConfigError) as caught:
        read_params(path)
    return str(caught.value)


def test_numbers_without_a_point_are_numbers(edited: Callable[[str, str], Path]) -> None:
    # PyYAML reads 3e-4 as text
    assert read_params(edited("full: 0.001", "full: 3e-4")).model.learning_rate.full == 0.0003


def test_an_unknown_key_names_the_known_ones_and_the_nearest(edited: Callable[[str, str], Path]) -> None:
    message = message_of(edited("use_dora: false", "use_dora: false\n  lora_alpa: 3"))
    assert "lora.lora_alpa: unknown key, allowed are r, lora_alpha, " in message
    assert "did you mean 'lora_alpha'?" in message


@pytest.mark.parametrize(
    ("old", "new", "key"),
    [
        (
            "    role: pool",
            "    rule: pool",
            "data.sources[0].rule: unknown key, allowed are name, path, hub, format, role",
        ),
        ("      packing: false", "      pack: false", "recipe.phases.sft.pack: unknown key, allowed are objective, "),
        (
            "    adapter: 0.",
            "    adaptor: 0.",
            "model.learning_rate.adaptor: unknown key, allowed are full, adapter",
        ),
        ("seed: 42", "sed: 42", "sed: unknown key, allowed are conf_digest, seed, "),
    ],
)
def test_unknown_keys_are_named_at_any_depth(old: str, new: str, key: str, edited: Callable[[str, str], Path]) -> None:
    assert key in message_of(edited(old, new))


def test_a_missing_key_is_named(edited: Callable[[str, str], Path]) -> None:
    assert "params.yaml: seed: missing;" in message_of(edited("seed: 42\n", ""))


def test_a_value_left_open_is_an_error_and_no_text(edited: Callable[[str, str], Path]) -> None:
    assert "tracking.project" in message_of(edited("project: tuneline", "project: ???"))


def test_a_key_that_is_there_twice_is_an_error(edited: Callable[[str, str], Path]) -> None:
    assert "duplicate key seed" in message_of(edited("seed: 42", "seed: 42\nseed: 43"))


@pytest.mark.parametrize("content", [b"", b"[1, 2]", b"a: [", b"\xff\xfe", b"null"])
def test_a_file_that_is_no_mapping_is_one_line(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "params.yaml"
    path.write_bytes(content)
    message = message_of(path)
    assert message.startswith(f"{path}: ")
    assert "\n" not in message
    assert "make params" in message


def test_a_missing_file_says_how_to_make_it(tmp_path: Path) -> None:
    assert "no such file; run `make params`" in message_of(tmp_path / "params.yaml")


def test_every_problem_is_in_one_error(values: dict[str, Any]) -> None:
    values["seed"] = "x"
    values["lora"]["rr"] = 3
    del values["train"]["eval_steps"]
    with pytest.raises(ConfigError) as caught:
        validated(values, "params.yaml")
    lines = str(caught.value).splitlines()
    assert lines[0] == "params.yaml: 3 problems"
    assert [line.split(":")[0].strip() for line in lines[1:]] == ["seed", "lora.rr", "train.eval_steps"]


def test_the_guard_imports_nothing_heavy(pytestconfig: pytest.Config) -> None:
    # every no-op `dvc repro` after an edit pays for this import
    heavy = "{'torch', 'numpy', 'pandas', 'hydra', 'dvc', 'transformers', 'datasets', 'matplotlib'}"
    code = f"import sys, tuneline.stages.guard; print(sorted({heavy} & set(sys.modules)))"
    environment = {**os.environ, "PYTHONPATH": str(pytestconfig.rootpath / "src")}
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment, check=True)
    assert ran.stdout.strip() == "[]"
