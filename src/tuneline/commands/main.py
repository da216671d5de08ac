"""The `tuneline` command."""

import argparse
import sys
from importlib import import_module
from typing import NamedTuple

from tuneline import entry


class Command(NamedTuple):
    """A subcommand; its module has `add_arguments(parser)` and `execute(arguments)`."""

    name: str
    help: str
    module: str


COMMANDS = (
    Command("params", "compose params.yaml from conf/", "tuneline.commands.params"),
    Command("data", "try any data file: its format, every cleaning rule, copies, lengths", "tuneline.commands.data"),
    Command("summary", "show the scores of base, tuned model and every GGUF", "tuneline.commands.summary"),
    Command("queue", "what became of every queued experiment; failed ones put back", "tuneline.commands.queue"),
    Command("fsck", "read every byte with a recorded hash again, and name what is damaged", "tuneline.commands.fsck"),
    Command("clean", "what killed processes left on the disk, and its removal", "tuneline.commands.clean"),
    Command("outputs", "fail when an output is not in DVC's cache, or frozen and changed", "tuneline.commands.outputs"),
    Command("verify-model", "read every byte of a packaged model again", "tuneline.commands.verify_model"),
    Command("deploy", "fetch a packaged model of a git revision, or go back to one", "tuneline.commands.deploy"),
    Command("serve", "llama.cpp's server on a packaged model", "tuneline.commands.serve"),
    Command("chat", "talk to a packaged model", "tuneline.commands.chat"),
    Command(
        "pin", "write what pins a model into its conf file: its commit, or its files' hashes", "tuneline.commands.pin"
    ),
    Command("benchmark-data", "speed, memory and findings of the data room", "tuneline.commands.benchmark_data"),
    Command("benchmark-training", "speed of training against a plain loop", "tuneline.commands.benchmark_training"),
    Command("benchmark-quantize", "the quantise stage against a bare call", "tuneline.commands.benchmark_quantize"),
    Command("benchmark-checkpoints", "what resuming exactly costs", "tuneline.commands.benchmark_checkpoints"),
    Command("wiring", "compare dvc.yaml with the code of its stages", "tuneline.commands.wiring"),
    Command("converter", "unpack llama.cpp's converter into this environment", "tuneline.commands.converter"),
    Command("tools", "build llama.cpp's server and imatrix into this environment", "tuneline.commands.tools"),
)


def main() -> None:
    """Run the subcommand that the command line names; a user error is one line and exit code 1."""
    entry.run(lambda: dispatch(sys.argv[1:]))


def dispatch(words: list[str]) -> None:
    """Import the chosen subcommand's module only, so that `--help` stays quick."""
    parser = argparse.ArgumentParser(prog="tuneline", description="Around the experiment that `dvc repro` runs.")
    choices = parser.add_subparsers(metavar="COMMAND", required=True)
    for command in COMMANDS:
        choice = choices.add_parser(command.name, help=command.help, description=command.help)
        if words and words[0] == command.name:
            module = import_module(command.module)
            module.add_arguments(choice)
            choice.set_defaults(execute=module.execute)
    arguments = parser.parse_args(words)
    arguments.execute(arguments)


if __name__ == "__main__":
    main()
