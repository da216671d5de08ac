"""The real thing: llama.cpp's own server on loopback, asked by the stage as DVC runs it."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tuneline.config.compose import compose
from tuneline.data.record_files import iterate_rejected, read_examples, write_examples
from tuneline.data.records import Message, make_example

ROOT = Path(__file__).resolve().parents[2]
TABLE = "CREATE TABLE people (id INTEGER, name TEXT, age INTEGER);\n\nQuestion: "
QUESTIONS = ("How many people are there?", "Which names are there?", "Who is older than 30?")
pytestmark = pytest.mark.slow


def run_stage(folder: Path, url: str, name: str, *overrides: str) -> "subprocess.CompletedProcess[str]":
    """`python -m tuneline.stages.augment` with the shipped templates; its outputs start with `name`."""
    endpoint = (f"augment.endpoint.base_url={url}", "augment.endpoint.model=sql", *overrides)
    # An untuned model knows no end of a turn: it needs room until it has ended its document.
    job = "name:reworded,kind:rewrite,source:pool,n_rows:3,template:rewrite_question.jinja,target:prompt"
    jobs = f"augment.jobs=[{{{job},temperature:0.8,max_tokens:320}}]"
    compose(
        ROOT / "conf",
        folder / "params.yaml",
        ["augment=paraphrase", *endpoint, jobs, "augment.max_rejected_fraction=1.0"],
    )
    arguments = {
        "params": folder / "params.yaml",
        "examples": folder / "examples.jsonl",
        "templates": ROOT / "conf" / "augment" / "templates",
        "cache": folder / "cache",
        "out": folder / f"{name}.jsonl",
        "rejected": folder / f"{name}_rejected.jsonl",
        "metrics": folder / f"{name}.json",
    }
    return subprocess.run(
        [
            sys.executable,
            "-m",
            "tuneline.stages.augment",
            *(part for k, v in arguments.items() for part in (f"--{k}", str(v))),
        ],
        env={**os.environ, "PYTHONPATH": str(ROOT / "src")},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    turns = [(Message("user", TABLE + question), Message("assistant", "SELECT 1;")) for question in QUESTIONS]
    rows = [make_example("pool", number, pair, None, {"database": "people"}) for number, pair in enumerate(turns, 1)]
    write_examples(tmp_path / "examples.jsonl", rows)
    return tmp_path


def test_a_real_server_rewrites_rows_once(server: tuple[str, Path], folder: Path) -> None:
    url, log = server
    first = run_stage(folder, url, "first")
    assert first.returncode == 0, first.stderr
    assert first.stdout.startswith("teacher: 3 requests sent (")
    n_served = log.read_text().count("POST /v1/chat/completions")
    assert n_served == 3

    new, lost = read_examples(folder / "first.jsonl"), list(iterate_rejected(folder / "first_rejected.jsonl"))
    assert len(new) + len(lost) == 3
    assert new
    assert all(example.messages[0].content.strip() for example in new)
    figures = json.loads((folder / "first.json").read_text())
    # The server counts its own tokens: fewer than the bytes and the allowance that the limit is checked with.
    assert 0 < figures["prompt_tokens"] < 3 * (700 + 256)
    assert 0 < figures["completion_tokens"] <= 3 * 320

    second = run_stage(folder, url, "second")
    assert second.stdout.startswith("teacher: 0 requests sent (0 tokens), 3 answers from the cache")
    assert log.read_text().count("POST /v1/chat/completions") == n_served
    for suffix in (".jsonl", "_rejected.jsonl", ".json"):
        assert (folder / f"second{suffix}").read_bytes() == (folder / f"first{suffix}").read_bytes()


def test_a_row_beyond_the_servers_context_is_rejected_with_its_words(server: tuple[str, Path], folder: Path) -> None:
    long = make_example("pool", 1, (Message("user", "SELECT title " * 600), Message("assistant", "a")), None, {})
    short = read_examples(folder / "examples.jsonl")
    write_examples(folder / "examples.jsonl", [long, *short[:2]])
    done = run_stage(folder, server[0], "out")
    lost = [row for row in iterate_rejected(folder / "out_rejected.jsonl") if row.rule == "refused"]
    assert [row.line for row in lost] == [1], done.stderr
    assert "maximum context length" in lost[0].reason
