"""Cleaning in a Ray cluster gives the very bytes that the processes of one machine give."""

import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest

from tuneline.benchmarks.corpus import SOURCE, chat_rows, write_rows
from tuneline.config.schema import CleanConfig, SourceConfig
from tuneline.data import cleaning
from tuneline.data.accounting import Tally
from tuneline.data.cleaning import clean_files
from tuneline.data.engines import engine
from tuneline.data.writing import CleanOutputs
from tuneline.errors import EnvironmentProblem

MakeSource = Callable[..., SourceConfig]


def clean(folder: Path, name: str, rules: CleanConfig, source: SourceConfig) -> tuple[Tally, list[bytes]]:
    outputs = CleanOutputs(*(folder / f"{name}-{part}" for part in ("kept", "gone", "clusters")))
    tally = clean_files([folder / "given.jsonl"], outputs, [source], rules, lambda items: items, lambda _: None)
    return tally, [path.read_bytes() for path in (outputs.examples, outputs.rejected, outputs.clusters)]


@pytest.mark.slow
@pytest.mark.filterwarnings(
    "ignore::FutureWarning", "ignore::DeprecationWarning", "ignore::ResourceWarning"
)  # Ray's own
def test_two_ray_workers_give_the_bytes_of_the_local_engine(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, all_rules: CleanConfig, make_source: MakeSource
) -> None:
    monkeypatch.setattr(cleaning, "_PART_BYTES", 400_000)  # about ten parts
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    write_rows(tmp_path / "given.jsonl", chat_rows(2500, 3))
    source = make_source(SOURCE, path="given.jsonl")
    two = all_rules.model_copy(update={"workers": 2})
    local_tally, local = clean(tmp_path, "local", two, source)
    ray_tally, in_ray = clean(tmp_path, "ray", two.model_copy(update={"engine": "ray"}), source)
    assert in_ray == local
    assert ray_tally == local_tally
    assert {"near_duplicates", "pii"} & {rule for _, rule in local_tally.rejected} == {"near_duplicates"}
    assert local_tally.changed["email"] > 0


class FakeRay(ModuleType):
    """Stands in for Ray, which takes seconds to find that no cluster answers; remembers where it looked."""

    def __init__(self, error: BaseException, monkeypatch: pytest.MonkeyPatch) -> None:
        super().__init__("ray")
        self.data = ModuleType("ray.data")
        self.error = error
        self.asked: list[dict[str, object]] = []
        monkeypatch.setitem(sys.modules, "ray", self)
        monkeypatch.setitem(sys.modules, "ray.data", self.data)

    def init(self, **options: object) -> None:
        self.asked.append(options)
        raise self.error


@pytest.mark.parametrize(
    "error", [ConnectionError("Could not find any\nrunning Ray instance"), ValueError("not\na host:port")]
)
def test_a_cluster_that_does_not_answer_is_one_line_naming_the_variable_and_the_fix(
    error: Exception, monkeypatch: pytest.MonkeyPatch
) -> None:
    ray = FakeRay(error, monkeypatch)
    monkeypatch.setenv("RAY_ADDRESS", "10.0.0.1:6379")
    with pytest.raises(EnvironmentProblem) as caught, engine("ray", 2):
        pass
    reason = " ".join(str(error).split())
    assert str(caught.value) == (
        f"RAY_ADDRESS: no Ray cluster at 10.0.0.1:6379 ({reason}); correct it, or unset it to use this machine"
    )
    assert [(asked["address"], asked["num_cpus"]) for asked in ray.asked] == [("10.0.0.1:6379", None)]


def test_without_an_address_ray_gets_the_configured_number_of_cpus(monkeypatch: pytest.MonkeyPatch) -> None:
    ray = FakeRay(KeyboardInterrupt(), monkeypatch)  # far enough
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    with pytest.raises(KeyboardInterrupt), engine("ray", 2):
        pass
    assert [(asked["address"], asked["num_cpus"]) for asked in ray.asked] == [(None, 2)]


def test_without_ray_the_way_to_have_it_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    missing = r"clean\.engine: ray is not installed; pip install 'tuneline\[ray\]'"
    with pytest.raises(EnvironmentProblem, match=missing), engine("ray", 2):
        pass
