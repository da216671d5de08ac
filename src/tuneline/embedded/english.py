"""The same queries in English: as questions for the task and as comments for the base model's corpus.

Every list of wordings is split in two: training uses the first part, the test set may use all of it. The corpus uses
all words in comments and free questions, as a real base model has read more English than a fine-tuning set shows.
"""

import random
from dataclasses import dataclass

from tuneline.embedded.queries import Condition, Query
from tuneline.embedded.world import Value


@dataclass(frozen=True, slots=True)
class Wordings:
    """Ways to say one thing. `held_out` ones are asked in the test set but never taught."""

    taught: tuple[str, ...]
    held_out: tuple[str, ...] = ()

    def choose(self, rng: random.Random, held_out: bool) -> str:
        """A taught wording, or when `held_out` is allowed any of them."""
        return rng.choice(self.taught + self.held_out if held_out else self.taught)


LISTS = Wordings(
    ("List the {columns} of {things}.", "Show the {columns} of all {things}.", "What is the {columns} of {things}?",
     "Give me the {columns} of {things}.", "Find the {columns} of {things}."),
    ("Return the {columns} of {things}.", "I need the {columns} of all {things}.", "Please display the {columns} of {things}."),
)  # fmt: skip
COUNTS = Wordings(
    ("How many {things} are there?", "Count the {things}.", "What is the number of {things}?", "Give the number of {things}."),
    ("Find how many {things} there are.", "Show the number of {things}."),
)  # fmt: skip
AGGREGATES = Wordings(
    ("What is the {aggregate} {column} of {things}?", "Find the {aggregate} {column} of all {things}.",
     "Give me the {aggregate} {column} of {things}.", "Compute the {aggregate} {column} of {things}."),
    ("Return the {aggregate} {column} of {things}.", "I need the {aggregate} {column} of all {things}."),
)  # fmt: skip
GROUPED_COUNTS = Wordings(
    ("How many {things} are there for each {group}?", "Count the {things} for each {group}.",
     "For each {group}, what is the number of {things}?", "Show the number of {things} per {group}."),
    ("For each {group}, count the {things}.", "Find how many {things} there are per {group}."),
)  # fmt: skip
GROUPED_AGGREGATES = Wordings(
    ("What is the {aggregate} {column} of {things} for each {group}?", "For each {group}, show the {aggregate} {column} of {things}.",
     "Find the {aggregate} {column} of {things} per {group}."),
    ("Return the {aggregate} {column} of {things} for each {group}.", "Per {group}, give the {aggregate} {column} of {things}."),
)  # fmt: skip
ORDERED = Wordings(
    ("List the {columns} of {things} ordered by {order} {direction}.", "Show the {columns} of {things} sorted by {order} {direction}.",
     "What is the {columns} of {things}, sorted by {order} {direction}?"),
    ("Return the {columns} of {things} sorted by {order} {direction}.",),
)  # fmt: skip
LIMITED = Wordings(
    ("List the {columns} of the {limit} {things} with the {extreme} {order}.",
     "What is the {columns} of the {limit} {things} with the {extreme} {order}?",
     "Find the {columns} of the {limit} {things} that have the {extreme} {order}."),
    ("Return the {columns} of the {limit} {things} with the {extreme} {order}.",),
)  # fmt: skip
DISTINCT = Wordings(
    ("List the different {columns} values of {things}.", "What are the different {columns} values of {things}?",
     "Show the distinct {columns} values of {things}.", "Which distinct {columns} values do {things} have?"),
    ("Return the distinct {columns} values of {things}.", "Give me the different {columns} values of {things}."),
)  # fmt: skip
AGGREGATE_WORDS = {
    "AVG": Wordings(("average", "average", "mean")),
    "SUM": Wordings(("total", "summed")),
    "MAX": Wordings(("highest", "maximum"), ("largest",)),
    "MIN": Wordings(("lowest", "minimum"), ("smallest",)),
}
EXTREMES = {True: Wordings(("highest", "largest")), False: Wordings(("lowest", "smallest"))}
DIRECTIONS = {
    True: Wordings(("in descending order", "from high to low", "descending")),
    False: Wordings(("in ascending order", "from low to high", "ascending")),
}
CONDITIONS = {
    "=": Wordings(("whose {column} is {0}", "with {column} {0}", "that have {column} {0}"), ("with a {column} of {0}",)),
    "!=": Wordings(("whose {column} is not {0}", "with a {column} other than {0}"), ("that do not have {column} {0}",)),
    ">": Wordings(("whose {column} is over {0}", "with {column} greater than {0}", "with a {column} above {0}"), ("whose {column} is more than {0}",)),
    "<": Wordings(("whose {column} is under {0}", "with {column} less than {0}", "with a {column} below {0}"), ("whose {column} is smaller than {0}",)),
    ">=": Wordings(("whose {column} is at least {0}", "with {column} {0} or more"), ("with a {column} of at least {0}",)),
    "<=": Wordings(("whose {column} is at most {0}", "with {column} {0} or less"), ("with a {column} of at most {0}",)),
    "BETWEEN": Wordings(("whose {column} is between {0} and {1}", "with {column} from {0} to {1}"), ("with a {column} between {0} and {1}",)),
    "LIKE": Wordings(("whose {column} starts with {0}", "with a {column} beginning with {0}"), ("whose {column} begins with {0}",)),
}  # fmt: skip
COMMENTS = (
    "{text}", "{text}", "returns {text}", "gives {text}", "finds {text}", "this is {text}", "shows {text}", "lists {text}", "to return {text}",
    "please display {text}", "I need {text}", "give me {text}", "compute {text}",
)  # fmt: skip
QUOTES = ("'{}'", '"{}"')


