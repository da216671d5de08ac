"""The stage as DVC runs it."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest

from tests.teacher.conftest import FakeEndpoint, augment, completion, switched_off
from tuneline.config.schema import AugmentConfig, EndpointConfig, SourceConfig, SplitConfig, TeacherJobConfig
from tuneline.data.record_files import iterate_rejected, read_examples
from tuneline.data.records import Example
from tuneline.entry import run
from tuneline.stages import augment as stage

ROOT = Path(__file__).resolve().parents[2]
RunStage = Callable[[AugmentConfig], None]
POOL = SourceConfig.model_construct(name="pool", role="pool", task_prefix=None)
SPLIT = SplitConfig.model_construct(val_fraction=0.0, test_fraction=0.0, salt="tuneline")
KEY = "sk-very-secret-0123456789"


class Outputs:
    """Where the stage writes."""

    def __init__(self, folder: Path) -> None:
        self.out, self.rejected, self.metrics = (folder / name for name in ("out.jsonl", "lost.jsonl", "m.json"))
        self.cache = folder / "cache"


@pytest.fixture
def outputs(tmp_path: Path) -> Outputs:
    return Outputs(tmp_path)


@pytest.fixture
def run_stage(examples: Path, templates: Path, outputs: Outputs, monkeypatch: pytest.MonkeyPatch) -> RunStage:
    def run_it(config: AugmentConfig) -> None:
        paths = {"params": Path("params.yaml"), "examples": examples, "templates": templates, **vars(outputs)}
        monkeypatch.setattr(sys, "argv", ["stage", *(part for k, v in paths.items() for part in (f"--{k}", str(v)))])
        params = SimpleNamespace(augment=config, data=SimpleNamespace(sources=(POOL,)), split=SPLIT, seed=42)
        monkeypatch.setattr(stage, "read_params", lambda _: params)
        run(stage.main)

    return run_it


def test_rows_come_out_with_rejected_ones_and_counts_and_a_second_run_asks_nothing(
    run_stage: RunStage,
    outputs: Outputs,
    config: EndpointConfig,
    rewrite: TeacherJobConfig,
    fake: FakeEndpoint,
    rows: list[Example],
    capsys: pytest.CaptureFixture[str],
) -> None:
    fake.reply = lambda body: completion("" if "question 3 " in str(body) else "indeed")
    run_stage(augment(config, rewrite))
    new, lost = read_examples(outputs.out), list(iterate_rejected(outputs.rejected))
    assert [example.line for example in new] == [example.line for example in rows if example.line != 4]
    assert [(row.line, row.rule) for row in lost] == [(4, "empty")]
    figures = json.loads(outputs.metrics.read_text())
    assert (figures["n_read"], figures["n_kept"], figures["n_rejected_by_empty"]) == (12, 11, 1)
    origin = new[0].meta["teacher"]
    assert isinstance(origin, dict)
    assert f"{origin['request_sha256']}.json" in {path.name for path in outputs.cache.rglob("*.json")}
    assert "teacher: 12 requests sent (180 tokens), 0 answers from the cache" in capsys.readouterr().out

    before = [path.read_bytes() for path in (outputs.out, outputs.rejected, outputs.metrics)]
    run_stage(augment(config, rewrite))
    assert [path.read_bytes() for path in (outputs.out, outputs.rejected, outputs.metrics)] == before
    assert len(fake.bodies) == 12


def test_a_failed_run_leaves_reasons_and_no_rows(
    run_stage: RunStage,
    outputs: Outputs,
    config: EndpointConfig,
    rewrite: TeacherJobConfig,
    fake: FakeEndpoint,
    capsys: pytest.CaptureFixture[str],
) -> None:
    fake.reply = lambda _: completion("cut", reason="length")
    with pytest.raises(SystemExit):
        run_stage(augment(config, rewrite))
    assert not outputs.out.exists()
    assert len(list(iterate_rejected(outputs.rejected))) == 12
    error = capsys.readouterr().err.splitlines()[-1]
    assert error.startswith(
        "error: 12 of 12 rows rejected (1), so no row is left; most often cut_off (12), first pool:1"
    )


def test_the_key_is_in_no_file_and_no_output(
    run_stage: RunStage,
    outputs: Outputs,
    config: EndpointConfig,
    rewrite: TeacherJobConfig,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("TEACHER_KEY", KEY)
    run_stage(augment(config.model_copy(update={"api_key_env": "TEACHER_KEY"}), rewrite))
    written = [path.read_text() for path in outputs.out.parent.rglob("*") if path.is_file()]
    assert len(written) > 12
    shown = capsys.readouterr()
    assert KEY not in "".join([*written, shown.out, shown.err])


def test_switched_off_it_writes_empty_files_and_touches_no_network(tmp_path: Path) -> None:
    program = (
        "import sys, socket\n"
        "def refuse(*args, **kwargs): raise AssertionError('a connection')\n"
        "socket.socket.connect = refuse\n"
        "from types import SimpleNamespace\n"
        "from tuneline.config.schema import AugmentConfig\n"
        "from tuneline.stages import augment\n"
        f"off = AugmentConfig.model_validate_json({switched_off().model_dump_json()!r})\n"
        "params = SimpleNamespace(augment=off, data=SimpleNamespace(sources=()), split=None, seed=1)\n"
        "augment.read_params = lambda _: params\n"
        "augment.main()\n"
        "print([name for name in ('openai', 'httpx', 'httpx2', 'torch', 'transformers') if name in sys.modules])\n"
    )
    paths = {
        name: tmp_path / name for name in ("params", "examples", "templates", "cache", "out", "rejected", "metrics")
    }
    done = subprocess.run(
        [sys.executable, "-c", program, *(part for k, v in paths.items() for part in (f"--{k}", str(v)))],
        env={**os.environ, "PYTHONPATH": str(ROOT / "src")},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.splitlines()[-1] == "[]"
    assert paths["out"].read_bytes() == paths["rejected"].read_bytes() == b""
    assert json.loads(paths["metrics"].read_text())["n_read"] == 0
    assert not paths["cache"].exists()
