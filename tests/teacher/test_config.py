"""conf/augment: what may stand there, and that no key does."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tuneline.config.compose import compose_unvalidated
from tuneline.config.params import read_values, validated
from tuneline.errors import ConfigError

CONF = Path(__file__).resolve().parents[2] / "conf"
Problem = Callable[..., str]


@pytest.fixture(scope="session")
def composed(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., dict[str, Any]]:
    out = tmp_path_factory.mktemp("composed") / "params.yaml"

    def compose(*overrides: str) -> dict[str, Any]:
        compose_unvalidated(CONF, out, list(overrides))
        values = read_values(out)
        assert isinstance(values, dict)
        return values

    return compose


@pytest.fixture
def problem(composed: Callable[..., dict[str, Any]]) -> Problem:
    def explain(*overrides: str) -> str:
        with pytest.raises(ConfigError) as caught:
            validated(composed("augment=paraphrase", *overrides), "conf")
        assert "\n" not in str(caught.value)
        return str(caught.value).removeprefix("conf: ")

    return explain


def test_the_default_is_off(composed: Callable[..., dict[str, Any]]) -> None:
    params = validated(composed(), "conf")
    assert (params.augment.endpoint, params.augment.jobs) == (None, ())


def test_the_example_is_valid_and_its_template_is_there(composed: Callable[..., dict[str, Any]]) -> None:
    augment = validated(composed("augment=paraphrase"), "conf").augment
    assert all((CONF / "augment" / "templates" / job.template).is_file() for job in augment.jobs)


@pytest.mark.parametrize(
    ("override", "line"),
    [
        ("augment.endpoint=null", "augment.endpoint: null, the jobs need it; choose augment=paraphrase"),
        (
            "augment.jobs=[]",
            "augment.jobs: [], allowed beside an endpoint and stages is at least one; choose",
        ),
        ("augment.stages=[]", "augment.stages: [], allowed with jobs is [teacher]; choose augment=off"),
        (
            "augment.reported=conf/augment/off.yaml",
            "augment.reported: 'conf/augment/off.yaml', allowed with jobs is data/augmented",
        ),
        (
            "augment.examples=data/clean/examples.jsonl",
            "augment.examples: 'data/clean/examples.jsonl', allowed with",
        ),
        ("augment.jobs.0.source=test", "augment.jobs[0].source: 'test', allowed is a source with role pool: pool"),
        ("augment.jobs.0.target=null", "augment.jobs[0].target: null, allowed with kind rewrite is answer or prompt"),
        ("augment.jobs.0.kind=generate", "augment.jobs[0].target: 'prompt', allowed with kind generate is null"),
        ("augment.jobs.0.kind=invent", "augment.jobs[0].kind: 'invent', allowed is rewrite, generate"),
        (
            "augment.jobs.0.template=../../params.yaml",
            "augment.jobs[0].template: '../../params.yaml', allowed",
        ),
        ("augment.endpoint.base_url=localhost:8000", "augment.endpoint.base_url: 'localhost:8000', allowed is an addr"),
        ("augment.endpoint.base_url=http://[::1/v1", "augment.endpoint.base_url: 'http://[::1/v1', allowed is an addr"),
        ("augment.endpoint.concurrency=0", "augment.endpoint.concurrency: 0, allowed is a value > 0"),
        ("data.meta_fields=[database,teacher]", "data.meta_fields: 'teacher' is where augment writes a row's origin"),
    ],
)
def test_a_setting_that_cannot_work_is_one_clear_line(override: str, line: str, problem: Problem) -> None:
    key, value = override.split("=", 1)
    if ".jobs.0." in key:  # Hydra's overrides do not reach into lists
        job = {"name": "x", "kind": "rewrite", "source": "pool", "n_rows": 1, "template": "a.jinja", "target": "prompt"}
        job |= {"temperature": 0.5, "max_tokens": 5, key.rsplit(".")[-1]: None if value == "null" else value}
        listed = ",".join(f"{name}:{'null' if setting is None else setting}" for name, setting in job.items())
        override = f"augment.jobs=[{{{listed}}}]"
    elif "[::1" in value:
        override = f"{key}='{value}'"
    assert problem(override).startswith(line)


def test_two_jobs_need_two_names(composed: Callable[..., dict[str, Any]]) -> None:
    values = composed("augment=paraphrase")
    values["augment"]["jobs"] *= 2
    with pytest.raises(ConfigError, match=r"augment\.jobs\[1\]\.name: 'paraphrase', allowed is a name no other"):
        validated(values, "conf")


@pytest.mark.parametrize(
    "override",
    [
        "augment.endpoint.api_key_env=sk-my-own-secret",
        "augment.endpoint.base_url=https://me:sk-my-own-secret@example.com/v1",
        "augment.endpoint.base_url='https://example.com/v1?key=sk-my-own-secret'",
    ],
)
def test_a_key_in_conf_is_refused_and_not_repeated(override: str, problem: Problem) -> None:
    line = problem(override)
    assert line.startswith(override.split("=")[0])
    assert "secret" not in line
