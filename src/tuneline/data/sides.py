"""Which side a row is on, drawn by hash: it depends on the row's own prompt and nothing else."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any, BinaryIO, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from tuneline.config.schema import SourceConfig, SplitConfig
from tuneline.data.arrays import Flags, Hashes, Indexes
from tuneline.data.parallel import LineRange
from tuneline.data.prompts import group_key, prompt_keys
from tuneline.data.record_files import example_of
from tuneline.data.records import TEACHER_KEY, Example, id_number
from tuneline.errors import DataError

Side = Literal["train", "val", "test", "benchmark", "none"]

SIDES: tuple[Side, ...] = ("train", "val", "test", "benchmark", "none")
_BLOCK_BYTES = 2**20
_DTYPES = (np.int64, np.int64, np.uint64, np.uint64, np.int64, np.int64, np.uint64)  # of the fields of DrawnRows


class DrawnRows(NamedTuple):
    """Rows as numbers, with the side that was drawn for each."""

    source: Indexes  # [n_rows] index of its source
    side: Indexes  # [n_rows] index into SIDES
    id: Hashes  # [n_rows] the id as a number
    seed: Hashes  # [n_rows] id of the row that a teacher made it from; 0 for rows that no teacher wrote
    offset: Indexes  # [n_rows] where its line begins in its file
    n_prompts: Indexes  # [n_rows]
    prompts: Hashes  # [sum of n_prompts] prompt_keys; the last one of a row is its own

    def groups(self) -> Hashes:
        """[n_rows] Rows with one prompt have one number; they are on one side."""
        return self.prompts[np.cumsum(self.n_prompts) - 1]

    def is_learned(self) -> Flags:
        """[n_rows] Rows that are trained on or validated on."""
        return self.side < SIDES.index("test")

    def is_held_out(self) -> NDArray[np.bool_]:
        """[n_rows] Test and benchmark rows."""
        return np.isin(self.side, [SIDES.index("test"), SIDES.index("benchmark")])


def all_rows(parts: Sequence[DrawnRows]) -> DrawnRows:
    """The rows of all parts."""
    return _as_rows([np.concatenate(column) for column in zip(_as_rows([[]] * len(_DTYPES)), *parts, strict=True)])


def _as_rows(columns: Sequence[Sequence[int] | NDArray[Any]]) -> DrawnRows:
    arrays: list[NDArray[Any]] = [np.asarray(column, dtype) for column, dtype in zip(columns, _DTYPES, strict=True)]
    return DrawnRows(*arrays)


@dataclass(frozen=True, slots=True)
class StoredRows:
    """Rows that are read from their files when they are asked for, so that none is held in memory."""

    files: Sequence[Path]
    file: Indexes  # [n_rows] index of its file, ascending
    offset: Indexes  # [n_rows] where its line begins there

    def __len__(self) -> int:
        return len(self.file)

    def __getitem__(self, index: int) -> Example:
        (row,) = examples_at(self.files[int(self.file[index])], [int(self.offset[index])])
        return row

    def __iter__(self) -> Iterator[Example]:
        for number, path in enumerate(self.files):
            yield from examples_at(path, map(int, self.offset[self.file == number]))


def scan(sources: Sequence[SourceConfig], settings: SplitConfig, part: LineRange) -> DrawnRows:
    """Draw the sides of a part's rows. Raises `DataError` with file:line for a line that is no example."""
    numbers = {source.name: number for number, source in enumerate(sources)}
    columns: tuple[list[int], ...] = tuple([] for _ in _DTYPES)
    for offset, example in examples_in(part):
        if example.source not in numbers:
            raise DataError(f"{part.path}: source {example.source!r} is not in data.sources; run ingest again")
        number, keys = numbers[example.source], prompt_keys(example)
        side = _side(sources[number], example, settings)
        values = (number, SIDES.index(side), id_number(example.id), _seed(example), offset, len(keys))
        for column, value in zip(columns, values, strict=False):
            column.append(value)
        columns[-1].extend(keys)
    return _as_rows(columns)


def examples_in(part: LineRange) -> Iterator[tuple[int, Example]]:
    """Where each row's line begins in the file, and the row."""
    with part.path.open("rb") as file:
        file.seek(part.begin)
        offset = part.begin
        while offset < part.end:
            line = file.readline()
            if not line.isspace():
                yield offset, _example(line, part.path, offset)
            offset += len(line)


def examples_at(path: Path, offsets: Iterable[int]) -> Iterator[Example]:
    """The rows whose lines begin there."""
    with path.open("rb") as file:
        for offset in offsets:
            file.seek(offset)
            yield _example(file.readline(), path, offset)


def _example(line: bytes, path: Path, offset: int) -> Example:
    try:
        return example_of(line, "")
    except DataError:
        place = f"{path}:{_line_number(path, offset)}"
        return example_of(line, place)


def _line_number(path: Path, offset: int) -> int:
    """1-based; counted for messages only."""
    with path.open("rb") as file:
        return 1 + sum(block.count(b"\n") for block in _blocks(file, offset))


def _blocks(file: BinaryIO, n_bytes: int) -> Iterator[bytes]:
    """The first bytes of the file."""
    for begin in range(0, n_bytes, _BLOCK_BYTES):
        yield file.read(min(_BLOCK_BYTES, n_bytes - begin))


def place_on_unit_line(salt: str, key: str) -> float:
    """A number in [0, 1), uniform over keys, from the first 53 bits of the SHA-256 of salt and key."""
    digest = sha256(f"{salt}\0{key}".encode("utf-8", "surrogatepass")).digest()
    return (int.from_bytes(digest[:8], "big") >> 11) / 2**53


def is_trained_on(example: Example, settings: SplitConfig) -> bool:
    """Whether a row of the pool will be drawn for training."""
    return _drawn(example, settings) == "train"


def _side(source: SourceConfig, example: Example, settings: SplitConfig) -> Side:
    match source.role:
        case "test" | "benchmark" as held_out:
            return held_out
        case "replay":
            return "train"
    drawn = _drawn(example, settings)
    if TEACHER_KEY in example.meta and drawn != "train":
        return "none"  # what is measured are rows that people wrote
    return drawn


def _seed(example: Example) -> int:
    match example.meta.get(TEACHER_KEY):
        case {"seed_row": str(row)}:
            return id_number(row)
    return 0


def _drawn(example: Example, settings: SplitConfig) -> Side:
    """Test from the bottom of the unit line, validation from its top, so that neither moves the other's bound."""
    place = place_on_unit_line(settings.salt, group_key(example))
    # raw text has no answer to score: it is learned from or validated on
    if place < settings.test_fraction and example.text is None:
        return "test"
    return "val" if place >= 1 - settings.val_fraction else "train"
