"""Ollama's Modelfile: the same prompt that training saw, in Go's template language.

Ollama does not run the Jinja template inside a GGUF. A template is therefore written only when one of the known
families, rendered here, gives the very text that the model's own template gives.
"""

import json
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from tuneline.data.records import Message, Role
from tuneline.errors import ConfigError

Render = Callable[[Sequence[Message]], str]  # the model's own template, with the opening of an answer, without BOS


@dataclass(frozen=True, slots=True)
class Family:
    """`turns` holds what stands before and after the content of each role; `opening` starts the answer."""

    name: str
    turns: dict[Role, tuple[str, str]]
    opening: str
    stops: tuple[str, ...]

    def render(self, messages: Sequence[Message]) -> str:
        return "".join(self._turn(message) for message in messages) + self.opening

    def _turn(self, message: Message) -> str:
        before, after = self.turns[message.role]
        return before + message.content + after


def _family(name: str, turn: str, after: str, stops: tuple[str, ...], roles: dict[Role, str]) -> Family:
    """A family whose turns differ by the role's name only; `turn` holds it as ROLE."""
    turns = {role: (turn.replace("ROLE", written), after) for role, written in roles.items()}
    return Family(name, turns, turns["assistant"][0], stops)


_ROLES: dict[Role, str] = {"system": "system", "user": "user", "assistant": "assistant"}
_GEMMA_ROLES: dict[Role, str] = {"user": "user", "assistant": "model"}
_NO_THOUGHTS = "<think>\n\n</think>\n\n"
_CHATML = _family("ChatML", "<|im_start|>ROLE\n", "<|im_end|>\n", ("<|im_end|>", "<|im_start|>"), _ROLES)

FAMILIES = (
    _CHATML,
    _family("Llama 3", "<|start_header_id|>ROLE<|end_header_id|>\n\n", "<|eot_id|>", ("<|eot_id|>",), _ROLES),
    # Qwen 3 with enable_thinking=false: an empty thought opens the answer, and is not in the turns before
    Family("ChatML without thoughts", _CHATML.turns, _CHATML.opening + _NO_THOUGHTS, _CHATML.stops),
    _family("Phi 3", "<|ROLE|>\n", "<|end|>\n", ("<|end|>",), _ROLES),
    _family("Phi 4 mini", "<|ROLE|>", "<|end|>", ("<|end|>",), _ROLES),
    _family("Gemma", "<start_of_turn>ROLE\n", "<end_of_turn>\n", ("<end_of_turn>",), _GEMMA_ROLES),
    Family("Mistral", {"user": ("[INST] ", "[/INST]"), "assistant": (" ", "</s>")}, "", ("[INST]", "[/INST]")),
)

_USER = Message("user", "First question?")
_TALK = (_USER, Message("assistant", "First answer."), Message("user", "Second\n question?"))
_SYSTEM = Message("system", "Answer briefly.")


@dataclass(frozen=True, slots=True)
class Match:
    """A family that renders as the model does; `default_system` is what the model's template adds by itself."""

    family: Family
    default_system: str | None


def matching_family(render: Render) -> Match | None:
    """The family that gives the same text as `render` on every probe conversation; None when there is none."""
    for family in FAMILIES:
        default = _default_system(family, render)
        talks = [_with_system(default, talk) for talk in ((_USER,), _TALK)]
        probes = [(talk, full) for talk, full in zip(((_USER,), _TALK), talks, strict=True)]
        if "system" in family.turns:
            probes += [((_SYSTEM, *talk), (_SYSTEM, *talk)) for talk in ((_USER,), _TALK)]
        if all(render(asked) == family.render(written) for asked, written in probes):
            return Match(family, default)
    return None


def _default_system(family: Family, render: Render) -> str | None:
    """The system prompt that the model's own template puts before a conversation that has none."""
    if "system" not in family.turns:
        return None
    before, after = (re.escape(part) for part in family.turns["system"])
    added = re.fullmatch(f"{before}(.*?){after}{re.escape(family.render([_USER]))}", render([_USER]), re.DOTALL)
    return None if added is None else added.group(1)


def _with_system(system: str | None, talk: tuple[Message, ...]) -> tuple[Message, ...]:
    return talk if system is None else (Message("system", system), *talk)


def modelfile(gguf_name: str, match: Match | None, end_token: str, n_ctx: int, system: str | None) -> str:
    """The text of a Modelfile beside `gguf_name`. `end_token` ends an answer; `system` is data.system_prompt."""
    stops = sorted({end_token, *(match.family.stops if match else ())})
    spoken = system if system is not None or match is None else match.default_system
    lines = [
        f"FROM ./{gguf_name}",
        *_template_lines(match),
        *(f'PARAMETER stop "{stop}"' for stop in stops),  # Ollama knows no escapes: the quotes are taken off, no more
        f"PARAMETER num_ctx {n_ctx}",
        "PARAMETER temperature 0",
        "PARAMETER repeat_penalty 1",  # Ollama's own is 1.1, which changes greedy answers too
        *([] if spoken is None else [f"SYSTEM {_quoted(spoken)}"]),
    ]
    return "\n".join(lines) + "\n"


def _template_lines(match: Match | None) -> list[str]:
    if match is not None:
        return [f"# {match.family.name}: the text that training saw", f"TEMPLATE {_quoted(go_template(match.family))}"]
    return [
        "# No TEMPLATE: the model's chat template belongs to no family known here. Ollama then uses the one inside the",
        "# GGUF only if it recognises it: compare `ollama show --modelfile` with it, or serve with",
        "# `llama-server --jinja`, which renders the model's own template.",
    ]


def go_template(family: Family) -> str:
    """The family in Go's text/template, as Ollama runs it: an answer that comes last is continued, not closed.

    All text stands in Go string literals, so that no white space of this template can slip into a prompt.
    """
    cases = [_case(role, before, after) for role, (before, after) in family.turns.items()]
    turn = "{{ " + "{{ else ".join(cases) + "{{ end }}"
    opening = f'{{{{ if and $last (ne .Role "assistant") }}}}{_literal(family.opening)}{{{{ end }}}}'
    last = "{{ $last := eq (len (slice $.Messages $i)) 1 }}"
    return f"{{{{ range $i, $_ := .Messages }}}}{last}{turn}{opening}{{{{ end }}}}"


def _case(role: Role, before: str, after: str) -> str:
    closing = _literal(after)
    if role == "assistant":
        closing = f"{{{{ if not $last }}}}{closing}{{{{ end }}}}"
    return f'if eq .Role "{role}" }}}}{_literal(before)}{{{{ .Content }}}}{closing}'


def _literal(text: str) -> str:
    return f"{{{{ {json.dumps(text, ensure_ascii=False)} }}}}"


def _quoted(text: str) -> str:
    """Raises `ConfigError` for what Ollama's parser would end early or drop, saying nothing."""
    if '"""' in text:
        raise ConfigError('data.system_prompt: it holds """, which ends a text in a Modelfile; write it otherwise')
    dropped = sorted({char for char in text if not char.isprintable() and char not in "\t\r\n"})
    if dropped:
        names = ", ".join(f"U+{ord(char):04X}" for char in dropped)
        raise ConfigError(
            f"data.system_prompt: it holds {names}, which Ollama drops from a Modelfile, so that the model would be "
            "asked otherwise than in training; write it without"
        )
    return f'"""{text}"""'
