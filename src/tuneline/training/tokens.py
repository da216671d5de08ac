"""From examples to the very tokens and targets that training sees: made once, checked, kept in Parquet."""

import json
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import BinaryIO

import pyarrow as pa  # type: ignore[import-untyped]  # no stubs
import pyarrow.parquet as pq  # type: ignore[import-untyped]
from transformers import PreTrainedTokenizerBase

from tuneline.config.schema import Objective
from tuneline.data.records import (
    Example,
    Json,
    Kind,
    Rejected,
    ToolCall,
    as_line,
    contents,
    rejected_as_json,
    rejection,
)
from tuneline.errors import BudgetError, DataError, ModelError
from tuneline.model.template import encode_conversation, encode_prompt, encode_text, special_tokens_in, tools_problem
from tuneline.output import atomic_file

N_FIRST = 3  # rows that the preview shows
_EXAMPLES_AT_ONCE = 256
_TOKENS_PER_GROUP = 2**24  # 128 MiB of tokens and labels
IGNORED = -100  # a label without loss, in Transformers and TRL
TOO_LONG = "too_long"
SPECIAL_TOKEN = "special_token"  # noqa: S105  (the name of a rule)
TOOLS = "tools"
KINDS: Mapping[Kind, str] = {  # what rows of a kind are called, and what takes them
    "conversation": "conversations (sft)",
    "text": "raw texts (pretrain)",
    "preference": "preference pairs (a preference objective, such as DPO)",
    "labelled": "labelled answers (KTO)",
    "prompt": "prompts without an answer (online objectives, which let the model answer)",
}
SCHEMA = pa.schema([("id", pa.string()), ("input_ids", pa.list_(pa.int32())), ("labels", pa.list_(pa.int32()))])


@dataclass(frozen=True, slots=True)
class TokenRow:
    """One training sequence. `labels[t]` is `input_ids[t]` where it is a target, else `IGNORED`; the first never
    is one, since nothing precedes it. So the targets of rows that share a packed row stay their own."""

    id: str
    input_ids: list[int]
    labels: list[int]

    @property
    def n_targets(self) -> int:
        """Tokens the model is trained to produce."""
        return sum(label != IGNORED for label in self.labels)


@dataclass(frozen=True, slots=True)
class Tokenized:
    """Rows to train on, and those left out with the reason; every example of the objective is in one of the two.

    Examples of other kinds are counted only: they lie in the split's own file.
    """

    rows: list[TokenRow] = field(default_factory=list)
    left_out: list[Rejected] = field(default_factory=list)
    unused: Counter[Kind] = field(default_factory=Counter)

    @property
    def counts(self) -> "Counts":
        """What its rows come to."""
        counts = Counts()
        counts.add(self)
        return counts


@dataclass(slots=True)
class Counts:
    """What the rows of a split come to, gathered piece by piece: no row but the first ones stays in memory."""

    first: list[TokenRow] = field(default_factory=list)  # N_FIRST at most
    lengths: Counter[int] = field(default_factory=Counter)  # rows by their number of tokens
    n_targets: int = 0
    kept: set[str] = field(default_factory=set)  # ids of the examples
    left_out: Counter[str] = field(default_factory=Counter)  # examples by rule
    first_left_out: Rejected | None = None
    unused: Counter[Kind] = field(default_factory=Counter)

    def add(self, piece: Tokenized) -> None:
        """Take in more rows of the split."""
        self.first += piece.rows[: N_FIRST - len(self.first)]
        self.lengths.update(len(row.input_ids) for row in piece.rows)
        self.n_targets += sum(row.n_targets for row in piece.rows)
        self.kept.update(row.id.partition("#")[0] for row in piece.rows)
        self.left_out.update(row.rule for row in piece.left_out)
        self.first_left_out = self.first_left_out or next(iter(piece.left_out), None)
        self.unused.update(piece.unused)

    @property
    def n_rows(self) -> int:
        return self.lengths.total()

    @property
    def truncated_fraction(self) -> float:
        """Share of the examples that would have lost tokens to the length limit."""
        return self.left_out[TOO_LONG] / self._n_examples

    @property
    def left_out_fraction(self) -> float:
        """Share of the examples that are not trained on, whatever the reason."""
        return self.left_out.total() / self._n_examples

    @property
    def _n_examples(self) -> int:
        """At least 1, to divide by."""
        return max(1, len(self.kept) + self.left_out.total())


