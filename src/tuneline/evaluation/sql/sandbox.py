"""SQLite for SQL that nobody has read: it can read one database, for a while, and nothing else.

Three walls. An authorizer refuses, when a statement is compiled, whatever is no SELECT with known functions.
`PRAGMA query_only`, SQLite's size limits, a heap limit and a deadline bound what a compiled statement may do.
What these cannot stop (one long call of one built-in function) ends with the worker process that
`tuneline.evaluation.sql.worker` runs all of this in.
"""

import itertools
import sqlite3
import time
from collections.abc import Iterator
from dataclasses import dataclass

Value = int | float | str | bytes | None
Row = tuple[Value, ...]

MAX_SQL_BYTES = 10_000
MAX_VALUE_BYTES = 1_000_000  # one text, blob or row
MAX_RESULT_BYTES = 16_000_000  # all rows of one result
MAX_HEAP_BYTES = 512 << 20  # what SQLite may allocate in the whole process, the databases included
PROGRESS_STEPS = 1_000  # virtual machine steps between two looks at the clock

READING_ACTIONS = frozenset(
    {sqlite3.SQLITE_SELECT, sqlite3.SQLITE_READ, sqlite3.SQLITE_FUNCTION, sqlite3.SQLITE_RECURSIVE}
)
# What a script may do while it builds the database: everything but reach files or other code.
BUILDING_REFUSED = frozenset(
    {sqlite3.SQLITE_ATTACH, sqlite3.SQLITE_DETACH, sqlite3.SQLITE_CREATE_VTABLE, sqlite3.SQLITE_DROP_VTABLE}
)
ACTION_NAMES = {
    sqlite3.SQLITE_ATTACH: "ATTACH",
    sqlite3.SQLITE_DETACH: "DETACH",
    sqlite3.SQLITE_DELETE: "DELETE",
    sqlite3.SQLITE_FUNCTION: "the function",
    sqlite3.SQLITE_INSERT: "INSERT",
    sqlite3.SQLITE_PRAGMA: "PRAGMA",
    sqlite3.SQLITE_SAVEPOINT: "SAVEPOINT",
    sqlite3.SQLITE_TRANSACTION: "a transaction",
    sqlite3.SQLITE_UPDATE: "UPDATE",
}
# Functions of their arguments only: no random(), load_extension(), readfile() or counters.
_FUNCTION_NAMES = """
abs avg ceil ceiling char coalesce concat concat_ws count cume_dist date datetime dense_rank exp first_value
floor format glob group_concat hex ifnull iif instr julianday lag last_value lead length like ln log log10
log2 lower ltrim max min mod nth_value ntile nullif percent_rank pi pow power printf quote rank replace round
row_number rtrim sign sqrt strftime string_agg substr substring sum time total trim trunc typeof unicode
unixepoch upper
"""
FUNCTIONS = frozenset(_FUNCTION_NAMES.split())


@dataclass(frozen=True, slots=True)
class Result:
    """The rows a statement gave, in its order; `n_columns` tells empty results of different shape apart."""

    rows: tuple[Row, ...]
    n_columns: int


@dataclass(frozen=True, slots=True)
class Failure:
    """Why a statement gave no result: a kind to count by, and SQLite's own words."""

    kind: str
    detail: str

    def __str__(self) -> str:
        return f"{self.kind}: {self.detail}"


class ScriptError(Exception):
    """The script that builds a database cannot be run."""


