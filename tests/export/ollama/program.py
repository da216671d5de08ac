"""Ollama's half of the hand-over: tests/export/ollama/render.go, compiled once where Go is installed."""

import json
import os
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

from tuneline.data.records import Message

SOURCE = Path(__file__).with_name("render.go")


@dataclass(frozen=True)
class Ollama:
    program: Path

    def chat(self, modelfile: str, talks: Sequence[Sequence[Message]]) -> list[str]:
        """The prompt of each conversation."""
        return self._render(modelfile, [{"messages": list(map(as_dict, talk))} for talk in talks])

    def generate(self, modelfile: str, prompt: str, system: str | None = None) -> str:
        """The prompt of a bare question, as `ollama run` asks it."""
        (text,) = self._render(modelfile, [{"prompt": prompt} | ({} if system is None else {"system": system})])
        return text

    def _render(self, modelfile: str, requests: Sequence[Mapping[str, object]]) -> list[str]:
        asked = json.dumps({"modelfile": modelfile, "requests": requests})
        done = subprocess.run([self.program], input=asked, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        texts: list[str] = json.loads(done.stdout)
        return texts


def compiled(folder: Path) -> Ollama:
    """Skips the test where there is no Go."""
    if shutil.which("go") is None:
        pytest.skip("no Go here to run the Modelfile's template with; Debian's package is golang-go")
    environment = os.environ | {"GO111MODULE": "off", "GOFLAGS": "", "CGO_ENABLED": "0"}
    subprocess.run(["go", "build", "-o", str(folder / "render"), str(SOURCE)], env=environment, check=True)
    return Ollama(folder / "render")


def as_dict(message: Message) -> dict[str, str]:
    return {"role": message.role, "content": message.content}