def tokenize(
    tokenizer: PreTrainedTokenizerBase,
    examples: Iterable[Example],
    objective: Objective,
    max_length_tokens: int,
    stop_token_ids: Sequence[int],
) -> Tokenized:
    """Tokens and targets of the examples that the objective uses: conversations (sft) or texts (pretrain).

    Other kinds of rows are counted. A conversation longer than `max_length_tokens` is left out, never trained half,
    and so is one whose tools the chat template does not show; a text is cut into rows that overlap by one token, so
    that each of its tokens but the first is a target once. Raises `ModelError` or `DataError`, with the row's
    source:line, for a row that would train no token, teach no end, or start with two BOS.
    """
    tokenized = Tokenized()
    used = used_kind(objective)
    for example in examples:
        if example.kind != used:
            tokenized.unused[example.kind] += 1
            continue
        match objective:
            case "sft":
                _add_conversation(tokenized, tokenizer, example, max_length_tokens, stop_token_ids)
            case "pretrain":
                _add_text(tokenized, tokenizer, example, max_length_tokens)
    return tokenized


def in_pieces(examples: Iterable[Example], tokenized: Callable[[list[Example]], Tokenized]) -> Iterator[Tokenized]:
    """The examples tokenized some hundred at a time, in their order."""
    rest = iter(examples)
    while piece := list(islice(rest, _EXAMPLES_AT_ONCE)):
        yield tokenized(piece)


def used_kind(objective: Objective) -> Kind:
    """The kind of rows that the objective trains on."""
    match objective:
        case "sft":
            return "conversation"
        case "pretrain":
            return "text"


def check_left_out(counts: Counts, split: str, max_length_tokens: int, allowed_fraction: float) -> None:
    """Raise `BudgetError` when more rows than allowed are not trained on."""
    fraction, first = counts.left_out_fraction, counts.first_left_out
    if first is not None and fraction > allowed_fraction:
        raise BudgetError(
            f"train.max_truncated_fraction: {fraction:.3g} of the {split} rows are left out "
            f"({counts.left_out[TOO_LONG]} longer than max_length {max_length_tokens}, "
            f"{counts.left_out[SPECIAL_TOKEN]} spelling a special token, {counts.left_out[TOOLS]} with tools "
            f"that the chat template does not show), allowed is {allowed_fraction:g}; first: "
            f"{first.source}:{first.line} ({first.reason}); raise the phase's max_length, shorten the rows "
            "(clean.length.max_chars), take such tokens out of the data, or allow more to be left out"
        )


def check_rows(counts: Counts, objective: Objective, splits: Path) -> None:
    """Raise `DataError` when there is nothing to train on."""
    if not counts.n_rows:
        raise DataError(
            f"{splits}/train.jsonl: no row to train on: objective {objective} takes rows of kind "
            f"{used_kind(objective)}; found: {_found(counts)}; choose data with such rows, or another recipe"
        )


def _found(counts: Counts) -> str:
    found = [f"{counts.left_out.total()} that were left out"] if counts.left_out else []
    found += [f"{n} {KINDS[kind]}" for kind, n in sorted(counts.unused.items())]
    return ", ".join(found) or "no row at all"


def write_split(path: Path, left_out: BinaryIO, pieces: Iterable[Tokenized]) -> Counts:
    """Write the rows to train on as `write_tokens` does and those left out as lines; say what they come to."""
    counts = Counts()

    def written() -> Iterator[list[TokenRow]]:
        for piece in pieces:
            counts.add(piece)
            left_out.writelines(as_line(rejected_as_json(row)) for row in piece.left_out)
            yield piece.rows

    _write_pieces(path, written())
    return counts


def write_tokens(path: Path, rows: Sequence[TokenRow]) -> None:
    """Write rows as Parquet, the same bytes for the same rows."""
    _write_pieces(path, [rows])


def _write_pieces(path: Path, pieces: Iterable[Sequence[TokenRow]]) -> None:
    """How the rows are divided into pieces does not show in the bytes."""
    with atomic_file(path) as temporary, pq.ParquetWriter(temporary, SCHEMA) as writer:
        for group in _groups(row for piece in pieces for row in piece):
            writer.write_table(pa.concat_tables(group).combine_chunks())


