"""The dirt that real data has, put into the training pool so that every cleaning rule has work to do."""

import random
from typing import Any

Row = dict[str, Any]

REFUSALS = (
    "I'm sorry, but I cannot help with that request.",
    "As an AI language model, I am unable to write this query.",
    "I cannot assist with that.",
)
CONTACTS = (
    "Please answer to {name}@example.org.", "Thanks, {name} (+1 202-555-01{number})", "My e-mail is {name}@mail.example.com.",
    "Call me at +44 20 7946 09{number} when it is done.",
)  # fmt: skip
NAMES = ("anna", "bob.miller", "c.diaz", "deniz", "eve_k", "farid")


def soiled(rows: list[Row], test_rows: list[Row], rng: random.Random) -> list[Row]:
    """The clean rows and their dirty companions in one shuffled list; about one row in thirteen is dirty."""
    dirty: list[Row] = []
    share = len(rows) // 40
    for make, count in (
        (_exact_duplicate, share), (_near_duplicate, share), (_empty_answer, share // 2), (_refusal, share // 2),
        (_broken_encoding, share // 2), (_contact, share), (_over_long, share // 8),
    ):  # fmt: skip
        dirty += [make(row, rng) for row in rng.sample(rows, count)]
    dirty += [dict(row) for row in rng.sample(test_rows, 8)]  # leaked from the test set
    dirty += [{"prompt": row["prompt"]} for row in rng.sample(rows, 5)]  # the answer's key is missing
    mixed = rows + dirty
    rng.shuffle(mixed)
    return mixed


def _exact_duplicate(row: Row, rng: random.Random) -> Row:
    return dict(row)


def _near_duplicate(row: Row, rng: random.Random) -> Row:
    """The same question in other case, spacing or punctuation."""
    prompt = str(row["prompt"])
    changed = rng.choice(
        (prompt.upper, lambda: prompt.replace(" ", "  "), lambda: prompt + "!!", lambda: f"  {prompt}\n")
    )()
    return {**row, "prompt": changed}


def _empty_answer(row: Row, rng: random.Random) -> Row:
    return {**row, "completion": rng.choice(("", " ", "\n"))}


def _refusal(row: Row, rng: random.Random) -> Row:
    return {**row, "completion": rng.choice(REFUSALS)}


def _broken_encoding(row: Row, rng: random.Random) -> Row:
    """A replacement character, or UTF-8 that was read as Latin-1."""
    position = rng.randrange(len(row["prompt"]))
    broken = rng.choice(("\ufffd", "Ã©", "â€™", "\x00"))
    return {**row, "prompt": row["prompt"][:position] + broken + row["prompt"][position:]}


def _contact(row: Row, rng: random.Random) -> Row:
    contact = rng.choice(CONTACTS).format(name=rng.choice(NAMES), number=rng.randint(10, 99))
    return {**row, "prompt": f"{row['prompt']} {contact}"}


def _over_long(row: Row, rng: random.Random) -> Row:
    return {**row, "prompt": row["prompt"] + " Note:" + " please be careful" * rng.randint(250, 400)}
