"""Progress: the rows pass unchanged, and a pipe gets plain lines."""

import io
import sys

import pytest

from tuneline.data.progress import watched


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_a_pipe_gets_one_plain_line_at_the_end(capsys: pytest.CaptureFixture[str]) -> None:
    assert list(watched(iter("abc"), "clean", 3)) == ["a", "b", "c"]
    written = capsys.readouterr()
    assert written.out == ""
    assert written.err.startswith("clean: 3 rows in 0.0 s")
    assert "\x1b" not in written.err


@pytest.mark.parametrize("name", ["rows{}.jsonl", "rows{1}.jsonl", "rows{a.b}.jsonl", "[red]rows.jsonl"])
def test_a_name_in_a_terminal_is_no_instruction(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    assert list(watched(range(5), name, None)) == [0, 1, 2, 3, 4]
    assert name in terminal.getvalue()


def test_a_terminal_gets_a_bar_and_the_same_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    assert list(watched(range(5), "clean", None)) == [0, 1, 2, 3, 4]
    assert "clean" in terminal.getvalue()
