"""The tokens and targets of training sequences, kept in Parquet."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import pyarrow as pa  # type: ignore[import-untyped]  # no stubs
import pyarrow.parquet as pq  # type: ignore[import-untyped]

from tuneline.errors import DataError
from tuneline.output import atomic_file

_ROWS_AT_ONCE = 256
_TOKENS_PER_GROUP = 2**24  # 128 MiB of tokens and labels
IGNORED = -100  # a label without loss, in Transformers and TRL
SCHEMA = pa.schema([("id", pa.string()), ("input_ids", pa.list_(pa.int32())), ("labels", pa.list_(pa.int32()))])


@dataclass(frozen=True, slots=True)
class TokenRow:
    """One training sequence. `labels[t]` is `input_ids[t]` where it is a target, else `IGNORED`; the first never
    is one, since nothing precedes it. So the targets of rows that share a packed row stay their own."""

    id: str
    input_ids: list[int]
    labels: list[int]

    @property
    def n_targets(self) -> int:
        """Tokens the model is trained to produce."""
        return sum(label != IGNORED for label in self.labels)


def write_tokens(path: Path, rows: Sequence[TokenRow]) -> None:
    """Write rows as Parquet, the same bytes for the same rows."""
    write_pieces(path, [rows])


def write_pieces(path: Path, pieces: Iterable[Sequence[TokenRow]]) -> None:
    """How the rows are divided into pieces does not show in the bytes."""
    with atomic_file(path) as temporary, pq.ParquetWriter(temporary, SCHEMA) as writer:
        for group in _groups(row for piece in pieces for row in piece):
            writer.write_table(pa.concat_tables(group).combine_chunks())


def _groups(rows: Iterable[TokenRow]) -> Iterator["list[pa.Table]"]:
    """Tables that together are a row group of the file: few enough tokens to be held; one without rows for no row."""
    tables, n_tokens, rest = [_as_table([])], 0, iter(rows)
    while piece := list(islice(rest, _ROWS_AT_ONCE)):
        tables.append(_as_table(piece))
        n_tokens += sum(len(row.input_ids) for row in piece)
        if n_tokens >= _TOKENS_PER_GROUP:
            yield tables
            tables, n_tokens = [], 0
    if tables:
        yield tables


def _as_table(rows: Sequence[TokenRow]) -> "pa.Table":
    columns = {
        "id": [row.id for row in rows],
        "input_ids": [row.input_ids for row in rows],
        "labels": [row.labels for row in rows],
    }
    return pa.table(columns, schema=SCHEMA)


def read_tokens(path: Path) -> list[TokenRow]:
    """Read what `write_tokens` wrote. Raises `DataError` when it is no such file."""
    try:
        table = pq.read_table(path, schema=SCHEMA)
    except (OSError, pa.ArrowException) as error:
        raise DataError(f"{path}: not a file of tokens ({error}); make it with the inspect stage") from error
    columns = [table.column(name).to_pylist() for name in SCHEMA.names]
    return [TokenRow(*values) for values in zip(*columns, strict=True)]
