"""`tuneline deploy`: a packaged model of a git revision into a folder that always holds a whole one.

The same command with an earlier tag goes back to it.
"""

import argparse
from pathlib import Path

from tuneline.errors import ConfigError


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("repo", help="a Tuneline repository: a folder or an address that git can clone")
    parser.add_argument("--rev", required=True, help="tag, branch or commit")
    parser.add_argument("--to", type=Path, required=True, help="folder to fill; its `current` is the model")
    parser.add_argument("--path", default="models/deploy", help="what to fetch (models/deploy)")
    parser.add_argument("--remote", help="DVC remote to fetch from (the repository's default)")
    parser.add_argument(
        "--remote-config", metavar="KEY=VALUE", nargs="+", default=[], help="settings of the remote: url=..., user=..."
    )
    parser.add_argument(
        "--keep", type=int, default=3, help="versions kept for a way back, the current one included (3)"
    )


def execute(arguments: argparse.Namespace) -> None:
    """Fetch, verify, swap; say what is there now."""
    from tuneline.serving.deploying import deploy  # here: DVC takes a second to import
    from tuneline.serving.integrity import described
    from tuneline.serving.source import open_source

    if arguments.keep < 1:
        raise ConfigError(f"--keep {arguments.keep}: at least the current version is kept, so 1 or more")
    settings = dict(map(_setting, arguments.remote_config))
    with open_source(arguments.repo, arguments.rev, arguments.path, arguments.remote, settings) as source:
        print("\n".join(described(deploy(source, arguments.to, arguments.keep))))


def _setting(text: str) -> tuple[str, str]:
    key, sign, value = text.partition("=")
    if not sign:
        raise ConfigError(f"--remote-config {text}: not KEY=VALUE, such as url=ssh://host/folder")
    return key, value
