"""Preference pairs: what was asked, a better answer and a worse one, in the ways that data sets write them."""

from typing import TypeAlias

from tuneline.data.conversation import RowProblem
from tuneline.data.fields import Fields, listed, present
from tuneline.data.messages import behind, is_spoken, messages_in, spoken, turns
from tuneline.data.records import Message

Turns: TypeAlias = tuple[Message, ...]


def pair(row: Fields, prompt: Turns) -> tuple[Turns, Turns, Turns]:
    """What was asked, the chosen continuation and the rejected one.

    Behind a `prompt`, chosen and rejected are answers, or dialogues that hold it. Without one they are dialogues, as
    messages or as one text ("Human: ... Assistant: ..."): the messages that both begin with are the prompt.
    """
    chosen, rejected = _side(row, "chosen", prompt), _side(row, "rejected", prompt)
    if _is_dialogue(chosen) or _is_dialogue(rejected):
        found, chosen, rejected = _divided(chosen, rejected)
        if not _holds(found, prompt):
            raise RowProblem("format", "prompt is not among the messages that chosen and rejected begin with")
        prompt = found
    elif not prompt:
        raise RowProblem("format", f"no 'prompt', and chosen is no dialogue; the keys are: {listed(row)}")
    if chosen == rejected:
        raise RowProblem("format", "chosen and rejected are equal; a pair shows a difference")
    for name, side in (("chosen", chosen), ("rejected", rejected)):
        if not side:
            raise RowProblem("format", f"{name} has no answer behind what both have in common")
    return prompt, chosen, rejected


def _side(row: Fields, key: str, prompt: Turns) -> Turns:
    """One answer or dialogue, which may be one text: with speakers where the prompt has them or is none, or as JSON."""
    value, asked = present(row, key), row.get("prompt")
    if not isinstance(value, str):
        return turns(value, key, "assistant")
    if not prompt or (isinstance(asked, str) and is_spoken(asked)):
        if said := spoken(value):
            return said
        value = behind(asked, value)
    whole = messages_in(value, key)
    return whole if _is_dialogue(whole) and _holds(whole, prompt) else turns(value, key, "assistant")


def _is_dialogue(side: Turns) -> bool:
    return bool(side) and side[0].role in ("system", "user")


def _divided(chosen: Turns, rejected: Turns) -> tuple[Turns, Turns, Turns]:
    """The messages that both begin with, and the rest of each."""
    n_common = 0
    for one, other in zip(chosen, rejected, strict=False):
        if one != other:
            break
        n_common += 1
    if chosen[:n_common] and chosen[n_common - 1].role == "assistant" and chosen != rejected:
        raise RowProblem("format", f"chosen and rejected part at message {n_common + 1}, where no answer begins")
    return chosen[:n_common], chosen[n_common:], rejected[n_common:]


def _holds(found: Turns, prompt: Turns) -> bool:
    """True when the messages of the prompt follow each other somewhere in what was found."""
    starts = range(len(found) - len(prompt) + 1)
    return any(found[start : start + len(prompt)] == prompt for start in starts)
