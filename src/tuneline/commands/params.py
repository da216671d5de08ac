"""Compose params.yaml from conf/: `tuneline params`, or `make params`."""

import argparse
from pathlib import Path

from tuneline.entry import run


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--conf", type=Path, default=Path("conf"), help="folder of the configuration (conf)")
    parser.add_argument("--out", type=Path, default=Path("params.yaml"), help="file to write (params.yaml)")
    parser.add_argument("overrides", nargs="*", help="as for dvc exp run -S: method=qlora lora.r=32")


def execute(arguments: argparse.Namespace) -> None:
    """Compose, validate, replace; an invalid configuration leaves the old file."""
    from tuneline.config.compose import compose  # imports Hydra and DVC, which `tuneline --help` must not

    params = compose(arguments.conf, arguments.out, arguments.overrides)
    chosen = (
        params.model.name,
        params.method.name,
        params.recipe.name,
        params.data.name,
        params.hardware.name,
    )
    print(f"{arguments.out}: {', '.join(chosen)}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    add_arguments(parser)
    execute(parser.parse_args())


if __name__ == "__main__":
    run(main)
