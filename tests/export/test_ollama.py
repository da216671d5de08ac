"""Modelfiles run by Go's own text/template, which Ollama uses: the model is asked what training asked."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING
from unicodedata import ucd_3_2_0

import pytest
from msgspec.structs import replace

from tests.export.miniatures import MINIATURES, base_config, save_tokenizer
from tests.export.ollama.program import Ollama, compiled
from tests.published import published
from tuneline.data.records import Message
from tuneline.errors import ConfigError
from tuneline.export.modelfile import FAMILIES, Family, Match, modelfile

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

pytestmark = pytest.mark.slow

NAMES = pytest.mark.parametrize("family", FAMILIES, ids=lambda family: family.name)
ODD = ' say "hi" \\n {{ .Content }} {{/* no */}} {{- end }} <b>&amp;\t`é` 東京 '
TALK = (
    Message("system", 'Be "brief".\n\\ {{ now }}'),
    Message("user", ODD),
    Message("assistant", f"Yes\n\n{ODD}"),
    Message("user", "And?"),
)
# template of a published model, and the miniature whose special tokens it writes
PUBLISHED = (
    *(("llama3", "llama3"), ("qwen2_5", "qwen2"), ("qwen3", "qwen3"), ("gemma", "gemma3"), ("gemma3", "gemma3")),
    *(("phi3", "phi3"), ("phi3_5", "phi3")),
)


@pytest.fixture(scope="module")
def ollama(tmp_path_factory: pytest.TempPathFactory) -> Ollama:
    return compiled(tmp_path_factory.mktemp("go"))


def spoken(family: Family, messages: Sequence[Message] = TALK) -> tuple[Message, ...]:
    return tuple(message for message in messages if message.role in family.turns)


def written(family: Family, system: str | None = None) -> str:
    return modelfile("m.gguf", Match(family, None), "</s>", 512, system)


@NAMES
def test_go_renders_a_conversation_as_our_renderer_does(family: Family, ollama: Ollama) -> None:
    talk = spoken(family)
    talks = [talk, talk[-1:], talk[-3:], [replace(talk[-1], content="")]]
    assert ollama.chat(written(family), talks) == [family.render(one) for one in talks]


@NAMES
def test_a_bare_prompt_is_a_question(family: Family, ollama: Ollama) -> None:
    asked = Message("user", ODD)
    assert ollama.generate(written(family), ODD) == family.render([asked])
    if "system" in family.turns:
        system = Message("system", 'Be "brief".')
        assert ollama.generate(written(family), ODD, system.content) == family.render([system, asked])
        assert ollama.generate(written(family, system.content), ODD) == family.render([system, asked])
        assert ollama.generate(written(family, "Other."), ODD, system.content) == family.render([system, asked])


@NAMES
def test_an_answer_that_comes_last_is_continued(family: Family, ollama: Ollama) -> None:
    talk = spoken(family)
    closed = family.render(talk).removesuffix(family.opening)
    (text,) = ollama.chat(written(family), [[*talk, Message("assistant", "SELECT")]])
    assert text == closed + family.turns["assistant"][0] + "SELECT"


@pytest.mark.parametrize(
    "system", [' "" ', 'ends in a quote"', '"', "two\n\nlines\twith a tab\r\n", "# no remark", "東京 é"]
)
def test_system_prompt_reaches_the_model_as_it_is(system: str, ollama: Ollama) -> None:
    assert ollama.generate(written(FAMILIES[0], system), "?") == FAMILIES[0].render(
        [Message("system", system), Message("user", "?")]
    )


def test_what_go_would_drop_from_a_system_prompt_is_refused_and_nothing_else(ollama: Ollama) -> None:
    assigned = [chr(n) for n in range(1, 0x2FA20) if ucd_3_2_0.category(chr(n)) not in ("Cn", "Cs", "Co")]
    kept = "".join(char for char in assigned if is_accepted(char))
    dropped = "".join(char for char in assigned if not is_accepted(char))
    assert kept in ollama.generate(written(FAMILIES[0], kept), "?")
    plain = written(FAMILIES[0], "MARK").replace("MARK", dropped)
    assert ollama.generate(plain, "?") == ollama.generate(written(FAMILIES[0], ""), "?")


def is_accepted(system: str) -> bool:
    try:
        written(FAMILIES[0], system)
    except ConfigError:
        return False
    return True


def prompts_agree(tokenizer: "PreTrainedTokenizerBase", ollama: Ollama) -> int:
    """How many golden conversations Ollama turns into the very tokens that the model's own template gives."""
    from tuneline.errors import ModelError
    from tuneline.export.golden import GOLDENS, modelfile_family
    from tuneline.export.package import ollama_modelfile
    from tuneline.model.template import encode_prompt

    match = modelfile_family(tokenizer)
    assert match is not None
    text, n_agreed = ollama_modelfile(tokenizer, "m.gguf", 512, None), 0
    for name, golden in GOLDENS.items():
        if golden.tools or len(spoken(match.family, golden.messages)) < len(golden.messages):
            continue
        try:
            want = encode_prompt(tokenizer, golden.messages)
        except ModelError:
            continue
        (prompt,) = ollama.chat(text, [golden.messages])
        assert tokenizer.encode(prompt) == want, name
        n_agreed += 1
    return n_agreed


@pytest.mark.parametrize("name", MINIATURES)
def test_modelfile_of_each_architecture_gives_the_models_tokens(name: str, ollama: Ollama, tmp_path: Path) -> None:
    from tuneline.model.tokenizers import load_tokenizer

    save_tokenizer(MINIATURES[name], tmp_path)
    assert prompts_agree(load_tokenizer(base_config(MINIATURES[name], tmp_path)), ollama) >= 4


@pytest.mark.parametrize(("template", "mini"), PUBLISHED, ids=lambda value: value)
def test_modelfile_of_a_published_template_gives_its_tokens(
    template: str, mini: str, ollama: Ollama, tmp_path: Path
) -> None:
    """Where no family matches there is no TEMPLATE, and so nothing that could differ."""
    from tuneline.export.golden import modelfile_family
    from tuneline.model.tokenizers import load_tokenizer

    save_tokenizer(MINIATURES[mini], tmp_path)
    (tmp_path / "chat_template.jinja").write_text(published(template), encoding="utf-8")
    tokenizer = load_tokenizer(base_config(MINIATURES[mini], tmp_path))
    assert modelfile_family(tokenizer) is not None
    assert prompts_agree(tokenizer, ollama) >= 4
