"""Ollama's template: what Go renders from it is what the model's own template renders."""

import json
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import jinja2
import pytest

from tests.export.conftest import TEMPLATE
from tuneline.data.records import Message
from tuneline.errors import ConfigError
from tuneline.export.chat_template import portable
from tuneline.export.modelfile import FAMILIES, Family, go_template, matching_family, modelfile

TALK = (
    Message("system", 'Be "brief".'),
    Message("user", "1 < 2?\n{{ no }}"),
    Message("assistant", "Yes"),
    Message("user", "é?"),
)


def renderer(template: str) -> Callable[[Sequence[Message]], str]:
    compiled = jinja2.Environment(autoescape=False, trim_blocks=True, lstrip_blocks=True).from_string(template)

    def render(messages: Sequence[Message]) -> str:
        turns = [{"role": message.role, "content": message.content} for message in messages]
        return compiled.render(messages=turns, add_generation_prompt=True)

    return render


@dataclass
class Go:
    """The part of Go's text/template that our templates use: range, if, else if, variables, eq, ne, not, and, text."""

    template: str
    tokens: list[str] = field(init=False)

    def __post_init__(self) -> None:
        self.tokens = [part for part in re.split(r"(\{\{ .*? \}\})", self.template) if part]

    def render(self, messages: Sequence[Message]) -> str:
        end = self._matching_end(0)
        body = [token[3:-3] for token in self.tokens[1:end]]
        assert self.tokens[0] == "{{ range $i, $_ := .Messages }}"
        assert end == len(self.tokens) - 1
        return "".join(self._block(body, m, i == len(messages) - 1) for i, m in enumerate(messages))

    def _matching_end(self, start: int) -> int:
        depth = 0
        for place, token in enumerate(self.tokens[start:], start):
            depth += token.startswith(("{{ range", "{{ if")) - (token == "{{ end }}")
            if depth == 0:
                return place
        raise AssertionError("unbalanced")

    def _block(self, actions: Sequence[str], message: Message, last: bool) -> str:
        written, stack = "", [True]  # per open `if`: whether its current branch runs
        taken: list[bool] = []
        for action in actions:
            if action.startswith("if "):
                taken.append(self._test(action[3:], message, last))
                stack.append(taken[-1])
            elif action.startswith("else if "):
                stack[-1] = not taken[-1] and self._test(action[8:], message, last)
                taken[-1] = taken[-1] or stack[-1]
            elif action == "end":
                stack.pop()
                taken.pop()
            elif all(stack) and action == ".Content":
                written += message.content
            elif all(stack) and action.startswith('"'):
                written += json.loads(action)
            else:
                assert action.startswith(("$last :=", '"', ".Content"))
        return written

    def _test(self, condition: str, message: Message, last: bool) -> bool:
        match re.fullmatch(r'(eq|ne) \.Role "(\w+)"|(not \$last)|and \$last \(ne \.Role "assistant"\)', condition):
            case re.Match() as found if found[1]:
                return bool((message.role == found[2]) == (found[1] == "eq"))
            case re.Match() as found if found[3]:
                return not last
            case re.Match():
                return last and message.role != "assistant"
        raise AssertionError(condition)


def spoken(family: Family) -> tuple[Message, ...]:
    return tuple(message for message in TALK if message.role in family.turns)


@pytest.mark.parametrize("family", FAMILIES, ids=lambda family: family.name)
def test_go_template_renders_the_family(family: Family) -> None:
    assert Go(go_template(family)).render(spoken(family)) == family.render(spoken(family))


@pytest.mark.parametrize("family", FAMILIES, ids=lambda family: family.name)
def test_answer_that_comes_last_is_left_open(family: Family) -> None:
    talk = (*spoken(family), Message("assistant", "SELECT"))
    assert Go(go_template(family)).render(talk).endswith("SELECT")


def test_template_of_the_embedded_model_is_chatml() -> None:
    match = matching_family(renderer(portable(TEMPLATE)))
    assert match is not None
    assert (match.family.name, match.default_system) == ("ChatML", None)


def test_default_system_prompt_becomes_part_of_the_modelfile() -> None:
    """As in Qwen 2.5: a conversation without a system message gets one."""
    template = (
        "{% if messages[0].role != 'system' %}<|im_start|>system\nYou are Q.<|im_end|>\n{% endif %}"
    ) + portable(TEMPLATE)
    match = matching_family(renderer(template))
    assert match is not None
    assert match.default_system == "You are Q."
    assert 'SYSTEM """You are Q."""' in modelfile("m.gguf", match, "<|im_end|>", 512, None)
    assert 'SYSTEM """Mine."""' in modelfile("m.gguf", match, "<|im_end|>", 512, "Mine.")


@pytest.mark.parametrize(
    "template",
    [
        portable(TEMPLATE).replace("<|im_end|>\\n", "<|im_end|>\\n\\n"),
        portable(TEMPLATE).replace("assistant\\n", "assistant\\n<think>"),
        "{% for m in messages %}{{ m.content }}\n{% endfor %}",
    ],
)
def test_near_miss_of_a_family_gets_no_template_but_a_word_on_it(template: str) -> None:
    match = matching_family(renderer(template))
    assert match is None
    text = modelfile("m.gguf", match, "</s>", 512, None)
    assert "TEMPLATE " not in text.replace("No TEMPLATE", "")
    assert "llama-server --jinja" in text


def test_modelfile_has_file_stops_context_and_greedy_decoding() -> None:
    match = matching_family(renderer(portable(TEMPLATE)))
    lines = modelfile("m.gguf", match, "<|endoftext|>", 2048, None).splitlines()
    assert lines[0] == "FROM ./m.gguf"
    assert {line for line in lines if line.startswith("PARAMETER")} == {
        'PARAMETER stop "<|im_end|>"',
        'PARAMETER stop "<|im_start|>"',
        'PARAMETER stop "<|endoftext|>"',
        "PARAMETER num_ctx 2048",
        "PARAMETER temperature 0",
        "PARAMETER repeat_penalty 1",
    }


def test_system_prompt_that_would_end_the_text_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"data\.system_prompt"):
        modelfile("m.gguf", None, "</s>", 512, 'say """ and go on')
