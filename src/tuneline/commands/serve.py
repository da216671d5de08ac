"""`tuneline serve`: llama.cpp's server on a packaged model that has been verified first."""

import argparse
from pathlib import Path

from tuneline.errors import ConfigError
from tuneline.serving.integrity import described, verify_model
from tuneline.serving.server import LOCALHOST, check_port, serve


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("folder", type=Path, help="models/deploy, or a folder that `tuneline deploy` filled")
    parser.add_argument("--host", default=LOCALHOST, help=f"address to listen on; others may then ask ({LOCALHOST})")
    parser.add_argument("--port", type=int, default=8080, help="(8080)")
    parser.add_argument(
        "--parallel", type=int, default=4, help="clients answered at once, each with its own context (4)"
    )


def execute(arguments: argparse.Namespace) -> None:
    """Check the port, then the folder, then hand over to llama-server."""
    if arguments.parallel < 1:
        raise ConfigError(f"--parallel {arguments.parallel}: at least one client is answered, so 1 or more")
    check_port(arguments.host, arguments.port)
    verified = verify_model(arguments.folder)
    print("\n".join(described(verified)))
    serve(verified, arguments.host, arguments.port, arguments.parallel)
