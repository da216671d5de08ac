"""Prompts as llama.cpp's server makes them: for the templates of published models those of Transformers."""

import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests.export.conftest import PEFT_WARNING, convert_folder
from tests.export.miniatures import MINIATURES, base_config, save_base
from tests.published import published
from tuneline.data.records import Json, Message, ToolCall
from tuneline.errors import ModelError

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings(PEFT_WARNING)]

# template, and the miniature whose special tokens it writes
PUBLISHED = (
    *(("llama3", "llama3"), ("llama3_1", "llama3"), ("llama3_2", "llama3")),
    *(("qwen2_5", "qwen2"), ("qwen2_5_training", "qwen2"), ("qwen3", "qwen3"), ("qwen3_training", "qwen3")),
    *(("gemma", "gemma3"), ("gemma3", "gemma3"), ("phi3", "phi3"), ("phi3_5", "phi3")),
)
WEATHER: Json = {
    "type": "function",
    "function": {
        "name": "weather",
        "description": "Weather of a city, as \"1 < 2\" & 'more'.",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}, "days": {"type": "integer"}}},
    },
}
TWO_CALLS = (
    Message("user", "Rain in Łódź or Rome?"),
    Message("assistant", "", (ToolCall("weather", {"city": "Łódź", "days": 2}),)),
    Message("tool", '{"rain": "<b>1.5</b>"}'),
    Message("assistant", "Let me see.", (ToolCall("weather", {"city": "Rome", "days": 1}),)),
    Message("tool", "none"),
)


@pytest.fixture(scope="module")
def bases(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folders = {mini: tmp_path_factory.mktemp(mini) / "base" for _, mini in PUBLISHED}
    for mini, folder in folders.items():
        save_base(MINIATURES[mini], folder)
    return folders


@pytest.mark.parametrize(("template", "mini"), PUBLISHED, ids=lambda value: value)
def test_published_templates_render_the_same_in_llama_cpp(
    template: str, mini: str, bases: dict[str, Path], tmp_path: Path
) -> None:
    from tuneline.export.golden import compare_templates
    from tuneline.export.served import open_served
    from tuneline.model.template import encode_prompt, tools_problem
    from tuneline.model.tokenizers import load_tokenizer

    folder = Path(shutil.copytree(bases[mini], tmp_path / "model"))
    (folder / "chat_template.jinja").write_text(published(template), encoding="utf-8")
    tokenizer = load_tokenizer(base_config(MINIATURES[mini], folder))
    tokenizer.save_pretrained(folder)
    with open_served(convert_folder(folder, tmp_path / "model.gguf")) as served:
        compared = compare_templates(template, tokenizer, served.prompt_ids)
        if tools_problem(tokenizer, TWO_CALLS, (WEATHER,)) is None:
            assert served.prompt_ids(TWO_CALLS, (WEATHER,)) == encode_prompt(tokenizer, TWO_CALLS, (WEATHER,))
    assert {"no system prompt", "several turns", "unusual text", "empty question"}.isdisjoint(compared.refused)


def test_file_that_the_server_cannot_load_is_one_line(f16: Path, tmp_path: Path) -> None:
    from tuneline.export.served import open_served

    (tmp_path / "cut.gguf").write_bytes(f16.read_bytes()[:-5000])
    with (
        pytest.raises(ModelError, match=r"cut\.gguf: llama-server does not start: .+") as caught,
        open_served(tmp_path / "cut.gguf"),
    ):
        pass
    assert "\n" not in str(caught.value)


def test_nothing_from_the_environment_changes_the_template(f16: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from tuneline.export.served import open_served

    asked = (Message("user", "?"),)
    with open_served(f16) as served:
        want = served.prompt_ids(asked, ())
    monkeypatch.setenv("LLAMA_ARG_CHAT_TEMPLATE", "{{ messages }}")
    with open_served(f16) as served:
        assert served.prompt_ids(asked, ()) == want


def test_server_ends_with_the_block_even_when_it_fails(f16: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from tuneline.export import served

    started: list[int] = []
    popen = subprocess.Popen

    def recorded(*args: object, **kwargs: object) -> object:
        process: Any = popen(*args, **kwargs)  # type: ignore[call-overload]
        started.append(process.pid)
        return process

    monkeypatch.setattr(subprocess, "Popen", recorded)
    with pytest.raises(RuntimeError, match="stop here"), served.open_served(f16):
        raise RuntimeError("stop here")
    assert len(started) == 1
    with pytest.raises(ProcessLookupError):
        os.kill(started[0], 0)
