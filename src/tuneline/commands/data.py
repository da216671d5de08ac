"""`tuneline data check FILE`: would this file do? Its format, the rules, copies and lengths, in seconds."""

import argparse
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import get_args

from pydantic import ValidationError
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from tuneline.commands.console import open_console
from tuneline.config.explain import did_you_mean, explanations
from tuneline.config.params import read_values
from tuneline.config.schema import CleanConfig, SourceFormat, Strict
from tuneline.data.progress import watched
from tuneline.errors import ConfigError, DataError
from tuneline.reporting.checking import Checked, check_file, rules_in_order
from tuneline.reporting.lengths import UNITS, quantile
from tuneline.reporting.showing import escaped, shown

EXIT_REJECTED = 3  # 2 is argparse's, for a wrong command line
PIPE_COLUMNS = 120

_EXIT_CODES = (
    f"exit code: 0 every row is kept, {EXIT_REJECTED} some are rejected, 1 the file (or conf) cannot be used, 2 wrong"
    " command line. Nothing is written; big files pass through the system's temporary folder (TMPDIR)."
)


class _Section(Strict):
    """The section where it stands in params.yaml, so that a message names the whole key."""

    clean: CleanConfig


def add_arguments(parser: argparse.ArgumentParser) -> None:
    commands = parser.add_subparsers(metavar="COMMAND", required=True)
    about = "read a file strictly, find its format and try the cleaning rules on it"
    check = commands.add_parser("check", help=about, description=about, epilog=_EXIT_CODES)
    check.add_argument("file", type=Path, help="JSON, JSONL, CSV, Parquet, text or HTML, also .gz and .zst")
    check.add_argument("--format", choices=get_args(SourceFormat), default="auto", help="(auto: found by the keys)")
    check.add_argument("--clean", default="strict", metavar="NAME", help="rules: a file in conf/clean (strict)")
    check.add_argument("--columns", action="append", default=[], metavar="KEY=COLUMN", help=_COLUMNS_HELP)
    check.add_argument("--show", type=_count, default=1, metavar="N", help="rejected rows shown for every rule (1)")
    check.add_argument("--conf", type=Path, default=Path("conf"), help="folder of the configuration (conf)")


_COLUMNS_HELP = "where the file's names differ: --columns prompt=question --columns completion=answer"


def execute(arguments: argparse.Namespace) -> None:
    """Try the file, print what was found, end with an exit code that says whether rows were rejected."""
    rules = read_rules(arguments.conf, arguments.clean)
    columns = _columns(arguments.columns)
    _check_path(arguments.file)
    found = _checked(arguments, columns, rules)
    show(open_console(PIPE_COLUMNS), arguments.file, arguments.clean, rules, found)
    if found.n_rejected:
        sys.exit(EXIT_REJECTED)


def read_rules(conf: Path, name: str) -> CleanConfig:
    """conf/clean/<name>.yaml. Raises `ConfigError` for a name that is none, and with every problem in the file."""
    names = sorted(path.stem for path in (conf / "clean").glob("*.yaml"))
    if name not in names:
        allowed = ", ".join(names) or "none; run in the repository, or give --conf"
        raise ConfigError(
            f"--clean {name}: no such file in {conf}/clean, allowed is {allowed}{did_you_mean(name, names)}"
        )
    path = conf / "clean" / f"{name}.yaml"
    try:
        return _Section.model_validate({"clean": read_values(path)}).clean
    except ValidationError as error:
        raise ConfigError(f"{path}: {'; '.join(explanations(error))}") from None


def show(console: Console, file: Path, clean: str, rules: CleanConfig, found: Checked) -> None:
    """Print the tables; in a pipe they are plain text."""
    size = file.stat().st_size
    n_kept = found.n_read - found.n_rejected
    console.print(f"[bold]{escape(escaped(str(file)))}[/bold], {_size(size)}", highlight=False)
    for note in found.notes:
        console.print(escape(shown(note)), highlight=False)
    kinds = ", ".join(f"{n:,} {kind}" for kind, n in found.kinds.most_common()) or "none"
    console.print(f"kinds: {kinds}", highlight=False)
    console.print(
        f"{found.n_read:,} rows read, {n_kept:,} kept, {found.n_rejected:,} rejected with conf/clean/{clean}.yaml",
        highlight=False,
    )
    console.print(_rules_table(rules, found))
    for line in _findings(found):
        console.print(line, highlight=False)
    console.print(_lengths_table(found))


