"""Where tables go: a terminal as it is, a pipe without colour and as wide as it is told."""

from rich.console import Console


class _Console(Console):
    def on_broken_pipe(self) -> None:
        """Not rich's own way out: `tuneline.commands.main` ends every command alike."""
        raise BrokenPipeError


def open_console(pipe_columns: int) -> Console:
    """A console on standard output; `pipe_columns` is the width where that is no terminal."""
    console = _Console()
    return console if console.is_terminal else _Console(width=pipe_columns, color_system=None)
