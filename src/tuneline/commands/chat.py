"""`tuneline chat`: talk to a packaged model in the terminal."""

import argparse
import readline
from pathlib import Path

from tuneline.errors import EnvironmentProblem
from tuneline.serving.chat import Turn, answer, running_server
from tuneline.serving.integrity import verify_model

HINT = "/reset forgets the conversation, /exit ends, Ctrl-C stops an answer"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("folder", type=Path, help="models/deploy, or a folder that `tuneline deploy` filled")


def execute(arguments: argparse.Namespace) -> None:
    """Verify, start a server for this conversation, read lines until /exit or the end of input."""
    verified = verify_model(arguments.folder)
    print(f"{verified.gguf.name}: loading ...", flush=True)
    readline.set_auto_history(True)
    readline.parse_and_bind("set enable-bracketed-paste on")  # Python turns it off; with it, pasted lines are one turn
    with running_server(verified) as port:
        print(HINT)
        converse(port, verified.system_prompt)


def converse(port: int, system_prompt: str | None) -> None:
    """One line is one turn, or the lines that are pasted together.

    The model sees the whole conversation each time, which begins as in training.
    """
    opening: list[Turn] = [] if system_prompt is None else [{"role": "system", "content": system_prompt}]
    turns = [*opening]
    while (line := _read_line()) is not None:
        match line.strip():
            case "":
                continue
            case "/exit":
                return
            case "/reset":
                turns = [*opening]
                print("forgotten")
            case "/help":
                print(HINT)
            case _:
                _take_turn(port, turns, line)


def _read_line() -> str | None:
    """None at the end of input (Ctrl-D) and on Ctrl-C."""
    try:
        return input("> ").rstrip("\n")  # the end of the last pasted line is no part of the question
    except (EOFError, KeyboardInterrupt):
        print()
        return None


def _take_turn(port: int, turns: list[Turn], line: str) -> None:
    """Append question and answer, or neither, so that a refused or stopped turn can be asked again."""
    pieces: list[str] = []
    try:
        for piece in answer(port, [*turns, {"role": "user", "content": line}]):
            pieces.append(piece)
            print(piece, end="", flush=True)
    except KeyboardInterrupt:
        print(" [stopped]")
    except EnvironmentProblem as problem:
        print(problem)
    else:
        print()
        turns += [{"role": "user", "content": line}, {"role": "assistant", "content": "".join(pieces)}]
