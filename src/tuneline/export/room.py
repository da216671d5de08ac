"""Whether a file fits on the disk, before the minutes that writing it takes."""

import shutil
from pathlib import Path

from tuneline.config.schema import OutType, QuantType
from tuneline.errors import EnvironmentProblem


def check_room(out: Path, needed_bytes: int) -> None:
    """Raise `EnvironmentProblem` with needed and free bytes when `out` cannot hold that much."""
    folder = next(parent for parent in out.absolute().parents if parent.exists())
    free_bytes = shutil.disk_usage(folder).free
    if free_bytes < needed_bytes:
        raise EnvironmentProblem(
            f"{out}: needs up to {needed_bytes:,} bytes, {free_bytes:,} are free on its disk; make room "
            "(`dvc gc --workspace` removes old results)"
        )


def converted_bytes(merged: Path, outtype: OutType) -> int:
    """At most what the 16-bit safetensors in `merged` become."""
    stored = sum(file.stat().st_size for file in merged.glob("*.safetensors"))
    return 2 * stored if outtype == "f32" else stored


def quantised_bytes(source: Path, quant: QuantType) -> int:
    """At most what `source` becomes, of 16 bits per weight: mixtures keep some matrices two bits above their name."""
    bits = next(int(letter) for letter in quant if letter.isdigit())
    return source.stat().st_size * (bits + 2) // 16


def folder_bytes(folder: Path) -> int:
    """What a copy of all files in `folder` takes."""
    return sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())
