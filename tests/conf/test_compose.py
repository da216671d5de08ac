"""From conf/ and overrides to params.yaml."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tuneline.config.digest import conf_digest
from tuneline.config.params import read_params, read_values
from tuneline.errors import ConfigError

Values = dict[str, Any]


def test_params_yaml_is_what_conf_composes(by_hydra: Callable[..., Values], pytestconfig: pytest.Config) -> None:
    assert by_hydra() == read_values(pytestconfig.rootpath / "params.yaml"), "run `make params`"


@pytest.mark.parametrize("method", ["lora", "qlora", "dora", "rslora"])
def test_a_value_of_the_adapter_can_be_set(method: str, by_hydra: Callable[..., Values]) -> None:
    assert by_hydra(f"method={method}", "lora.r=32")["lora"]["r"] == 32


@pytest.mark.parametrize(
    ("overrides", "word"),
    [
        (["method=full", "lora.r=32"], "lora.r"),
        (["lora.rr=3"], "lora.rr"),
        (["method=prefix"], "method/prefix"),
        (["metod=lora"], "metod"),
        (["lora.r==3"], "lora.r"),
    ],
)
def test_an_override_that_fits_nothing_is_one_line(
    overrides: list[str], word: str, by_hydra: Callable[..., Values]
) -> None:
    with pytest.raises(ConfigError) as caught:
        by_hydra(*overrides)
    assert word in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(("lora_base", "stages"), [("null", []), ("q8_0", ["q8_0"])])
def test_the_adapter_alone_has_stages_when_it_is_asked_for(
    lora_base: str, stages: list[str], by_hydra: Callable[..., Values]
) -> None:
    assert by_hydra(f"export.lora_base={lora_base}")["export"]["lora_bases"] == stages


def test_verified_follows_outtype_and_quants(by_hydra: Callable[..., Values]) -> None:
    export = by_hydra("export.outtype=bf16", "export.quants=[q6_k]")["export"]
    assert export["verified"] == ["bf16", "q6_k"]


@pytest.mark.parametrize(
    ("precision", "dtype"),
    [("fp32", "float32"), ("bf16", "bfloat16"), ("fp16", "float16")],
)
def test_merge_follows_the_precision(precision: str, dtype: str, by_hydra: Callable[..., Values]) -> None:
    values = by_hydra("method=qlora", "hardware=h100_80gb", f"hardware.precision={precision}")
    assert values["merge"]["dtype"] == values["quantization"]["bnb_4bit_compute_dtype"] == dtype


def test_the_rate_follows_model_and_family(by_hydra: Callable[..., Values]) -> None:
    for method, family in (("full", "full"), ("dora", "adapter")):
        values = by_hydra("model=qwen3_8b", f"method={method}")
        assert values["recipe"]["phases"]["sft"]["learning_rate"] == values["model"]["learning_rate"][family]


@pytest.fixture
def project(conf: Path, tmp_path: Path) -> Path:
    shutil.copytree(conf, tmp_path / "conf", ignore=shutil.ignore_patterns("__pycache__"))
    return tmp_path


def test_the_digest_is_of_the_folder_that_is_composed(project: Path) -> None:
    # a queued experiment composes in a copy of the repository
    from tuneline.config.compose import compose

    with (project / "conf/config.yaml").open("a", encoding="utf-8") as file:
        file.write("# edited in the copy\n")
    params = compose(project / "conf", project / "params.yaml", [])
    assert params.conf_digest == conf_digest(project / "conf")
    assert read_params(project / "params.yaml") == params


@pytest.mark.parametrize("override", ["lora.r=abc", "lora.rr=3", "model=qwen3_8b", "+foo=1", "~seed"])
def test_an_invalid_configuration_leaves_the_old_params(override: str, project: Path) -> None:
    from tuneline.config.compose import compose

    out = project / "params.yaml"
    out.write_text("old\n", encoding="utf-8")
    with pytest.raises(ConfigError):
        compose(project / "conf", out, [override])
    assert out.read_text(encoding="utf-8") == "old\n"
    assert sorted(path.name for path in project.iterdir()) == ["conf", "params.yaml"]


def test_a_folder_without_config_is_told(tmp_path: Path) -> None:
    from tuneline.config.compose import compose

    with pytest.raises(ConfigError, match=r"config\.yaml: no such file; run this in the repository root"):
        compose(tmp_path, tmp_path / "params.yaml", [])


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"a: 1\nb: [1\nc: 2\n", r"train/default\.yaml:3: not YAML: while parsing a flow sequence, expected"),
        (b"a: 1\n\na: 2\n", r"train/default\.yaml:3: not YAML: .*found duplicate key a"),
        (b"a: 1\nb: \0\n", r"train/default\.yaml:2: not YAML: special characters"),
        (b"a: caf\xe9\n", r"train/default\.yaml: not UTF-8"),
    ],
)
def test_a_file_that_is_no_yaml_is_one_line_with_its_place(content: bytes, message: str, project: Path) -> None:
    from tuneline.config.compose import compose

    (project / "conf/train/default.yaml").write_bytes(content)
    with pytest.raises(ConfigError, match=message) as caught:
        compose(project / "conf", project / "params.yaml", [])
    assert "\n" not in str(caught.value)


def test_a_file_that_cannot_be_read_is_named(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from tuneline.config import compose as module

    def refuse(**_: object) -> None:
        raise PermissionError(13, "Permission denied", "conf/seed.yaml")

    monkeypatch.setattr(module, "compose_and_dump", refuse)
    with pytest.raises(ConfigError, match=r"^conf/seed\.yaml: Permission denied"):
        module.compose(project / "conf", project / "params.yaml", [])
