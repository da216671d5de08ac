"""Safetensors files as they lie in a model's folder: one, or several with an index. Read in blocks of rows."""

import json
import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from tuneline.errors import ModelError
from tuneline.model.pickles import is_pickle_name

INDEX = "model.safetensors.index.json"
SHARDS = "model*.safetensors"  # what the index is of; other files beside them are read by nobody
BLOCK = 2**18  # values in a block, unless one row has more; what is in memory does not depend on a tensor's size


class Checkpoint:
    """The tensors of the model in `folder`. At most one of its files is mapped into memory at a time."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        refuse_pickles(folder)
        self.file_of = _files(folder)
        self._listing = INDEX if (folder / INDEX).is_file() else next(iter(self.file_of.values()), INDEX)
        self._open: tuple[str, Any] | None = None

    def blocks(self, name: str) -> Iterator[Tensor]:
        """The tensor's rows, `BLOCK` values at a time, in its type on disk. To be read, not written to.

        Raises `ModelError` when a value is not finite.
        """
        for block in row_blocks(self._file(self.file_of[name]).get_slice(name)):
            if block.is_floating_point() and not bool(torch.isfinite(block).all()):
                raise ModelError(
                    f"{self.path_of(name)}: tensor {name} holds values that are not finite; train it again"
                )
            yield block

    def path_of(self, name: str) -> Path:
        """The file that holds the tensor; where none does, the one that would have to tell of it."""
        return self.folder / self.file_of.get(name, self._listing)

    def shape_and_type(self, name: str) -> tuple[tuple[int, ...], str]:
        """From the file's header alone."""
        part = self._file(self.file_of[name]).get_slice(name)
        return tuple(part.get_shape()), str(part.get_dtype())

    def close(self) -> None:
        """Unmap the file: pages that were read from it no longer count as this process's memory."""
        self._open = None

    def _file(self, file: str) -> Any:
        if self._open is None or self._open[0] != file:
            self._open = None  # unmapped before the next one is mapped
            self._open = (file, _opened(self.folder / file))
        return self._open[1]


def check_tensors(folder: Path) -> None:
    """Raise `ModelError` naming the first tensor in `folder` that is not finite, or a file that is no safetensors."""
    checkpoint = Checkpoint(folder)
    for name in checkpoint.file_of:
        for _ in checkpoint.blocks(name):
            pass


def row_blocks(part: Any) -> Iterator[Tensor]:
    """The rows of `part`, a slice of safetensors, some at a time; a tensor without dimensions at once."""
    shape = part.get_shape()
    if not shape:
        yield part[...]
        return
    n_rows = max(1, BLOCK // max(1, math.prod(shape[1:])))
    for start in range(0, shape[0], n_rows):
        yield part[start : min(start + n_rows, shape[0])]


def refuse_pickles(folder: Path) -> None:
    """A pickle runs code when it is read, so none is; not even to look at it. `training_args.bin` holds no weights."""
    found = sorted(file.name for file in folder.glob("*") if is_pickle_name(file) and file.name != "training_args.bin")
    if found:
        raise ModelError(f"{folder / found[0]}: a pickle, which is never read; save the model as safetensors")


def size_bytes(folder: Path) -> int:
    return sum(file.stat().st_size for file in folder.glob("*.safetensors"))


def _files(folder: Path) -> Mapping[str, str]:
    """Tensor name -> file name, in the order of the files."""
    if (folder / INDEX).is_file():
        return _indexed(folder)
    found = sorted(file.name for file in folder.glob("*.safetensors"))
    if len(found) != 1:
        what = "no .safetensors file" if not found else f"{len(found)} .safetensors files and no {INDEX}"
        raise ModelError(f"{folder}: {what}; save the model again with save_pretrained")
    return dict.fromkeys(_names(folder / found[0]), found[0])


def _indexed(folder: Path) -> Mapping[str, str]:
    """The index has the last word on which file holds a tensor; both have to agree on what there is."""
    listed = _weight_map(folder / INDEX)
    for file in sorted({*listed.values(), *(path.name for path in folder.glob(SHARDS))}):
        expected, found = {name for name, of in listed.items() if of == file}, set(_names(folder / file))
        if missing := sorted(expected - found):
            raise ModelError(f"{folder / file}: tensor {missing[0]} is missing, {INDEX} lists it; fetch it again")
        if unlisted := sorted(found - expected):
            raise ModelError(f"{folder / file}: tensor {unlisted[0]} is not listed there by {INDEX}; fetch both again")
    return dict(sorted(listed.items(), key=lambda item: (item[1], item[0])))


def _weight_map(index: Path) -> dict[str, str]:
    """Tensor name -> file name. Names that lead out of the folder are refused: results are written under them."""
    try:
        read: Any = json.loads(index.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ModelError(f"{index}: no readable JSON ({error}); fetch it again") from None
    match read:
        case {"weight_map": dict() as listed} if listed:
            for name, file in listed.items():
                if not isinstance(file, str) or not _is_plain(file):
                    raise ModelError(
                        f"{index}: tensor {name} is in {file!r}, allowed is a .safetensors file beside it; "
                        "fetch it again"
                    )
            return listed
    raise ModelError(f"{index}: it has no weight_map from tensors to files; fetch it again")


def _is_plain(file: str) -> bool:
    return Path(file).name == file and file.endswith(".safetensors") and "\\" not in file and "\0" not in file


def _names(file: Path) -> list[str]:
    return sorted(_opened(file).keys())


def _opened(file: Path) -> Any:  # the handle's methods are untyped in safetensors
    if not file.is_file():
        raise ModelError(f"{file}: no such file, {INDEX} lists it; fetch it again")
    try:
        return safe_open(file, framework="pt")
    except (SafetensorError, OSError) as error:
        raise ModelError(f"{file}: no readable safetensors file ({error}); fetch or train it again") from error
