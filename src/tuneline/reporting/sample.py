"""A few rejected rows of every stage and rule, for a person to judge whether the rule is right."""

import hashlib
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TypeAlias

from tuneline.data.record_files import as_line
from tuneline.data.records import Json, Rejected
from tuneline.reporting.showing import escaped, shortened, shown

ROWS_PER_RULE = 5
_BESIDE_CONTENT = ("id", "source", "line", "file")  # where a row stood is no part of what it says


@dataclass(frozen=True, slots=True)
class Shown:
    """A rejected row that may be published."""

    stage: str
    rule: str
    place: str
    reason: str
    row: str

    def as_json(self) -> dict[str, Json]:
        return {"stage": self.stage, "rule": self.rule, "place": self.place, "reason": self.reason, "row": self.row}


def as_shown(row: Rejected) -> Shown:
    """The row with everything masked, shortened and spelled out."""
    return Shown(row.stage, row.rule, shortened(escaped(row.place)), shown(row.reason), shown(row.row))


_Order: TypeAlias = tuple[str, str, int, str]  # place and reason


class Sample:
    """Up to five different rows of every stage and rule: those with the smallest hash of their content.

    Of rows with the same content the one with the smallest place stands for all. Which ones these are depends on the
    rows, not on their order, and memory on the number of rules.
    """

    def __init__(self) -> None:
        self._rows: defaultdict[tuple[str, str], dict[str, tuple[_Order, Shown]]] = defaultdict(dict)

    def add(self, row: Rejected) -> None:
        found = self._rows[row.stage, row.rule]
        key, order = _content_hash(row), (row.source, row.file, row.line, row.reason)
        if key in found:
            if order < found[key][0]:
                found[key] = order, as_shown(row)
            return
        if len(found) >= ROWS_PER_RULE:
            if key > max(found):
                return
            del found[max(found)]
        found[key] = order, as_shown(row)

    def rows(self, stages: tuple[str, ...]) -> Iterator[Shown]:
        """Ordered by stage (as given), rule and hash."""
        for stage, rule in sorted(self._rows, key=lambda key: (stages.index(key[0]), key[1])):
            found = self._rows[stage, rule]
            yield from (found[key][1] for key in sorted(found))


def as_markdown(rows: list[Shown]) -> str:
    """A section for each stage and rule; every row is quoted, so that nothing in it is taken for Markdown."""
    lines = ["# Rejected rows", ""]
    lines += ["No row was rejected." if not rows else _INTRODUCTION]
    section = ("", "")
    for row in rows:
        if section != (row.stage, row.rule):
            section = (row.stage, row.rule)
            lines += ["", f"## {row.stage}: {row.rule}"]
        lines += ["", f"- `{row.place}`: {_inline(row.reason)}", "", *_quoted(row.row)]
    return "\n".join(lines) + "\n"


_INTRODUCTION = (
    f"Up to {ROWS_PER_RULE} rows of every rule, drawn by their content; personal data is masked, long rows are cut."
    " Is a rule wrong about one of them? Its settings are in `conf/clean/`."
)


def _content_hash(row: Rejected) -> str:
    content = row.row
    if isinstance(content, dict):
        content = {key: value for key, value in content.items() if key not in _BESIDE_CONTENT}
    return hashlib.sha256(as_line({"row": content})).hexdigest()


def _inline(text: str) -> str:
    return "".join(f"\\{sign}" if sign in "\\`*_[]<>#|" else sign for sign in text)


def _quoted(text: str) -> list[str]:
    """A fenced block; its fence is longer than any in the text."""
    fence = "```"
    while fence in text:
        fence += "`"
    return [f"  {fence}text", f"  {text}", f"  {fence}"]