class Sandbox:
    """One database in memory, built by a script, that statements can then only read."""

    def __init__(self, script: str) -> None:
        """Build the database. Raises `ScriptError` with SQLite's message."""
        self._connection = sqlite3.connect(":memory:", isolation_level=None)
        self._connection.text_factory = _decode
        self._refused = ""
        self._build(script)
        self._lock()

    def close(self) -> None:
        self._connection.close()

    def run(self, sql: str, timeout_s: float, max_rows: int) -> Result | Failure:
        """The first `max_rows` rows of one statement, or why there are none."""
        self._refused = ""
        self._set_deadline(timeout_s)
        try:
            cursor = self._connection.execute(sql)
            if cursor.description is None:
                return Failure("no query", "the answer is empty or returns no rows")
            return Result(tuple(_bounded(cursor, max_rows)), len(cursor.description))
        except MemoryError:
            return Failure("size limit", "out of memory")
        except (sqlite3.Error, sqlite3.Warning, UnicodeError, ValueError) as error:
            return self._failure(error)

    def _build(self, script: str) -> None:
        self._connection.execute(f"PRAGMA hard_heap_limit = {MAX_HEAP_BYTES}")
        self._connection.set_authorizer(self._may_build)
        try:
            self._connection.executescript(script)
        except (sqlite3.Error, sqlite3.Warning, MemoryError, UnicodeError, ValueError) as error:
            self.close()
            raise ScriptError(str(self._failure(error))) from None

    def _lock(self) -> None:
        connection = self._connection
        connection.set_authorizer(None)
        connection.execute("PRAGMA temp_store = MEMORY")  # large sorts count against the heap limit, not the disk
        connection.execute("PRAGMA query_only = ON")
        connection.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, MAX_VALUE_BYTES)
        connection.setlimit(sqlite3.SQLITE_LIMIT_SQL_LENGTH, MAX_SQL_BYTES)
        connection.setlimit(sqlite3.SQLITE_LIMIT_ATTACHED, 0)
        connection.setlimit(sqlite3.SQLITE_LIMIT_EXPR_DEPTH, 200)
        connection.setlimit(sqlite3.SQLITE_LIMIT_COMPOUND_SELECT, 50)
        connection.set_authorizer(self._may_read)

    def _set_deadline(self, timeout_s: float) -> None:
        deadline = time.monotonic() + timeout_s
        self._connection.set_progress_handler(lambda: time.monotonic() > deadline, PROGRESS_STEPS)

    def _may_read(self, action: int, first: str | None, second: str | None, *_: str | None) -> int:
        known = action != sqlite3.SQLITE_FUNCTION or (second or "").lower() in FUNCTIONS
        return self._answer(action in READING_ACTIONS and known, action, first, second)

    def _may_build(self, action: int, first: str | None, second: str | None, *_: str | None) -> int:
        loads_code = action == sqlite3.SQLITE_FUNCTION and (second or "").lower() == "load_extension"
        return self._answer(action not in BUILDING_REFUSED and not loads_code, action, first, second)

    def _answer(self, allowed: bool, action: int, first: str | None, second: str | None) -> int:
        if allowed:
            return sqlite3.SQLITE_OK
        subject = second if action == sqlite3.SQLITE_FUNCTION else first
        self._refused = f"{ACTION_NAMES.get(action, 'a statement that is no SELECT')} {subject or ''}".strip()
        return sqlite3.SQLITE_DENY

    def _failure(self, error: Exception) -> Failure:
        if self._refused:
            return Failure("forbidden", f"{self._refused} is not allowed")
        return Failure(_kind(str(error)), str(error))


def _kind(message: str) -> str:
    """SQLite tells these apart by its message only: most share the code SQLITE_ERROR."""
    kinds = {
        "interrupted": "time limit",
        "too big": "size limit",
        "too large": "size limit",
        "one statement": "forbidden",
        "syntax error": "syntax error",
        "incomplete input": "syntax error",
        "unrecognized token": "syntax error",
        "no such": "unknown name",
        "ambiguous column": "unknown name",
    }
    return next((kind for words, kind in kinds.items() if words in message), "SQL error")


def _bounded(cursor: sqlite3.Cursor, max_rows: int) -> Iterator[Row]:
    size_bytes = 0
    for row in itertools.islice(cursor, max_rows):
        size_bytes += sum(8 + (len(value) if isinstance(value, str | bytes) else 0) for value in row)
        if size_bytes > MAX_RESULT_BYTES:
            raise ValueError(f"the result is too large: over {MAX_RESULT_BYTES} bytes")
        yield row


def _decode(value: bytes) -> str:
    return value.decode("utf-8", "surrogateescape")  # CAST(x'ff' AS TEXT) is a text without being UTF-8
