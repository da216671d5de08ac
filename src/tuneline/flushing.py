"""Onto the disk itself: what a power cut must not take."""

import os
from pathlib import Path


def flush(path: Path) -> None:
    """The content of a file, or the names in a folder: a new file needs both."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
