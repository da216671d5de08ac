"""Which messages of a row a rule judges, and how its reason names them."""

from tuneline.data.records import Example, Message


def learned(example: Example) -> tuple[Message, ...]:
    """The messages that a model learns to follow, at the places they have in `Example.turns`.

    The worse continuation of a preference pair and an answer labelled undesirable are there to be avoided: a rule on
    the quality of answers must not take the row for them.
    """
    messages = example.messages + example.chosen if example.chosen else example.messages
    return messages[:-1] if example.label is False else messages


def place(example: Example, index: int) -> str:
    """What a reason calls the message at `example.turns[index]`."""
    if example.text is not None:
        return "the text"
    role = example.turns[index].role
    n_common, n_chosen = len(example.messages), len(example.chosen)
    if index < n_common:
        return f"message {index + 1} ({role})"
    if index < n_common + n_chosen:
        return f"chosen message {index - n_common + 1} ({role})"
    return f"rejected message {index - n_common - n_chosen + 1} ({role})"
