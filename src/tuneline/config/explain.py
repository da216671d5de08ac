"""Pydantic's errors as sentences: `key: value, what is allowed; the fix`."""

import re
from collections.abc import Iterable, Mapping, Sequence
from difflib import get_close_matches
from typing import get_args, get_origin

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from tuneline.config.schema import Params

Location = tuple[int | str, ...]
_KINDS = {  # pydantic's error type -> what is allowed, for types that need no numbers of their own
    "int_type": "allowed is a whole number",
    "int_from_float": "allowed is a whole number",
    "float_type": "allowed is a number",
    "finite_number": "allowed is a finite number",
    "bool_type": "allowed is true or false",
    "string_type": "allowed is text",
    "string_too_short": "it must not be empty",
    "tuple_type": "allowed is a list",
    "too_short": "it must not be empty",
    "model_type": "allowed is a section with keys",
    "model_attributes_type": "allowed is a section with keys",
    "mapping_type": "allowed is a section with keys",
    "dict_type": "allowed is a section with keys",
}
_BOUNDS = {  # pydantic's error type -> where it keeps the bound, and its sign
    "greater_than": ("gt", ">"),
    "greater_than_equal": ("ge", ">="),
    "less_than": ("lt", "<"),
    "less_than_equal": ("le", "<="),
}


def explanations(error: ValidationError) -> list[str]:
    """One line per problem, in the order of the schema."""
    details = error.errors(include_url=False)
    return [_explain(detail) for detail in details if not _is_left_empty(detail, details)]


def _is_left_empty(detail: ErrorDetails, details: Sequence[ErrorDetails]) -> bool:
    """True for a list that is too short only because its bad items, which have lines of their own, do not count."""
    location = detail["loc"]
    inside = (other["loc"] for other in details if len(other["loc"]) > len(location))
    return detail["type"] == "too_short" and any(other[: len(location)] == location for other in inside)


def dotted(location: Location) -> str:
    """`('data', 'sources', 0, 'path')` as `data.sources[0].path`."""
    named = [part for part in location if part != "[key]"]  # pydantic's mark for "the key itself is wrong"
    return "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in named).removeprefix(".")


def shown(value: object) -> str:
    """A value as YAML users know it, shortened."""
    text = "null" if value is None else str(value).lower() if isinstance(value, bool) else repr(value)
    return text if len(text) <= 80 else f"{text[:77]}..."


def did_you_mean(word: object, choices: Iterable[str]) -> str:
    """`; did you mean 'q4_k_m'?`, or nothing when no choice is near."""
    by_letters = {_letters(choice): choice for choice in choices}
    near = get_close_matches(_letters(str(word)), by_letters, n=1, cutoff=0.5)
    return f"; did you mean {by_letters[near[0]]!r}?" if near else ""


def _letters(word: str) -> str:
    return re.sub(r"[^a-z0-9]", "", word.lower())


def _explain(detail: ErrorDetails) -> str:
    location, value = detail["loc"], detail["input"]
    key = dotted(location)
    match detail["type"]:
        case "missing":
            return f"{key}: missing; give it a value in conf/ and run `make params`"
        case "extra_forbidden":
            known = _keys_of(location[:-1])
            return f"{key}: unknown key, allowed are {', '.join(known)}{did_you_mean(location[-1], known)}"
        case "literal_error":
            choices = re.findall(r"'([^']*)'", detail["ctx"]["expected"]) or [detail["ctx"]["expected"]]
            return f"{key}: {shown(value)}, allowed is {', '.join(choices)}{did_you_mean(value, choices)}"
        case "value_error":
            return f"{key}: {shown(value)}, allowed is {detail['ctx']['error']}"
        case bound if bound in _BOUNDS:
            context_key, sign = _BOUNDS[bound]
            return f"{key}: {shown(value)}, allowed is a value {sign} {detail['ctx'][context_key]}"
        case kind if kind in _KINDS:
            return f"{key}: {shown(value)}, {_KINDS[kind]}"
        case _:
            return f"{key}: {shown(value)}, {detail['msg']}"


def _keys_of(location: Location) -> Sequence[str]:
    """The keys that the section at `location` may have."""
    annotation: object = Params
    for part in location:
        annotation = _inside(annotation, part)
    section = _section(annotation)
    return tuple(section.model_fields) if section else ()


def _inside(annotation: object, part: int | str) -> object:
    section = _section(annotation)
    if section is not None and isinstance(part, str) and part in section.model_fields:
        return section.model_fields[part].annotation
    return annotation  # an index or a key of a mapping: `_section` looks through the container


def _section(annotation: object) -> type[BaseModel] | None:
    """The pydantic model inside `Model`, `Model | None`, `tuple[Model, ...]` or `Mapping[str, Model]`."""
    if isinstance(annotation, type) and get_origin(annotation) is None:
        return annotation if issubclass(annotation, BaseModel) else None
    arguments = get_args(annotation)
    inner = arguments[-1:] if get_origin(annotation) is Mapping else arguments
    return next((found for argument in inner if (found := _section(argument)) is not None), None)
