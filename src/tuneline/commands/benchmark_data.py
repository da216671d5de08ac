"""`tuneline benchmark-data`: speed, memory and findings of the data room, beside other libraries, in one run."""

import argparse
import json
from pathlib import Path


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """How much, with which rules, beside what."""
    parser.add_argument("--rows", type=_count, default=100_000, help="rows to clean; 1,200,000 are 2 GB (%(default)s)")
    parser.add_argument(
        "--peer-rows", type=_count, default=20_000, help="rows deduplicated by each library (%(default)s)"
    )
    parser.add_argument("--pairs", type=_count, default=4000, help="planted pairs (%(default)s)")
    parser.add_argument(
        "--repeats", type=_count, default=3, help="runs of each kind, in turn; the median counts (%(default)s)"
    )
    parser.add_argument("--only", choices=("clean", "near", "planted"), help="one part of it (all)")
    parser.add_argument("--clean", default="strict", metavar="NAME", help="rules: a file in conf/clean (%(default)s)")
    parser.add_argument("--conf", type=Path, default=Path("conf"), help="folder of the configuration (%(default)s)")
    parser.add_argument("--datatrove-python", type=Path, metavar="PATH", help=_DATATROVE)
    parser.add_argument("--scratch", type=Path, help="folder for the rows (the system's temporary folder)")
    parser.add_argument("--out", type=Path, help="also write the figures there, as JSON")
    parser.add_argument("--write", type=Path, metavar="FILE", help="only write --rows rows there, as ingest does")


PIPE_COLUMNS = 80
_DATATROVE = "interpreter of an environment with datatrove 0.10, xxhash 3 and spacy; without it that is not measured"


def execute(arguments: argparse.Namespace) -> None:
    """Measure, print a table, write the JSON."""
    if arguments.write is not None:
        from tuneline.benchmarks.corpus import SEED, chat_rows, write_rows

        write_rows(arguments.write, chat_rows(arguments.rows, SEED))
        return
    figures = _measured(arguments)
    _show(figures)
    if arguments.out is not None:
        from tuneline.output import write_text

        write_text(arguments.out, json.dumps(figures, indent=2, sort_keys=True) + "\n")


def _measured(arguments: argparse.Namespace) -> dict[str, float | int]:
    from tempfile import gettempdir

    from tuneline.benchmarks import data_room
    from tuneline.commands.data import read_rules

    rules = data_room.Rules(read_rules(arguments.conf, arguments.clean), read_rules(arguments.conf, "off"))
    sizes = data_room.Sizes(arguments.rows, arguments.peer_rows, arguments.pairs, arguments.repeats)
    folder = arguments.scratch or Path(gettempdir())
    parts = {
        "planted": lambda: data_room.planted_figures(rules, sizes, folder),
        "clean": lambda: data_room.clean_figures(rules, sizes, folder),
        "near": lambda: data_room.near_duplicate_figures(rules, sizes, folder, arguments.datatrove_python),
    }
    chosen = [arguments.only] if arguments.only else list(parts)
    if "near" in chosen:
        data_room.check_datasketch()
    return {name: value for part in chosen for name, value in parts[part]().items()}


def _show(figures: dict[str, float | int]) -> None:
    from rich.table import Table

    from tuneline.commands.console import open_console

    table = Table("figure", title="the data room, measured")
    table.add_column("value", justify="right")
    for name, value in figures.items():
        table.add_row(name, _shown(value))
    open_console(PIPE_COLUMNS).print(table)


def _shown(value: float | int) -> str:
    return f"{value:,}" if isinstance(value, int) else f"{value:,.0f}" if value >= 1000 else f"{value:.4g}"


def _count(word: str) -> int:
    if not word.isascii() or not word.isdigit() or int(word) == 0:
        raise argparse.ArgumentTypeError(f"{word!r} is no count; give a whole number from 1 on")
    return int(word)
