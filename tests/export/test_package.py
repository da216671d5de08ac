"""The folder to deploy: whole, consistent, the same every time."""

import json
from hashlib import sha256
from pathlib import Path

import pytest

from tests.export.conftest import PEFT_WARNING, experiment, reports
from tuneline.errors import ConfigError, DataError, ModelError

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings(PEFT_WARNING)]

NAME = "sqlama-text_to_sql-lora-q8_0.gguf"


@pytest.fixture(scope="module")
def q8_0(f16: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    from tuneline.export.quantize import quantize

    out = tmp_path_factory.mktemp("quants") / "q8_0.gguf"
    quantize(f16, out, "q8_0")
    return out


@pytest.fixture
def data(tmp_path: Path) -> Path:
    (tmp_path / "data").mkdir()
    (tmp_path / "data/train.jsonl").write_bytes(b"{}\n")
    return tmp_path / "data"


def test_package_holds_model_modelfile_card_and_lineage(
    q8_0: Path, merged: Path, base: Path, data: Path, tmp_path: Path
) -> None:
    from tuneline.export.package import Inputs, package

    for name in ("first", "second"):
        (tmp_path / name).mkdir()
        package(experiment(), reports(), q8_0, Inputs(base, data, merged), tmp_path / name)
    files = {file.name: file.read_bytes() for file in (tmp_path / "first").iterdir()}
    assert files == {file.name: file.read_bytes() for file in (tmp_path / "second").iterdir()}
    assert set(files) == {NAME, "Modelfile", "README.md", "provenance.json"}
    assert files[NAME] == q8_0.read_bytes()
    modelfile = files["Modelfile"].decode()
    assert modelfile.startswith(f"FROM ./{NAME}\n# ChatML")
    assert 'PARAMETER stop "<|im_end|>"' in modelfile
    record = json.loads(files["provenance.json"])
    assert record["files"][NAME] == sha256(files[NAME]).hexdigest()
    assert set(record["files"]) == {NAME, "Modelfile", "README.md"}
    assert set(record["inputs"]) == {"base", "data", "merged"}
    assert record["metrics"]["verified"]["q8_0"]["n_examples"] == 600


def test_file_of_another_type_is_not_packaged(f16: Path, merged: Path, base: Path, data: Path, tmp_path: Path) -> None:
    from tuneline.export.package import Inputs, package

    (tmp_path / "out").mkdir()
    with pytest.raises(ModelError, match=r"of type f16, not q8_0"):
        package(experiment(), reports(), f16, Inputs(base, data, merged), tmp_path / "out")
    assert not list((tmp_path / "out").iterdir())


def test_unpinned_base_is_not_packaged(q8_0: Path, merged: Path, base: Path, data: Path, tmp_path: Path) -> None:
    from tuneline.export.package import Inputs, package

    it = experiment(name_or_path="a/b", tracked_path="conf/model/x.yaml", revision="main")
    with pytest.raises(ConfigError, match=r"model\.revision: 'main'"):
        package(it, reports(), q8_0, Inputs(base, data, merged), tmp_path)


def test_missing_report_says_which(tmp_path: Path) -> None:
    from tuneline.export.package import read_report

    with pytest.raises(DataError, match=r"none\.json: no readable report.*dvc repro"):
        read_report(tmp_path / "none.json")
    (tmp_path / "list.json").write_text("[]")
    with pytest.raises(DataError, match=r"list\.json: not one JSON object"):
        read_report(tmp_path / "list.json")
