"""How a stage or a command starts and ends: arguments in, one clear line and a non-zero exit code on a user error."""

import argparse
import sys
from collections.abc import Callable
from pathlib import Path

from tuneline.errors import TunelineError


def stage_arguments(description: str | None, *paths: str, names: tuple[str, ...] = ()) -> argparse.Namespace:
    """Parse `--params` and one required `--NAME` per path (a `Path`) and per name (a `str`) from the command line.

    Every path a stage touches comes in here, so that dvc.yaml alone says where things lie.
    """
    parser = argparse.ArgumentParser(description=description)
    for path in ("params", *paths):
        parser.add_argument(f"--{path.replace('_', '-')}", type=Path, required=True)
    for name in names:
        parser.add_argument(f"--{name.replace('_', '-')}", type=str, required=True)
    return parser.parse_args()


def run(main: Callable[[], None]) -> None:
    """Call `main`; a `TunelineError` becomes `error: ...` on stderr and exit code 1, without a traceback."""
    try:
        main()
    except TunelineError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(1)
