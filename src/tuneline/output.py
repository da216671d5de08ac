"""Writing results: whole or not at all, the same bytes for the same values."""

import json
import math
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from tuneline.errors import TunelineError


@contextmanager
def atomic_file(path: Path) -> Iterator[Path]:
    """Yield a temporary path beside `path`; rename it into place when the block succeeds, remove it otherwise.

    There is no file at the temporary path: what a killed run was writing there is another one, whoever goes on with it.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.partial")
    temporary.unlink(missing_ok=True)
    try:
        yield temporary
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def atomic_writer(path: Path) -> Iterator[BinaryIO]:
    """`atomic_file`, open for bytes."""
    with atomic_file(path) as temporary, temporary.open("wb") as file:
        yield file


@contextmanager
def atomic_folder(path: Path) -> Iterator[Path]:
    """Yield an empty temporary folder beside `path`; it replaces `path` when the block succeeds.

    When anything fails, the renaming too, the folder that was at `path` is there again.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.partial")
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir()
    try:
        yield temporary
        _replace_folder(path, temporary)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


@contextmanager
def scratch_folder(path: Path) -> Iterator[Path]:
    """Yield an empty folder beside `path` for files that nobody keeps; removed at the end, whatever happens.

    One that a killed run left behind is removed first.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    scratch = path.with_name(f".{path.name}.scratch")
    shutil.rmtree(scratch, ignore_errors=True)
    scratch.mkdir()
    try:
        yield scratch
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def _replace_folder(path: Path, new: Path) -> None:
    """Move `new` to `path`; no system does that in one step when `path` is a folder with files."""
    aside = path.with_name(f".{path.name}.previous")
    if path.exists():
        shutil.rmtree(aside, ignore_errors=True)
        path.replace(aside)
    try:
        new.replace(path)
    except OSError:
        if aside.exists():
            aside.replace(path)
        raise
    shutil.rmtree(aside, ignore_errors=True)


def write_text(path: Path, text: str) -> None:
    """Write UTF-8 text with `\\n` line ends on every system."""
    with atomic_file(path) as temporary:
        temporary.write_text(text, encoding="utf-8", newline="\n")


def write_metrics(path: Path, metrics: Mapping[str, float | int], n: str, *expected: str) -> None:
    """As `write_figures`. `n` is the key that counts what was measured, `expected` are those that others rely on.

    Raises `TunelineError` when one of the keys is missing or nothing was measured: figures of nothing look perfect.
    """
    if missing := [key for key in (n, *expected) if key not in metrics]:
        raise TunelineError(f"{path}: not measured: {', '.join(missing)}; run the stage again, with rows to measure")
    if not isinstance(metrics[n], int) or metrics[n] < 1:
        raise TunelineError(f"{path}: {n} is {metrics[n]}, so the figures are of nothing; give it rows to measure")
    write_figures(path, metrics)


def write_figures(path: Path, metrics: Mapping[str, float | int]) -> None:
    """Write one flat JSON object of finite numbers, sorted by key, floats to 6 significant digits.

    Raises `TunelineError` naming the keys whose value is NaN, infinite or no number: such a metric would rank first.
    """
    bad = [key for key, value in metrics.items() if not _is_finite_number(value)]
    if bad:
        raise TunelineError(f"{path}: not finite numbers: {', '.join(f'{key}={metrics[key]}' for key in bad)}")
    rounded = {key: float(f"{value:.6g}") if isinstance(value, float) else value for key, value in metrics.items()}
    write_text(path, json.dumps(rounded, indent=2, sort_keys=True) + "\n")


def _is_finite_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
