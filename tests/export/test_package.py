"""The folder to deploy: whole, consistent, the same every time."""

import json
import shutil
import sys
from dataclasses import asdict, replace
from hashlib import sha256
from itertools import chain
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest

from tests.export.conftest import PEFT_WARNING, experiment, exporting, reports
from tuneline.errors import ConfigError, DataError, EnvironmentProblem, ModelError
from tuneline.serving.integrity import verify_model

if TYPE_CHECKING:
    from tuneline.export.package import Inputs

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings(PEFT_WARNING)]

NAME = "sqlama-text_to_sql-lora-q8_0.gguf"


@pytest.fixture(scope="module")
def q8_0(f16: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    from tuneline.export.quantize import quantize

    out = tmp_path_factory.mktemp("quants") / "q8_0.gguf"
    quantize(f16, out, "q8_0")
    return out


@pytest.fixture
def inputs(merged: Path, base: Path, adapter: Path, tmp_path: Path) -> "Inputs":
    from tuneline.export.package import Inputs

    for name in ("raw", "data"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "train.jsonl").write_bytes(b"{}\n")
    return Inputs(tmp_path / "raw", tmp_path / "data", base, adapter, merged)


def test_the_lineage_of_a_combination_holds_its_sources(q8_0: Path, inputs: "Inputs", tmp_path: Path) -> None:
    from tuneline.export.package import package

    source = tmp_path / "sources" / "other" / "adapter_model.safetensors"
    source.parent.mkdir(parents=True)
    source.write_bytes(b"weights")
    (tmp_path / "out").mkdir()
    package(experiment(), reports(), q8_0, replace(inputs, sources=tmp_path / "sources"), tmp_path / "out")
    record = json.loads((tmp_path / "out/provenance.json").read_text())
    found = record["inputs"]["sources"]["other/adapter_model.safetensors"]
    assert found["sha256"] == sha256(b"weights").hexdigest()


def test_a_package_with_the_adapter_alone_needs_room_for_its_files_too(
    q8_0: Path, inputs: "Inputs", tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from tuneline.export.package import package

    folder = tmp_path / "gguf"
    (folder / "base").mkdir(parents=True)
    for name in ("q8_0.gguf", "base/q8_0.gguf", "adapter.gguf"):
        shutil.copyfile(q8_0, folder / name)
    free = 2 * q8_0.stat().st_size
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(total=free, used=0, free=free))
    alone = exporting(experiment(), lora_base="q8_0")
    (tmp_path / "out").mkdir()
    with pytest.raises(EnvironmentProblem, match=f"needs up to {3 * q8_0.stat().st_size:,} bytes, {free:,} are free"):
        package(alone, reports(), folder / "q8_0.gguf", inputs, tmp_path / "out")
    assert list((tmp_path / "out").iterdir()) == []


def test_package_holds_model_modelfile_card_and_lineage(q8_0: Path, inputs: "Inputs", tmp_path: Path) -> None:
    from tuneline.export.package import package

    for name in ("first", "second"):
        (tmp_path / name).mkdir()
        package(experiment(), reports(), q8_0, inputs, tmp_path / name)
    files = contents(tmp_path / "first")
    assert files == contents(tmp_path / "second")
    tokenizer = {"tokenizer/tokenizer.json", "tokenizer/tokenizer_config.json", "tokenizer/chat_template.jinja"}
    assert set(files) == {NAME, "Modelfile", "README.md", "provenance.json"} | tokenizer
    assert verify_model(tmp_path / "first").gguf.name == NAME
    assert files[NAME] == q8_0.read_bytes()
    modelfile = files["Modelfile"].decode()
    assert modelfile.startswith(f"FROM ./{NAME}\n# ChatML")
    assert 'PARAMETER stop "<|im_end|>"' in modelfile
    record = json.loads(files["provenance.json"])
    assert record["files"][NAME]["sha256"] == sha256(files[NAME]).hexdigest()
    assert set(record["files"]) == {NAME, "Modelfile", "README.md"} | tokenizer
    assert set(record["inputs"]) == {"raw", "data", "base", "adapter", "merged", "gguf"}
    assert record["settings"]["augment"]["jobs"] == []
    assert record["metrics"]["verified"]["q8_0"]["n_examples"] == 600


def contents(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_vllm_folder_is_the_merged_model_and_loads(q8_0: Path, inputs: "Inputs", tmp_path: Path) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    from tuneline.export.package import package

    (tmp_path / "out").mkdir()
    package(exporting(experiment(), vllm=True), reports(), q8_0, inputs, tmp_path / "out")
    assert contents(tmp_path / "out/vllm") == contents(inputs.merged)
    assert "generation_config.json" in contents(tmp_path / "out/vllm")
    verify_model(tmp_path / "out")
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "out/vllm")
    assert len(AutoTokenizer.from_pretrained(tmp_path / "out/vllm")) <= model.config.vocab_size


def test_file_of_another_type_is_not_packaged(f16: Path, inputs: "Inputs", tmp_path: Path) -> None:
    from tuneline.export.package import package

    (tmp_path / "out").mkdir()
    with pytest.raises(ModelError, match=r"of type f16, not q8_0"):
        package(experiment(), reports(), f16, inputs, tmp_path / "out")
    assert not list((tmp_path / "out").iterdir())


def test_what_an_earlier_list_left_behind_is_not_packaged(
    q8_0: Path, f16: Path, inputs: "Inputs", tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By the stage: beside the types of today lie the file and the report of a smaller, better one."""
    from tuneline.config.compose import compose
    from tuneline.export.commit import commit_of
    from tuneline.stages import package

    compose(Path("conf"), tmp_path / "params.yaml", ["export.quants=[q8_0]", "export.pick=smallest_within_budget"])
    figures = asdict(reports())
    verified = figures.pop("verified")
    verified["q2_k"] = verified["f16"] | {"size_mib": 0.1}
    for name, report in {**figures, **{f"verified/{name}": figures for name, figures in verified.items()}}.items():
        write_json(tmp_path / f"reports/{name}.json", report)
    (tmp_path / "gguf").mkdir()
    for name, file in {"f16": f16, "q8_0": q8_0, "q2_k": q8_0}.items():
        shutil.copyfile(file, tmp_path / f"gguf/{name}.gguf")
    names = ("ingest_report", "clean_report", "split_report", "train_report", "evaluated", "merge_report")
    paths = {name: tmp_path / f"reports/{name.removesuffix('_report')}.json" for name in names}
    paths["evaluated_merged"] = tmp_path / "reports/merged.json"
    paths |= dict.fromkeys(("sources", "augment_report", "clean_augmented_report"), tmp_path / "none")
    paths |= {"verified": tmp_path / "reports/verified", "params": tmp_path / "params.yaml", "gguf": tmp_path / "gguf"}
    paths |= {name: getattr(inputs, name) for name in ("raw", "data", "base", "adapter", "merged")}
    paths["committed"] = Path("conf")
    words = [(f"--{name.replace('_', '-')}", str(path)) for name, path in {**paths, "out": tmp_path / "out"}.items()]
    monkeypatch.setattr(sys, "argv", ["package", *chain.from_iterable(words)])
    package.main()
    assert [path.name for path in (tmp_path / "out").glob("*.gguf")] == [NAME]
    record = json.loads((tmp_path / "out/provenance.json").read_text())
    assert set(record["metrics"]["verified"]) == {"f16", "q8_0"}
    assert set(record["inputs"]["gguf"]) == {"q8_0.gguf"}
    assert record["git"] == commit_of([Path("conf")]).record()


def write_json(path: Path, value: object) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value))


def test_unpinned_base_is_not_packaged(q8_0: Path, inputs: "Inputs", tmp_path: Path) -> None:
    from tuneline.export.package import package

    it = experiment(name_or_path="a/b", tracked_path="conf/model/x.yaml", revision="main")
    with pytest.raises(ConfigError, match=r"model\.revision: 'main'"):
        package(it, reports(), q8_0, inputs, tmp_path)


def test_missing_report_says_which(tmp_path: Path) -> None:
    from tuneline.export.package import read_reports

    names = ("ingest", "clean", "split", "train", "evaluated", "merge", "merged", "verified")
    paths: dict[str, Any] = {name: tmp_path / f"{name}.json" for name in names}
    for path in paths.values():
        path.write_text("{}")
    assert read_reports(**paths, types=()).verified == {}
    paths["clean"].unlink()
    with pytest.raises(DataError, match=r"clean\.json: no readable report.*dvc repro"):
        read_reports(**paths, types=())
    paths["clean"].write_text("[]")
    with pytest.raises(DataError, match=r"clean\.json: not one flat object of numbers.*dvc repro"):
        read_reports(**paths, types=())
