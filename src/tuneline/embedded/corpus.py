"""The base model's corpus: SQL scripts with remarks, lists of questions, inserted rows. No chat, no answered question.

Every document is about a made-up database of its own, so that names and values can only be copied from the context,
never remembered. No held-out value occurs, and no question is ever followed by the query that answers it.
"""

import random
from collections.abc import Callable, Iterator

from tuneline.embedded.english import comment, question
from tuneline.embedded.queries import literal, random_query, sql
from tuneline.embedded.world import Database, Table, Value, random_database, value_of

DocumentStyle = Callable[[Database, random.Random], str]


def documents(seed: int, annotated_weight: int, uncommon_table_fraction: float) -> Iterator[str]:
    """Endless documents; the same arguments give the same ones.

    Of 8 + `annotated_weight` documents, `annotated_weight` have the remarks in front of the queries. A table bears
    an uncommon name with probability `uncommon_table_fraction`, so that names of several tokens are copied too.
    """
    rng = random.Random(seed)
    styles: tuple[DocumentStyle, ...] = (script, script, script, script, script, questions, rows, views)
    styles += (annotated,) * annotated_weight
    while True:
        yield rng.choice(styles)(random_database(rng, uncommon_table_fraction), rng)


def script(database: Database, rng: random.Random) -> str:
    """A schema and queries, each with a remark behind it."""
    return "\n".join([_schema(database, rng), *(_remarked(database, rng) for _ in range(rng.randint(3, 6)))])


def annotated(database: Database, rng: random.Random) -> str:
    """A schema and queries, each with its remark on the line above."""
    lines = [_schema(database, rng)]
    for _ in range(rng.randint(3, 6)):
        statement, remark = _remarked(database, rng).split(" -- ")
        lines += [f"-- {remark}", statement]
    return "\n".join(lines)


def questions(database: Database, rng: random.Random) -> str:
    """A schema and what people ask about it, most things asked twice in other words; no answers."""
    lines = [_schema(database, rng)]
    for _ in range(rng.randint(3, 5)):
        query = random_query(database, "train", rng)
        lines += [question(query, rng, held_out=True) for _ in range(rng.choice((1, 2, 2)))]
    return "\n".join(lines)


def rows(database: Database, rng: random.Random) -> str:
    """Inserted rows, then statements that repeat some of the inserted values."""
    table = rng.choice((database.parent, database.child))
    inserted = [_random_row(table, rng) for _ in range(rng.randint(2, 5))]
    lines = [table.create] + [insert(table, row) for row in inserted]
    for row in rng.sample(inserted, min(2, len(inserted))):
        column = rng.choice(table.columns)
        value = literal(row[table.columns.index(column)])
        lines.append(
            rng.choice(("DELETE FROM {}", "SELECT * FROM {}")).format(table.name) + f" WHERE {column.name} = {value};"
        )
    return "\n".join(lines)


def views(database: Database, rng: random.Random) -> str:
    """Queries repeated inside other statements."""
    lines = [_schema(database, rng)]
    for number in range(rng.randint(2, 3)):
        line = _remarked(database, rng)
        query = line.split(" -- ")[0]
        lines += [line, rng.choice((f"CREATE VIEW view_{number} AS {query}", f"EXPLAIN QUERY PLAN {query}"))]
    return "\n".join(lines)


def insert(table: Table, row: tuple[Value, ...]) -> str:
    """An INSERT statement for one row."""
    return f"INSERT INTO {table.name} VALUES ({', '.join(literal(value) for value in row)});"


def _remarked(database: Database, rng: random.Random) -> str:
    query = random_query(database, "train", rng)
    return f"{sql(query)} -- {comment(query, rng)}"


def _schema(database: Database, rng: random.Random) -> str:
    return database.create + rng.choice(("\n", ""))


def _random_row(table: Table, rng: random.Random) -> tuple[Value, ...]:
    return tuple(
        rng.randint(1, 99) if column.kind in ("id", "reference") else value_of(column, "train", rng)
        for column in table.columns
    )
