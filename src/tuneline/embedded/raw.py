"""Write the raw data: `python -m tuneline.embedded.raw --out data/raw/text_to_sql`; the same bytes every time."""

import argparse
import itertools
import json
import random
import sqlite3
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from tuneline.embedded.corpus import insert, script
from tuneline.embedded.dirt import soiled
from tuneline.embedded.english import question
from tuneline.embedded.queries import Query, random_query, sql
from tuneline.embedded.world import DATABASES, Column, Database, Table, Value, any_value, is_held_out
from tuneline.output import write_text

Row = dict[str, Any]

SEED = 20260
N_POOL, N_TEST, N_DOCUMENTS, N_CHOICES = 4800, 600, 400, 120
N_PARENT_ROWS, N_CHILD_ROWS = 40, 80
HELD_OUT_SHAPE_TEST_FRACTION = 0.2
PROMPT = "{schema}\n\nQuestion: {question}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True)
    out = parser.parse_args().out
    filled = {database.name: fill(database, random.Random(f"{SEED} {database.name}")) for database in DATABASES}
    for name, statements in filled.items():
        write_text(out / "databases" / f"{name}.sql", "\n".join(statements) + "\n")
    test = list(itertools.islice(test_rows(filled, random.Random(f"{SEED} test")), N_TEST))
    pool = list(itertools.islice(pool_rows(random.Random(f"{SEED} pool")), N_POOL))
    write_rows(out / "test.jsonl", test)
    write_rows(out / "pool.jsonl", soiled(pool, test, random.Random(f"{SEED} dirt")))
    write_rows(out / "documents.jsonl", document_rows(random.Random(f"{SEED} documents")))
    write_rows(out / "choices.jsonl", choice_rows(test, random.Random(f"{SEED} choices")))


def write_rows(path: Path, rows: Iterable[Row]) -> None:
    """JSON Lines, keys in the given order."""
    write_text(path, "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))


def fill(database: Database, rng: random.Random) -> list[str]:
    """The SQL script of a populated database. A label or place column has a dozen values, so that groups exist."""
    lines = [database.parent.create, database.child.create]
    for table, n_rows in ((database.parent, N_PARENT_ROWS), (database.child, N_CHILD_ROWS)):
        common = {column.name: [any_value(column, rng) for _ in range(12)] for column in table.labels}
        lines += [insert(table, _row(table, number, common, rng)) for number in range(1, n_rows + 1)]
    return lines


def _row(table: Table, number: int, common: dict[str, list[Value]], rng: random.Random) -> tuple[Value, ...]:
    def cell(column: Column) -> Value:
        match column.kind:
            case "id":
                return number
            case "reference":
                return rng.randint(1, N_PARENT_ROWS)
            case _:
                return rng.choice(common[column.name]) if column.name in common else any_value(column, rng)

    return tuple(cell(column) for column in table.columns)


def pool_rows(rng: random.Random) -> Iterator[Row]:
    """Endless training rows: taught wordings, values and shapes only, each prompt once."""
    seen: set[str] = set()
    while True:
        query = random_query(rng.choice(DATABASES), "train", rng)
        row = as_row(query, question(query, rng))
        if not query.has_held_out_shape and row["prompt"] not in seen:
            seen.add(row["prompt"])
            yield row


def test_rows(filled: dict[str, list[str]], rng: random.Random) -> Iterator[Row]:
    """Endless test rows: values that training never shows, all wordings, a fifth of them with an unseen shape."""
    stored = {name: _StoredValues(statements) for name, statements in filled.items()}
    seen: set[str] = set()
    while True:
        wanted = rng.random() < HELD_OUT_SHAPE_TEST_FRACTION
        query = next(q for q in _answerable(stored, rng) if q.has_held_out_shape == wanted)
        row = as_row(query, question(query, rng, held_out=True))
        if row["prompt"] not in seen:
            seen.add(row["prompt"])
            yield row


def _answerable(stored: dict[str, "_StoredValues"], rng: random.Random) -> Iterator[Query]:
    while True:
        database = rng.choice(DATABASES)
        query = stored[database.name].with_stored_values(random_query(database, "test", rng), rng)
        if query and stored[database.name].distinguishes(query):
            yield query


def as_row(query: Query, asked: str) -> Row:
    """A prompt/completion row as the data room reads it."""
    prompt = PROMPT.format(schema=query.database.create, question=asked)
    return {"prompt": prompt, "completion": sql(query), "database": query.database.name}


def document_rows(rng: random.Random) -> list[Row]:
    """Raw text for continued pre-training: scripts with remarks about the task's own databases."""
    return [{"text": script(rng.choice(DATABASES), rng)} for _ in range(N_DOCUMENTS)]


def choice_rows(test: list[Row], rng: random.Random) -> list[Row]:
    """Four-way choices for lm-eval: the right query among three for other questions about the same database."""
    rows = []
    for row in rng.sample(test, N_CHOICES):
        others = [
            r["completion"] for r in test if r["database"] == row["database"] and r["completion"] != row["completion"]
        ]
        choices = [row["completion"], *rng.sample(sorted(set(others)), 3)]
        rng.shuffle(choices)
        rows.append({"question": row["prompt"], "choices": choices, "answer": choices.index(row["completion"])})
    return rows


class _StoredValues:
    """A populated database, for choosing test values that occur in it and queries that its rows can tell apart."""

    def __init__(self, statements: list[str]) -> None:
        self.connection = sqlite3.connect(":memory:")
        self.connection.executescript("\n".join(statements))

    def with_stored_values(self, query: Query, rng: random.Random) -> Query | None:
        """The query with its text conditions on held-out values that are stored; None where there is no such value."""
        owner = query.database.parent if query.family in ("join", "join_count") else query.table
        conditions = []
        for condition in query.conditions:
            if not condition.column.is_text:
                conditions.append(condition)
                continue
            stored = [v for v in self._values(owner.name, condition.column.name) if is_held_out(v)]
            if not stored:
                return None
            value = rng.choice(stored)
            conditions.append(replace(condition, values=(value.split()[0] if condition.operator == "LIKE" else value,)))
        return replace(query, conditions=tuple(conditions))

    def distinguishes(self, query: Query) -> bool:
        """Whether the answer is not empty and would be another without any one of the conditions."""
        answer = self._answer(query)
        if not answer or answer == [(None,)] or answer == [(0,)]:
            return False
        weaker = (
            replace(query, conditions=query.conditions[:i] + query.conditions[i + 1 :])
            for i in range(len(query.conditions))
        )
        return all(self._answer(other) != answer for other in weaker)

    def _answer(self, query: Query) -> list[tuple[Any, ...]]:
        return self.connection.execute(sql(query)).fetchall()

    def _values(self, table: str, column: str) -> list[str]:
        return [row[0] for row in self.connection.execute(f"SELECT DISTINCT {column} FROM {table} ORDER BY 1")]


if __name__ == "__main__":
    main()
