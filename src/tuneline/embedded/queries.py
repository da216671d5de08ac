"""Queries as data: drawing one at random, writing it as SQL, naming its shape."""

import hashlib
import random
from dataclasses import dataclass, replace
from typing import Literal

from tuneline.embedded.world import Column, Database, Split, Table, Value, value_of

Operator = Literal["=", "!=", ">", "<", ">=", "<=", "BETWEEN", "LIKE"]
Aggregate = Literal["COUNT", "AVG", "SUM", "MAX", "MIN"]
Family = Literal["list", "aggregate", "group", "order", "distinct", "join", "join_count"]

FAMILIES: tuple[Family, ...] = (
    "list",
    "list",
    "aggregate",
    "aggregate",
    "group",
    "order",
    "distinct",
    "join",
    "join_count",
)
TEXT_OPERATORS: tuple[Operator, ...] = ("=", "=", "=", "!=", "LIKE")
NUMBER_OPERATORS: tuple[Operator, ...] = ("=", ">", "<", ">=", "<=", "BETWEEN")
HELD_OUT_SHAPE_SHARE = 4  # one shape of two conditions in four is asked in the test set only


@dataclass(frozen=True, slots=True)
class Condition:
    column: Column
    operator: Operator
    values: tuple[Value, ...]


@dataclass(frozen=True, slots=True)
class Query:
    """One SELECT. For the join families `table` is the child and the conditions are on the parent."""

    database: Database
    family: Family
    table: Table
    columns: tuple[Column, ...]
    conditions: tuple[Condition, ...]
    connector: Literal["AND", "OR"]
    aggregate: Aggregate | None
    group: Column | None
    order: Column | None
    descending: bool
    limit: int | None

    @property
    def shape(self) -> str:
        """What is left of the query without its names and values: family, operators, aggregate, order."""
        operators = f" {self.connector} ".join(condition.operator for condition in self.conditions)
        parts = (
            self.family,
            len(self.columns),
            operators,
            self.aggregate,
            self.descending,
            self.limit is not None,
        )
        return "|".join(str(part) for part in parts)

    @property
    def has_held_out_shape(self) -> bool:
        """Whether training never shows this combination (of two conditions or more; single ones are all taught)."""
        digest = hashlib.sha256(self.shape.encode()).hexdigest()
        return len(self.conditions) > 1 and int(digest, 16) % HELD_OUT_SHAPE_SHARE == 0


def random_query(database: Database, split: Split, rng: random.Random) -> Query:
    """A query whose values come from `split`; its family, table, columns and conditions are drawn from `rng`."""
    family = rng.choice(FAMILIES)
    table = database.child if family in ("join", "join_count") else rng.choice((database.parent, database.child))
    asked = database.parent if family in ("join", "join_count") else table
    conditions = _conditions(asked, family, split, rng)
    query = Query(
        database,
        family,
        table,
        (),
        conditions,
        rng.choice(("AND", "AND", "OR")),
        None,
        None,
        None,
        False,
        None,
    )
    used = {condition.column.name for condition in conditions}
    shown = [column for column in table.askable if column.name not in used] or list(table.askable)
    match family:
        case "list":
            return replace(query, columns=tuple(rng.sample(shown, min(len(shown), rng.choice((1, 1, 2))))))
        case "join":
            return replace(query, columns=(rng.choice(shown),))
        case "distinct":
            return replace(query, columns=(rng.choice(table.labels or table.texts or table.askable),))
        case "join_count":
            return replace(query, aggregate="COUNT")
        case "aggregate":
            return _with_aggregate(query, rng)
        case "group":
            return replace(_with_aggregate(query, rng), group=rng.choice(table.labels or table.texts or table.askable))
        case "order":
            columns = (rng.choice(shown),)
            limit = rng.choice((None, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10))
            order = rng.choice(table.numbers)
            return replace(query, columns=columns, order=order, descending=rng.random() < 0.5, limit=limit)


def _with_aggregate(query: Query, rng: random.Random) -> Query:
    aggregates: tuple[Aggregate, ...] = ("COUNT", "AVG", "SUM", "MAX", "MIN")
    aggregate = rng.choice(("COUNT", *aggregates))
    columns = () if aggregate == "COUNT" else (rng.choice(query.table.numbers),)
    return replace(query, aggregate=aggregate, columns=columns)


def _conditions(table: Table, family: Family, split: Split, rng: random.Random) -> tuple[Condition, ...]:
    at_least = 1 if family in ("list", "join", "join_count") else 0
    count = max(at_least, rng.choice((0, 1, 1, 1, 2) if at_least == 0 else (1, 1, 2)))
    columns = rng.sample(table.askable, min(count, len(table.askable)))
    return tuple(_condition(column, split, rng) for column in columns)


def _condition(column: Column, split: Split, rng: random.Random) -> Condition:
    operator = rng.choice(TEXT_OPERATORS if column.is_text else NUMBER_OPERATORS)
    values = [value_of(column, split, rng)]
    if operator == "BETWEEN":
        values = sorted([*values, value_of(column, split, rng)], key=int)
    if operator == "LIKE":
        values = [str(values[0]).split()[0]]
    return Condition(column, operator, tuple(values))


def sql(query: Query) -> str:
    """The query in SQLite's dialect, ending in a semicolon."""
    joined = query.family in ("join", "join_count")
    prefix = f"{query.table.name}." if joined else ""
    parts = [f"SELECT {_selection(query, prefix)} FROM {query.table.name}"]
    if joined:
        parent = query.database.parent.name
        parts.append(f"JOIN {parent} ON {query.table.name}.{query.database.reference.name} = {parent}.id")
    if query.conditions:
        owner = f"{query.database.parent.name}." if joined else ""
        parts.append("WHERE " + f" {query.connector} ".join(_condition_sql(c, owner) for c in query.conditions))
    if query.group:
        parts.append(f"GROUP BY {query.group.name}")
    if query.order:
        parts.append(f"ORDER BY {query.order.name} {'DESC' if query.descending else 'ASC'}")
    if query.limit:
        parts.append(f"LIMIT {query.limit}")
    return " ".join(parts) + ";"


def _selection(query: Query, prefix: str) -> str:
    if query.aggregate:
        column = query.columns[0].name if query.columns else "*"
        grouped = f"{query.group.name}, " if query.group else ""
        return f"{grouped}{query.aggregate}({column})"
    distinct = "DISTINCT " if query.family == "distinct" else ""
    return distinct + ", ".join(prefix + column.name for column in query.columns)


def _condition_sql(condition: Condition, owner: str) -> str:
    name, values = owner + condition.column.name, [literal(value) for value in condition.values]
    match condition.operator:
        case "BETWEEN":
            return f"{name} BETWEEN {values[0]} AND {values[1]}"
        case "LIKE":
            return f"{name} LIKE '{condition.values[0]}%'"
        case operator:
            return f"{name} {operator} {values[0]}"


def literal(value: Value) -> str:
    """The value as an SQL literal; made-up words hold no quotes."""
    return f"'{value}'" if isinstance(value, str) else str(value)