def _rules_table(rules: CleanConfig, found: Checked) -> Table:
    counts = found.read.by_rule() + found.cleaned.by_rule()
    table = Table(box=SIMPLE_HEAD, padding=(0, 1, 0, 0))
    table.add_column("rule", no_wrap=True)
    table.add_column("rejected", justify="right", no_wrap=True)
    table.add_column("first rows, and why", overflow="fold")
    for rule, enabled in rules_in_order(rules).items():
        table.add_row(rule, f"{counts[rule]:,}" if enabled else "off", "\n".join(_examples(found, rule)))
    return table


def _examples(found: Checked, rule: str) -> Iterator[str]:
    for row in found.first.get(rule, []):
        yield f"[bold]{escape(row.place)}[/bold] {escape(row.reason)}"
        yield f"[dim]{escape(row.row)}[/dim]"


def _findings(found: Checked) -> Iterator[str]:
    """What was mended, and copies."""
    mended = ", ".join(f"{kind} {n:,}" for kind, n in sorted(found.cleaned.changed.items())) or "nothing"
    yield f"mended or redacted: {mended}"
    copies = found.clusters.metrics()
    if not copies["duplicates_n_copies"]:
        yield "copies: none"
        return
    yield f"copies: {copies['duplicates_n_copies']:,}, of {copies['duplicates_n_clusters']:,} different rows; the most:"
    for cluster in found.clusters.largest[:3]:
        yield escape(f"  {cluster.n_rows - 1:,} of {cluster.kept}: {', '.join(cluster.copies[:5])}")


def _lengths_table(found: Checked) -> Table:
    table = Table(box=SIMPLE_HEAD, padding=(0, 1, 0, 0))
    for name in ("per row", "min", "median", "95 %", "max"):
        table.add_column(name, justify="left" if name == "per row" else "right", no_wrap=True)
    for unit in UNITS:
        if counts := found.lengths[unit]:
            figures = (min(counts), quantile(counts, 0.5), quantile(counts, 0.95), max(counts))
            table.add_row(unit, *(f"{figure:,}" for figure in figures))
    return table


def _checked(arguments: argparse.Namespace, columns: dict[str, str], rules: CleanConfig) -> Checked:
    try:
        return check_file(
            arguments.file,
            arguments.format,
            columns,
            rules,
            arguments.show,
            lambda rows, what: watched(rows, escaped(what), None),
        )
    except DataError as error:
        raise DataError(_with_option(str(error))) from None


_KEY = "data.sources[0]."


def _with_option(message: str) -> str:
    """The library's messages begin with the key of an experiment, here an option; later on a file's text may stand."""
    return f"--{message.removeprefix(_KEY)}" if message.startswith(_KEY) else message


def _check_path(path: Path) -> None:
    if "*" in str(path) or "?" in str(path):  # to the library these stand for other files
        raise DataError(f"{path}: a path with * or ? stands for several files; give one file, or rename it")
    try:
        is_file, is_there = path.is_file(), path.exists()
    except OSError as error:  # a name that is too long, a folder that must not be entered
        raise DataError(f"{path}: cannot be looked up ({error.strerror}); give the path of one file") from None
    if not is_file:
        what = "is no regular file" if is_there else "no such file"
        raise DataError(f"{path}: {what}; give the path of one file")


def _columns(given: list[str]) -> dict[str, str]:
    columns: dict[str, str] = {}
    for key, column in map(_column, given):
        if key in columns:
            raise DataError(f"--columns {key}={column}: {key} is {columns[key]} already; give each key once")
        columns[key] = column
    return columns


def _column(words: str) -> tuple[str, str]:
    key, equals, column = words.partition("=")
    if not (key and equals and column):
        raise DataError(f"--columns {words}: no KEY=COLUMN; write the format's key first, such as prompt=question")
    return key, column


def _count(text: str) -> int:
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"{text!r}: allowed is a whole number from 0")
    return int(text)


def _size(n_bytes: int) -> str:
    for factor, unit in ((2**30, "GiB"), (2**20, "MiB"), (2**10, "KiB")):
        if n_bytes >= factor:
            return f"{n_bytes / factor:.1f} {unit}"
    return f"{n_bytes} bytes"