def _groups(rows: Iterable[TokenRow]) -> Iterator["list[pa.Table]"]:
    """Tables that together are a row group of the file: few enough tokens to be held; one without rows for no row."""
    tables, n_tokens, rest = [_as_table([])], 0, iter(rows)
    while piece := list(islice(rest, _EXAMPLES_AT_ONCE)):
        tables.append(_as_table(piece))
        n_tokens += sum(len(row.input_ids) for row in piece)
        if n_tokens >= _TOKENS_PER_GROUP:
            yield tables
            tables, n_tokens = [], 0
    if tables:
        yield tables


def _as_table(rows: Sequence[TokenRow]) -> "pa.Table":
    columns = {
        "id": [row.id for row in rows],
        "input_ids": [row.input_ids for row in rows],
        "labels": [row.labels for row in rows],
    }
    return pa.table(columns, schema=SCHEMA)


def read_tokens(path: Path) -> list[TokenRow]:
    """Read what `write_tokens` wrote. Raises `DataError` when it is no such file."""
    try:
        table = pq.read_table(path, schema=SCHEMA)
    except (OSError, pa.ArrowException) as error:
        raise DataError(f"{path}: not a file of tokens ({error}); make it with the inspect stage") from error
    columns = [table.column(name).to_pylist() for name in SCHEMA.names]
    return [TokenRow(*values) for values in zip(*columns, strict=True)]


def _add_conversation(
    tokenized: Tokenized,
    tokenizer: PreTrainedTokenizerBase,
    example: Example,
    max_length_tokens: int,
    stop_token_ids: Sequence[int],
) -> None:
    if problem := _conversation_problem(tokenizer, example):
        tokenized.left_out.append(problem)
        return
    with _located(example.place):
        encoded = encode_conversation(tokenizer, example.messages, example.tools)
        row = _row(example.id, encoded.input_ids, encoded.loss_mask)
        _check_targets(row, stop_token_ids)
        _check_says_the_answer(tokenizer, example, row, stop_token_ids)
        _check_served_alike(tokenizer, example, row)
    if len(row.input_ids) > max_length_tokens:
        reason = f"{len(row.input_ids)} tokens, max_length is {max_length_tokens}"
        tokenized.left_out.append(rejection(example, "inspect", TOO_LONG, reason))
    else:
        tokenized.rows.append(row)


def _conversation_problem(tokenizer: PreTrainedTokenizerBase, example: Example) -> Rejected | None:
    if names := special_tokens_in(tokenizer, [*contents(example), *_tool_texts(example)]):
        reason = f"contains {', '.join(names)}, which the model reads as the start or end of a turn"
        return rejection(example, "inspect", SPECIAL_TOKEN, reason)
    if problem := tools_problem(tokenizer, example.messages, example.tools):
        return rejection(example, "inspect", TOOLS, problem)
    return None


def _tool_texts(example: Example) -> Iterator[str]:
    """What a template writes besides the contents: the tools, and the names and arguments of the calls."""
    yield from (_as_text(tool) for tool in example.tools)
    for message in example.messages:
        yield from (call.name + _as_text(dict(call.arguments)) for call in message.tool_calls)


def _as_text(value: Json) -> str:
    return json.dumps(value, ensure_ascii=False)


def _add_text(
    tokenized: Tokenized, tokenizer: PreTrainedTokenizerBase, example: Example, max_length_tokens: int
) -> None:
    if names := special_tokens_in(tokenizer, contents(example)):
        reason = f"contains {', '.join(names)}, which the model reads as the end of a text"
        tokenized.left_out.append(rejection(example, "inspect", SPECIAL_TOKEN, reason))
        return
    with _located(example.place):
        ids = encode_text(tokenizer, str(example.text))
    for number, chunk in enumerate(_overlapping_chunks(ids, max_length_tokens)):
        tokenized.rows.append(_row(f"{example.id}#{number}", chunk, [1] * len(chunk)))


def _overlapping_chunks(ids: list[int], max_length_tokens: int) -> Iterator[list[int]]:
    """Pieces that share one token: it is context in the second, whose first label carries no loss."""
    stride = max_length_tokens - 1
    for start in range(0, max(1, len(ids) - 1), stride):
        yield ids[start : start + max_length_tokens]


