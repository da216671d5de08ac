"""Cleaned parts of a file on disk, between the rules that look at one row and those that compare rows.

Only numbers about the rows stay in memory (about 80 bytes each); texts and MinHash bands lie in files.
"""

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np

from tuneline.config.schema import CleanConfig
from tuneline.data.accounting import Tally
from tuneline.data.arrays import Flags, Hashes, Indexes
from tuneline.data.dedup import keys_of
from tuneline.data.parallel import LineRange
from tuneline.data.record_files import as_line, example_of, rejected_as_json
from tuneline.data.records import TEACHER_KEY, Example, contents, place_of
from tuneline.data.row_rules import CleanedRows
from tuneline.data.shingles import offsets_of
from tuneline.errors import DataError


@dataclass(frozen=True, slots=True)
class Work:
    """What every part is cleaned with."""

    rules: CleanConfig
    sources: tuple[str, ...]  # names, in the order of data.sources
    held_out: frozenset[str]  # sources whose rows pass untouched
    folder: Path  # where the parts' files go


@dataclass(frozen=True)
class CleanedPart:
    """One cleaned part; rows are those that the row rules kept, in their order."""

    sources: tuple[str, ...]  # see Work
    stem: Path  # the part's files are <stem>.kept, .rejected and .bands
    tally: Tally
    number: Indexes  # [n_rows] place among the part's rows as read
    n_bytes: Indexes  # [n_rows] of the row's line
    files: tuple[str, ...]  # names of the files that the rows come from
    file: Indexes  # [n_rows] index in files
    line: Indexes  # [n_rows] of that file
    source: Indexes  # [n_rows] index of its source
    is_taught: Flags  # [n_rows] True for rows that a teacher model wrote
    n_chars: Indexes  # [n_rows] of all its texts
    in_pool: Flags  # [n_rows] False for rows of held-out sources
    content: Hashes  # [n_rows] see dedup.CopyKeys
    folded: Hashes  # [n_rows]
    rejected_number: Indexes  # [n_rejected] place among the part's rows as read
    rejected_n_bytes: Indexes  # [n_rejected] of its line in the file of rejected rows

    def place(self, row: int) -> str:
        """See `Example.place`."""
        return place_of(self.sources[self.source[row]], self.files[self.file[row]], int(self.line[row]))

    @cached_property
    def offsets(self) -> Indexes:
        """[n_rows + 1] Where each row's line begins in the file of kept rows."""
        return offsets_of(self.n_bytes)

    def count_by_source(self, keep: Flags) -> Counter[str]:
        """Flagged rows of each source that has some."""
        counts = np.bincount(self.source[keep], minlength=len(self.sources))
        return Counter({name: int(n) for name, n in zip(self.sources, counts, strict=True) if n})

    def examples(self, rows: Sequence[int]) -> Iterator[Example]:
        """The rows, read from disk."""
        return kept_examples_at(self.stem, [(int(self.offsets[row]), int(self.n_bytes[row])) for row in rows])

    def kept_lines(self, keep: Flags) -> bytes:
        """Lines of the rows flagged. In one piece: a file system stores it twice as fast as many small ones."""
        data = memoryview(_suffixed(self.stem, "kept").read_bytes())
        edges = np.flatnonzero(np.diff(keep, prepend=False, append=False))  # neighbours together
        return b"".join([data[self.offsets[begin] : self.offsets[end]] for begin, end in edges.reshape(-1, 2)])

    def rejected_lines(self) -> Iterator[tuple[int, bytes]]:
        """(place among the part's rows, line of the file of rejected rows)"""
        with _suffixed(self.stem, "rejected").open("rb") as file:
            for number, n_bytes in zip(self.rejected_number, self.rejected_n_bytes, strict=True):
                yield int(number), file.read(int(n_bytes))


def kept_examples_at(stem: Path, where: Sequence[tuple[int, int]]) -> Iterator[Example]:
    """Kept rows of the part with that stem, by offset and length in bytes."""
    path = _suffixed(stem, "kept")
    with path.open("rb") as file:
        for offset, n_bytes in where:
            file.seek(offset)
            yield example_of(file.read(n_bytes), str(path))


def band_of(stem: Path, n_rows: int, band: int) -> Hashes:
    """[n_rows] One band of the part with that stem, the others stay on disk."""
    return np.fromfile(f"{stem}.bands", np.uint64, n_rows, offset=band * n_rows * 8)


def bands_of(stem: Path, n_bands: int) -> Hashes:
    """[n_rows, n_bands] All bands of the part with that stem."""
    return np.fromfile(f"{stem}.bands", np.uint64).reshape(n_bands, -1).T


def clean_part(work: Work, numbered: tuple[int, LineRange]) -> CleanedPart:
    """Apply the row rules to the part and make the keys by which its rows are compared with all others."""
    number, part = numbered
    rows = CleanedRows(_lines(part), f"{part.path}, behind byte {part.begin}")
    rows.apply(work.rules, work.held_out)
    stem = work.folder / f"{number:08}"
    examples = list(rows.kept.values())
    files = sorted({example.file for example in examples})
    keys = keys_of(examples, work.rules)
    keys.bands.T.tofile(f"{stem}.bands")  # column after column, as they are read: [bands, n_rows]
    rejected = sorted(rows.rejected.items())
    return CleanedPart(
        sources=work.sources,
        stem=stem,
        tally=rows.tally,
        number=_numbers(rows.kept),
        n_bytes=_write(_suffixed(stem, "kept"), [rows.line(place) for place in rows.kept]),
        files=tuple(files),
        file=_places([example.file for example in examples], files),
        line=_numbers(example.line for example in examples),
        source=_source_numbers(examples, work.sources, part),
        is_taught=np.array([TEACHER_KEY in example.meta for example in examples], np.bool_),
        n_chars=_numbers(sum(map(len, contents(example))) for example in examples),
        in_pool=np.array([example.source not in work.held_out for example in examples], np.bool_),
        content=keys.content,
        folded=keys.folded,
        rejected_number=_numbers(place for place, _ in rejected),
        rejected_n_bytes=_write(_suffixed(stem, "rejected"), [as_line(rejected_as_json(row)) for _, row in rejected]),
    )


def _write(path: Path, lines: Sequence[bytes]) -> Indexes:
    """[n_lines] Their sizes in bytes."""
    path.write_bytes(b"".join(lines))
    return _numbers(map(len, lines))


def _source_numbers(examples: Sequence[Example], sources: Sequence[str], part: LineRange) -> Indexes:
    if unknown := {example.source for example in examples}.difference(sources):
        raise DataError(f"{part.path}: source {sorted(unknown)[0]!r} is not in data.sources; run ingest again")
    return _places([example.source for example in examples], sources)


def _lines(part: LineRange) -> list[bytes]:
    with part.path.open("rb") as file:
        file.seek(part.begin)
        return file.read(part.end - part.begin).splitlines(keepends=True)


def _suffixed(stem: Path, suffix: str) -> Path:
    return stem.with_name(f"{stem.name}.{suffix}")


def _places(names: Sequence[str], among: Sequence[str]) -> Indexes:
    """[n_names] The index of each name."""
    index = {name: place for place, name in enumerate(among)}
    return _numbers(index[name] for name in names)


def _numbers(values: Iterable[int]) -> Indexes:
    return np.fromiter(values, np.int64)
