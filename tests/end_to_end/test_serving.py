"""The experiment's own packaged model behind the server answers as the recorded evaluation says."""

import json
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from tests.serving.server import environment, serving
from tuneline.serving.integrity import verify_model
from tuneline.serving.server import free_port

pytestmark = pytest.mark.slow

N_QUESTIONS = 40


@pytest.fixture(scope="module")
def recorded(experiment: Path) -> list[dict[str, str]]:
    """Questions and the answers that verify recorded for the packaged type."""
    packaged = verify_model(experiment / "models/deploy").record["settings"]["shipped"]
    lines = (experiment / f"data/predictions/gguf/{packaged}.jsonl").read_text(encoding="utf-8").splitlines()
    return [json.loads(line) for line in lines[:N_QUESTIONS]]


@pytest.fixture(scope="module")
def client(experiment: Path) -> Iterator[Any]:
    from openai import OpenAI

    port = free_port()
    with (
        serving(experiment / "models/deploy", port, "--parallel", "8"),
        OpenAI(base_url=f"http://127.0.0.1:{port}/v1", api_key="none", max_retries=0) as client,
    ):
        yield client


def ask(client: Any, row: dict[str, str]) -> tuple[str, str]:
    """The answer, and why it ended."""
    messages = [{"role": "user", "content": row["prompt"]}]
    choice = client.chat.completions.create(model="any", messages=messages).choices[0]
    return choice.message.content.strip(), choice.finish_reason


def test_the_server_answers_as_recorded_and_stops_by_itself(client: Any, recorded: list[dict[str, str]]) -> None:
    answers = [ask(client, row) for row in recorded]
    assert {reason for _, reason in answers} == {"stop"}
    assert [answer for answer, _ in answers] == [row["predicted"].strip() for row in recorded]


def test_eight_clients_at_once_get_the_answers_of_one(client: Any, recorded: list[dict[str, str]]) -> None:
    alone = [ask(client, row) for row in recorded]
    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(lambda row: ask(client, row), recorded)) == alone


def test_a_person_chats_in_the_terminal(experiment: Path, recorded: list[dict[str, str]]) -> None:
    question = recorded[0]["prompt"].replace("\n", " ")  # a line is a turn
    command = [sys.executable, "-m", "tuneline.commands.main", "chat", str(experiment / "models/deploy")]
    said = f"{question}\n/reset\n{question}\n/exit\n"
    chat = subprocess.run(command, input=said, env=environment(), capture_output=True, text=True, check=True)
    first, second = chat.stdout.split("forgotten")
    assert "SELECT" in first
    assert first.split("> ")[1].strip() in second  # the same question alone has the same answer


def test_streamed_pieces_are_the_recorded_answer(client: Any, recorded: list[dict[str, str]]) -> None:
    messages = [{"role": "user", "content": recorded[0]["prompt"]}]
    stream = client.chat.completions.create(model="any", messages=messages, stream=True)
    pieces = [choice.delta.content or "" for chunk in stream for choice in chunk.choices]
    assert len(pieces) > 2
    assert "".join(pieces).strip() == recorded[0]["predicted"].strip()
