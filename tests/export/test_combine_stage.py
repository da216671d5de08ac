"""Every choice in conf/merge through the stages combine and merge, as DVC runs them, on a tiny base."""

import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from tests.export.conftest import PEFT_WARNING, save_model, save_tokenizer
from tests.export.test_combine import new_adapter
from tests.pinning import pin
from tuneline.data.record_files import write_examples
from tuneline.data.records import Example
from tuneline.errors import EnvironmentProblem, ModelError

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings(PEFT_WARNING)]

CONF = Path("conf")
BASE = Path("models/base/sqlama")
COMBINE = "--params params.yaml --test test.jsonl --out models/combined --metrics combine.json"
MERGE = "--params params.yaml --tuned models/combined --test test.jsonl --out models/merged --metrics merge.json"
WAYS = sorted(file.stem for file in CONF.glob("merge/*.yaml") if file.stem != "default")


@pytest.fixture
def workspace(tmp_path: Path, examples: list[Example], monkeypatch: pytest.MonkeyPatch) -> Callable[[str], Path]:
    """`workspace("models_ties")`: laid out as the repository is after training, with that choice in params.yaml."""
    from tuneline.config.compose import compose

    conf = CONF.resolve()

    def laid_out(way: str) -> Path:
        method = "lora" if way.startswith("adapters_") else "full"
        compose(conf, tmp_path / "params.yaml", [f"merge={way}", f"method={method}", "merge.check_examples=3"])
        monkeypatch.chdir(tmp_path)
        save_model(BASE, 0, tied=True)
        save_tokenizer(BASE)
        pin(Path("params.yaml"), BASE)
        for seed, folder in enumerate(("models/phase/sft", "models/sources/other"), start=1):
            if method == "lora":
                new_adapter(BASE, Path(folder), seed)
            else:
                save_model(Path(folder), seed, tied=True)
                save_tokenizer(Path(folder))
        write_examples(Path("test.jsonl"), examples)
        return tmp_path

    return laid_out


def stage(main: Callable[[], None], arguments: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["stage", *arguments.split()])
    main()


def report(file: str) -> dict[str, Any]:
    read: dict[str, Any] = json.loads(Path(file).read_text())
    return read


@pytest.mark.parametrize("way", WAYS)
def test_every_way_goes_from_configuration_to_a_merged_model_and_its_reports(
    way: str, workspace: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    from tuneline.stages import combine, merge

    workspace(way)
    stage(combine.main, COMBINE, monkeypatch)
    combined = report("combine.json")
    assert combined["n_sources"] == 2
    assert combined["source_0_kl_mean_nats"] > 0
    assert combined["source_1_kl_mean_nats"] > 0
    assert Path("models/combined/adapter_config.json").exists() == way.startswith("adapters_")
    stage(merge.main, MERGE, monkeypatch)
    assert report("merge.json")["written_relative_logit_diff"] <= 1e-4
    assert list(Path("models/merged").glob("*.safetensors"))


def test_a_whole_model_among_adapters_is_told_by_the_stage_with_the_key(
    workspace: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    from tuneline.stages import combine

    (workspace("adapters_cat") / "models/sources/other/adapter_config.json").unlink()
    with pytest.raises(ModelError, match=r"sources/other: its family is full, but merge.combine.family is adapter"):
        stage(combine.main, COMBINE, monkeypatch)
    assert not Path("models/combined").exists()


def test_a_full_disk_is_told_before_anything_is_combined(
    workspace: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    from tuneline.stages import combine

    workspace("adapters_cat")
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=1000))
    match = r"^models/combined: needs up to [\d,]{6,} bytes, 1,000 are free on its disk; make room \(`dvc gc"
    with pytest.raises(EnvironmentProblem, match=match):
        stage(combine.main, COMBINE, monkeypatch)
    assert not list(Path("models").glob("*combined*"))
    assert not Path("combine.json").exists()