def _row(id_: str, input_ids: list[int], loss_mask: Sequence[int]) -> TokenRow:
    mask = [0, *loss_mask[1:]]
    labels = [token if trained else IGNORED for token, trained in zip(input_ids, mask, strict=True)]
    return TokenRow(id_, input_ids, labels)


def _check_targets(row: TokenRow, stop_token_ids: Sequence[int]) -> None:
    targets = [label for label in row.labels if label != IGNORED]
    if not targets:
        raise DataError(
            f"row {row.id}: no token would be trained; it has no assistant message, or the chat template's "
            "{% generation %} block leaves the answer out"
        )
    if targets[-1] not in stop_token_ids:
        raise ModelError(
            f"row {row.id}: the last trained token is {targets[-1]}, none of the model's end tokens "
            f"{list(stop_token_ids)}, so it would never learn to stop; put the end token inside the chat template's "
            "{% generation %} block, or set eos_token_id in generation_config.json"
        )


def _check_says_the_answer(
    tokenizer: PreTrainedTokenizerBase, example: Example, row: TokenRow, stop_token_ids: Sequence[int]
) -> None:
    """The last answer's targets must be its content and what ends a turn: nothing of the template's own.

    Calls of tools follow the content in the model's own way of writing them; each must be named there.
    """
    ids = row.input_ids[_start_of_last_answer(row) : _end_of_last_answer(row)]
    trained = _without_end(tokenizer, ids, stop_token_ids)
    answer = example.messages[-1]
    # through the tokenizer, which may normalise: é as one character or as two
    expected = _decoded(tokenizer, tokenizer(answer.content.strip(), add_special_tokens=False, verbose=False).input_ids)
    says_it = trained == expected
    if answer.tool_calls:
        says_it = trained.startswith(expected) and _names_calls(trained.removeprefix(expected), answer.tool_calls)
    if not says_it:
        raise ModelError(
            f"row {row.id}: the chat template changes the answer: {_beginning(trained)} would be trained where the "
            f"row says {_beginning(expected)}; set what switches that off in model.chat_template_kwargs (Qwen3: "
            "enable_thinking: false), or mark the answer alone with {% generation %} in the template"
        )


def _names_calls(text: str, calls: Sequence[ToolCall]) -> bool:
    """True when every call's name stands in the text, in their order."""
    for call in calls:
        _, found, text = text.partition(call.name)
        if not found:
            return False
    return True


def _without_end(tokenizer: PreTrainedTokenizerBase, ids: Sequence[int], stop_token_ids: Sequence[int]) -> str:
    """Text of an answer's tokens up to those that end it, without white space around."""
    ends = {*stop_token_ids, *tokenizer.all_special_ids}
    kept = list(ids)
    while kept and (kept[-1] in ends or not _decoded(tokenizer, kept[-1:])):
        kept.pop()
    return _decoded(tokenizer, kept)


def _decoded(tokenizer: PreTrainedTokenizerBase, ids: Sequence[int]) -> str:
    return str(tokenizer.decode(list(ids), clean_up_tokenization_spaces=False)).strip()


def _beginning(text: str) -> str:
    return repr(text if len(text) <= 40 else f"{text[:40]}...")


def _check_served_alike(tokenizer: PreTrainedTokenizerBase, example: Example, row: TokenRow) -> None:
    """The prompt that generation renders must be what stands before the answer in training."""
    prompt = encode_prompt(tokenizer, example.messages[:-1], example.tools)
    if row.input_ids[: _start_of_last_answer(row)] != prompt:
        raise ModelError(
            f"row {row.id}: the chat template renders the prompt for generation in another way than in training; "
            "make add_generation_prompt and the assistant branch of the template agree"
        )


def _start_of_last_answer(row: TokenRow) -> int:
    """Position of the first token of the last trained run; one always exists, and never at 0."""
    before = row.labels[: _end_of_last_answer(row) - 1]
    return 1 + max(t for t, label in enumerate(before) if label == IGNORED)


def _end_of_last_answer(row: TokenRow) -> int:
    """Position behind the last trained token."""
    return 1 + max(t for t, label in enumerate(row.labels) if label != IGNORED)


@contextmanager
def _located(where: str) -> Iterator[None]:
    """Put source:line before what went wrong with a row."""
    try:
        yield
    except DataError as error:
        raise DataError(f"{where}: {error}") from error
    except ModelError as error:
        raise ModelError(f"{where}: {error}") from error
