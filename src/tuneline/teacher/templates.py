"""Prompt templates for the teacher: Jinja2 in its sandbox, and no name that is not there."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import jinja2
from jinja2.sandbox import ImmutableSandboxedEnvironment

from tuneline.data.records import Example, Json
from tuneline.errors import ConfigError

_ENVIRONMENT = ImmutableSandboxedEnvironment(
    undefined=jinja2.StrictUndefined,
    autoescape=False,  # a prompt is no HTML
    trim_blocks=True,
    lstrip_blocks=True,
)
# Everything a template can do wrong while it runs; a row's content cannot, as it is data to it.
_RUN_ERRORS = (jinja2.TemplateError, ArithmeticError, AttributeError, LookupError, TypeError, ValueError)


@dataclass(frozen=True, slots=True)
class Template:
    """A prompt with places for a row."""

    path: Path
    sha256: str  # of the file, 64 hex digits
    compiled: jinja2.Template


def load_template(folder: Path, name: str) -> Template:
    """Raises `ConfigError` with file:line for a template that Jinja2 does not take."""
    path = folder / name
    if not path.resolve().is_relative_to(folder.resolve()) or not path.is_file():
        found = ", ".join(sorted(file.relative_to(folder).as_posix() for file in folder.rglob("*") if file.is_file()))
        raise ConfigError(f"{path}: no such template, allowed is a file of {folder}: {found or 'it holds none'}")
    try:
        content = path.read_bytes()
        compiled = _ENVIRONMENT.from_string(content.decode("utf-8"))
    except jinja2.TemplateSyntaxError as error:
        raise ConfigError(f"{path}:{error.lineno}: {error.message}; mend the template") from None
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path}: not UTF-8 ({error.reason}); save it as UTF-8") from None
    return Template(path, hashlib.sha256(content).hexdigest(), compiled)


def render(template: Template, example: Example) -> str:
    """The prompt for a row. Raises `ConfigError` naming template and row."""
    try:
        prompt = template.compiled.render(_variables(example)).strip()
    except _RUN_ERRORS as error:
        names = ", ".join(_variables(example))
        raise ConfigError(f"{template.path}: {error} (row {example.place}); the row offers {names}") from None
    if not prompt:
        raise ConfigError(f"{template.path}: renders nothing for row {example.place}; the teacher needs a prompt")
    return prompt


def _variables(example: Example) -> Mapping[str, Json]:
    """A raw text has `text`; a conversation `messages`, its last user message `prompt` and last answer `answer`."""
    if example.text is not None:
        return {"text": example.text}
    turns: list[Json] = [{"role": message.role, "content": message.content} for message in example.messages]
    last = {message.role: message.content for message in example.messages}
    return {"messages": turns, "prompt": last.get("user", ""), "answer": last.get("assistant", "")}
