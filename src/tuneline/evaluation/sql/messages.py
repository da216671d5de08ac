"""What parent and sandbox process say to each other, as JSON.

No pickle: the child has run SQL that nobody has read, and unpickling its bytes could run code in the parent. JSON as
Python writes it keeps every value apart that SQLite does: 1 from 1.0, infinity, exact floats, lone surrogates; only a
blob needs a form of its own, `{"blob": "<hex digits>"}`.
"""

import json
from typing import Any

from tuneline.evaluation.sql.sandbox import MAX_RESULT_BYTES, Failure, Result, Row, Value

# A character of a text is at most 12 bytes of JSON (two escapes), a number of 8 bytes less than 40 with its brackets.
MAX_MESSAGE_BYTES = 16 * MAX_RESULT_BYTES


def encode(message: object) -> bytes:
    """`message` consists of dicts, sequences and values of SQLite."""
    return json.dumps(message, default=_blob_as_json).encode("ascii")


def outcome_as_json(outcome: Result | Failure) -> dict[str, object]:
    match outcome:
        case Result(rows, n_columns):
            return {"rows": rows, "n_columns": n_columns}
        case Failure(kind, detail):
            return {"kind": kind, "detail": detail}


def read_outcome(data: bytes) -> Result | Failure:
    """Raises `ValueError` for bytes that are no outcome of a statement."""
    match _decode(data):
        case {"rows": list(rows), "n_columns": int(n_columns)}:
            return Result(tuple(_row(row, n_columns) for row in rows), n_columns)
        case {"kind": str(kind), "detail": str(detail)}:
            return Failure(kind, detail)
    raise ValueError("no outcome of a statement")


def read_problem(data: bytes) -> str | None:
    """What is wrong with the script of a database. Raises `ValueError` for bytes that do not say it."""
    match _decode(data):
        case {"problem": None | str() as problem}:
            return problem
    raise ValueError("no word on a script")


def read_request(data: bytes) -> dict[str, Any]:
    """In the child: what the parent asks for. Trusted, so not checked."""
    request: dict[str, Any] = _decode(data)
    return request


def _decode(data: bytes) -> Any:
    try:
        return json.loads(data)
    except RecursionError:
        raise ValueError("nested too deeply") from None


def _blob_as_json(value: object) -> dict[str, str]:
    assert isinstance(value, bytes)
    return {"blob": value.hex()}


def _row(values: object, n_columns: int) -> Row:
    match values:
        case [*values] if len(values) == n_columns:
            return tuple(map(_value, values))
    raise ValueError("no row")


def _value(value: object) -> Value:
    match value:
        case {"blob": str(digits)}:
            return bytes.fromhex(digits)
        case None | int() | float() | str() if not isinstance(value, bool):
            return value
    raise ValueError("no value of SQLite")
