"""`tuneline verify-model`: read every byte of a packaged model again and refuse what is not as recorded."""

import argparse
from pathlib import Path

from tuneline.serving.integrity import described, verify_model


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("folder", type=Path, help="models/deploy, or a folder that `tuneline deploy` filled")


def execute(arguments: argparse.Namespace) -> None:
    """Print what was verified; the first wrong file is the error."""
    print("\n".join(described(verify_model(arguments.folder))))