def question(query: Query, rng: random.Random, held_out: bool = False) -> str:
    """A question that the query answers; `held_out` also allows the wordings that training never shows."""
    slots = _slots(query, rng, held_out)
    return _wordings(query).choose(rng, held_out).format(**slots)


def comment(query: Query, rng: random.Random) -> str:
    """What the query returns, as a programmer remarks behind or above it; never in the words of a question."""
    slots = _slots(query, rng, held_out=True)
    match query.family:
        case "aggregate" | "join_count" if query.aggregate == "COUNT":
            text = rng.choice(("the number of {things}", "how many {things} there are", "the count of {things}"))
        case "aggregate":
            text = "the {aggregate} {column} of {things}"
        case "group" if query.aggregate == "COUNT":
            text = rng.choice(("the number of {things} for each {group}", "the count of {things} per {group}"))
        case "group":
            text = rng.choice(
                (
                    "the {aggregate} {column} of {things} for each {group}",
                    "the {aggregate} {column} of {things} per {group}",
                )
            )
        case "order" if query.limit:
            text = (
                "the {columns} of the {limit} {things} " + rng.choice(("with", "that have")) + " the {extreme} {order}"
            )
        case "order":
            text = "the {columns} of {things} " + rng.choice(("sorted", "ordered")) + " by {order} {direction}"
        case "distinct":
            text = rng.choice(
                (
                    "the different {columns} values of {things}",
                    "the distinct {columns} values that {things} have",
                )
            )
        case _:
            text = rng.choice(
                (
                    "the {columns} of {things}",
                    "the {columns} of all {things}",
                    "each of the {columns} of {things}",
                )
            )
    return rng.choice(COMMENTS).format(text=text.format(**slots))


def _wordings(query: Query) -> Wordings:
    match query.family:
        case "list" | "join":
            return LISTS
        case "aggregate" | "join_count":
            return COUNTS if query.aggregate == "COUNT" else AGGREGATES
        case "group":
            return GROUPED_COUNTS if query.aggregate == "COUNT" else GROUPED_AGGREGATES
        case "order":
            return LIMITED if query.limit else ORDERED
        case "distinct":
            return DISTINCT


def _slots(query: Query, rng: random.Random, held_out: bool) -> dict[str, str]:
    aggregate = query.aggregate or "COUNT"
    return {
        "columns": " and ".join(column.words for column in query.columns),
        "column": query.columns[0].words if query.columns else "",
        "things": _things(query, rng, held_out),
        "aggregate": "" if aggregate == "COUNT" else AGGREGATE_WORDS[aggregate].choose(rng, held_out),
        "group": query.group.words if query.group else "",
        "order": query.order.words if query.order else "",
        "limit": str(query.limit),
        "extreme": EXTREMES[query.descending].choose(rng, held_out),
        "direction": DIRECTIONS[query.descending].choose(rng, held_out),
    }


def _things(query: Query, rng: random.Random, held_out: bool) -> str:
    conditions = f" {query.connector.lower()} ".join(_condition(c, rng, held_out) for c in query.conditions)
    if query.family in ("join", "join_count"):
        relation = rng.choice(("that belong to", "of"))
        return f"{query.table.words} {relation} {query.database.parent.words} {conditions}".strip()
    return f"{query.table.words} {conditions}".strip()


def _condition(condition: Condition, rng: random.Random, held_out: bool) -> str:
    quotes = rng.choice(QUOTES)
    values = [_value(value, quotes) for value in condition.values]
    wording = CONDITIONS[condition.operator].choose(rng, held_out)
    return wording.format(*values, column=condition.column.words)


def _value(value: Value, quotes: str) -> str:
    return quotes.format(value) if isinstance(value, str) else str(value)
