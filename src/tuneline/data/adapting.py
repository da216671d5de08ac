"""From a row of a known format to an example, or to a rejected row with the reason."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from tuneline.config.schema import Format
from tuneline.data.conversation import (
    RowProblem,
    check_conversation,
    check_pair,
    check_prompt,
    with_system_prompt,
    with_task_prefix,
)
from tuneline.data.detecting import check_no_label
from tuneline.data.fields import listed
from tuneline.data.formats import USED_KEYS, Content, adapt
from tuneline.data.messages import unread_keys
from tuneline.data.records import Example, Json, Message, Rejected, with_id
from tuneline.data.rows import BadRow, Row
from tuneline.errors import DataError

RULES = ("reader", "format", "conversation")  # why a row can be rejected here, in the order of the checks

_HOLD_MESSAGES = {
    name: sorted(keys & {"messages", "conversations", "prompt", "completion", "chosen", "rejected"})
    for name, keys in USED_KEYS.items()
}


@dataclass(frozen=True, slots=True)
class Adapter:
    """What is the same for all rows of a source."""

    source: str  # its name
    format: Format
    columns: Mapping[str, str]  # a key of the format -> the rows' name for it
    meta_fields: tuple[str, ...]
    system_prompt: str | None
    task_prefix: str | None
    is_found: bool  # the format, by the keys of most of the first rows; False: the user says so

    def outcome(self, row: Row | BadRow, file: str) -> Example | Rejected:
        """The row, of which nothing is lost; `file` is its Example.file."""
        if isinstance(row, BadRow):
            return self._rejected(row, file, "reader", row.reason)
        try:
            return self._example(row, file)
        except RowProblem as problem:
            return self._rejected(row, file, problem.rule, str(problem))

    def left_out(self, row: Row) -> set[str]:
        """Keys that nothing reads: of the row, and of messages in it (messages[].name)."""
        used = USED_KEYS[self.format]
        if self.columns:
            used = frozenset(self.columns.get(key, key) for key in used)
        left_out = row.value.keys() - used
        left_out.difference_update(self.meta_fields)
        for ours in _HOLD_MESSAGES[self.format]:
            key = self.columns.get(ours, ours)
            if key in row.value:
                left_out.update(f"{key}[].{name}" for name in unread_keys(row.value[key]))
        return left_out

    def _example(self, row: Row, file: str) -> Example:
        fields = renamed(row.value, self.columns)
        if self.is_found and "label" in fields and "label" not in self.meta_fields:
            check_no_label(fields, self.format)
        content = adapt(fields, self.format)
        example = Example(
            id="",
            source=self.source,
            line=row.line,
            messages=self._messages(content),
            text=content.text,
            meta={key: row.value[key] for key in self.meta_fields if key in row.value},
            file=file,
            tools=content.tools,
            chosen=content.chosen,
            rejected=content.rejected,
            label=content.label,
        )
        self._check(example)
        return with_id(example)

    def _messages(self, content: Content) -> tuple[Message, ...]:
        if content.text is not None:
            return ()
        return with_task_prefix(with_system_prompt(content.messages, self.system_prompt), self.task_prefix)

    def _check(self, example: Example) -> None:
        match self.format:
            case "text" | "html":
                return
            case "preference":
                check_pair(example)
            case "prompt":
                check_prompt(example.messages)
            case _:
                check_conversation(example.messages)

    def _rejected(self, row: Row | BadRow, file: str, rule: str, reason: str) -> Rejected:
        content: Json = row.raw if isinstance(row, BadRow) else row.value
        return Rejected(self.source, row.line, "ingest", rule, f"{row.place}: {reason}", content, file)


def renamed(row: dict[str, Json], columns: Mapping[str, str]) -> dict[str, Json]:
    """The row with the format's names for its keys."""
    if not columns:
        return row
    taken = {*columns, *columns.values()}
    kept = {key: value for key, value in row.items() if key not in taken}
    return kept | {ours: row[theirs] for ours, theirs in columns.items() if theirs in row}


def check_columns_are_there(columns: Mapping[str, str], rows: Sequence[Row], key: str) -> None:
    """Raises `DataError` for a name that no row has; `key` is where the columns stand."""
    for ours, theirs in columns.items():
        if not any(theirs in row.value for row in rows):
            keys = listed({name for row in rows for name in row.value})
            raise DataError(
                f"{key}.columns.{ours}: {theirs!r} is in none of the first rows; their keys are: {keys}; "
                "the format's key stands before the colon, yours behind it"
            )


def check_columns_are_read(columns: Mapping[str, str], chosen: Format, key: str) -> None:
    """Raises `DataError` for a name that nothing in the format reads."""
    for ours in columns:
        if ours not in USED_KEYS[chosen]:
            allowed = ", ".join(sorted(USED_KEYS[chosen]))
            raise DataError(f"{key}.columns: {ours!r} is no key of format {chosen}; allowed: {allowed}")
