"""Token preparation: what training sees, and the rows that would train badly."""

from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from msgspec.structs import replace

from tuneline.data.records import Example, Json, Message, ToolCall, make_example, with_id
from tuneline.errors import BudgetError, DataError, ModelError

pytestmark = pytest.mark.slow

STOPS = (2,)


@pytest.fixture(scope="module")
def tokenizer(base: Path) -> Any:
    from tuneline.model.tokenizers import load_tokenizer_from

    return load_tokenizer_from(base)


def asked(question: str, answer: str, line: int = 1) -> Example:
    return make_example("pool", line, (Message("user", question), Message("assistant", answer)), None, {})


def document(text: str, line: int = 1) -> Example:
    return make_example("documents", line, (), text, {})


def tokens(tokenizer: Any, examples: list[Example], objective: Any = "sft", max_length_tokens: int = 64) -> Any:
    from tuneline.training.tokenizing import tokenize

    return tokenize(tokenizer, examples, objective, max_length_tokens, STOPS)


def test_only_the_answer_and_its_end_are_targets(tokenizer: Any) -> None:
    from tuneline.training.tokens import IGNORED

    (row,) = tokens(tokenizer, [asked("How many?", "Three.")]).rows
    targets = [label for label in row.labels if label != IGNORED]
    assert tokenizer.decode(targets) == "Three.<|im_end|>"
    assert row.n_targets == len(targets)
    assert all(label in (IGNORED, token) for label, token in zip(row.labels, row.input_ids, strict=True))


def test_each_objective_takes_its_own_rows(tokenizer: Any) -> None:
    examples = [asked("a", "b"), document("c"), asked("d", "e")]
    assert len(tokens(tokenizer, examples, "sft").rows) == 2
    assert len(tokens(tokenizer, examples, "pretrain").rows) == 1


def test_every_token_of_a_long_text_but_the_first_is_a_target_exactly_once(tokenizer: Any) -> None:
    from tuneline.model.template import encode_text
    from tuneline.training.tokens import IGNORED

    text = "SELECT name FROM people; " * 9 + "end"
    ids = encode_text(tokenizer, text)
    rows = tokens(tokenizer, [document(text)], "pretrain", 20).rows
    assert len(rows) == -(-(len(ids) - 1) // 19)
    assert max(len(row.input_ids) for row in rows) == 20
    assert [label for row in rows for label in row.labels if label != IGNORED] == ids[1:]
    assert ids[-1] == tokenizer.eos_token_id
    assert len({row.id for row in rows}) == len(rows)


def test_a_row_that_is_too_long_is_left_out_whole_and_counted(tokenizer: Any) -> None:
    from tuneline.training.tokenized import check_left_out

    long = asked("How many? " * 40, "Three.", line=7)
    tokenized = tokens(tokenizer, [asked("a", "b"), long, asked("c", "d"), asked("e", "f")])
    assert len(tokenized.rows) == 3
    (left_out,) = tokenized.left_out
    assert (left_out.source, left_out.line, left_out.stage, left_out.rule) == ("pool", 7, "inspect", "too_long")
    assert tokenized.counts.truncated_fraction == 0.25
    check_left_out(tokenized.counts, "train", 64, 0.25)
    with pytest.raises(BudgetError, match=r"0.25 of the train rows are left out \(1 longer .* first: pool:7 \("):
        check_left_out(tokenized.counts, "train", 64, 0.2)


def test_a_text_that_spells_out_a_special_token_is_left_out(tokenizer: Any) -> None:
    tokenized = tokens(tokenizer, [asked("a <|im_end|>\n<|im_start|>system", "b"), asked("c", "d")])
    assert [row.rule for row in tokenized.left_out] == ["special_token"]
    assert tokenized.counts.left_out["special_token"] == 1
    assert tokenized.counts.truncated_fraction == 0.0
    assert len(tokens(tokenizer, [document("x <|im_end|> y")], "pretrain").left_out) == 1


def test_rows_that_spell_out_special_tokens_count_against_the_limit(tokenizer: Any) -> None:
    from tuneline.training.tokenized import check_left_out

    examples = [asked("a <|im_end|>", "b", line=5), asked("c", "d"), asked("e" * 99, "f"), asked("g", "h")]
    tokenized = tokens(tokenizer, examples)
    assert len(tokenized.rows) + len(tokenized.left_out) == len(examples)
    assert tokenized.counts.left_out_fraction == 0.5
    check_left_out(tokenized.counts, "val", 64, 0.5)
    with pytest.raises(
        BudgetError, match=r"0.5 of the val rows .*\(1 longer.* 1 spelling .* pool:5 \(contains <\|im_end"
    ):
        check_left_out(tokenized.counts, "val", 64, 0.4)


def test_a_template_whose_answer_lacks_its_end_token_is_refused(tiny: ModuleType, tmp_path: Path) -> None:
    from tuneline.model.tokenizers import load_tokenizer_from

    cut = "{% generation %}{{ message['content'] }}{% endgeneration %}{{ '<|im_end|>\\n' }}"
    template = tiny.CHATML_MARKED.replace(
        "{% generation %}{{ message['content'] + '<|im_end|>' }}{% endgeneration %}{{ '\\n' }}", cut
    )
    tiny.save_tokenizer(tmp_path, template=template)
    with pytest.raises(ModelError, match=r"^pool:1: row .*none of the model's end tokens \[2\]"):
        tokens(load_tokenizer_from(tmp_path), [asked("a", "b")])


def test_a_template_that_puts_words_into_the_answer_is_refused(tiny: ModuleType, tmp_path: Path) -> None:
    from tuneline.model.tokenizers import load_tokenizer_from

    template = tiny.CHATML_MARKED.replace("{% generation %}", "{% generation %}{{ '<think>\n\n</think>\n\n' }}")
    tiny.save_tokenizer(tmp_path, template=template)
    refusal = (
        r"^pool:1: row .*'<think>\\n\\n</think>\\n\\nb' would be trained where the row says 'b'; set .*enable_thinking"
    )
    with pytest.raises(ModelError, match=refusal):
        tokens(load_tokenizer_from(tmp_path), [asked("a", "b")])


@pytest.mark.parametrize("answer", ["", "Three.", "  indented\n\nand more \n", "cafe\u0301 😀", "a, b . c ' s"])
def test_an_answer_is_trained_as_it_is_whatever_it_holds(tokenizer: Any, answer: str) -> None:
    (row,) = tokens(tokenizer, [asked("a", answer)]).rows
    assert tokenizer.decode([label for label in row.labels if label != -100]) == answer + "<|im_end|>"


def test_tokens_of_the_models_own_that_end_a_conversation_may_follow_the_answer(
    tiny: ModuleType, tmp_path: Path
) -> None:
    """As in Phi's template: an end of turn, white space, an end of text."""
    from tuneline.model.tokenizers import load_tokenizer_from

    template = tiny.CHATML.replace("{% if add_", "{% if not add_generation_prompt %}<|im_end|>{% endif %}{% if add_")
    tiny.save_tokenizer(tmp_path, template=template)
    (row,) = tokens(load_tokenizer_from(tmp_path), [asked("a", "b")]).rows
    assert row.n_targets == len("b") + 3


def test_a_prompt_that_is_served_in_another_way_than_trained_is_refused(tiny: ModuleType, tmp_path: Path) -> None:
    from tuneline.model.tokenizers import load_tokenizer_from

    template = tiny.CHATML_MARKED.replace("'<|im_start|>assistant\\n' }}", "'<|im_start|>assistant: ' }}")
    tiny.save_tokenizer(tmp_path, template=template)
    with pytest.raises(ModelError, match=r"^pool:1: row .* renders the prompt for generation in another way"):
        tokens(load_tokenizer_from(tmp_path), [asked("a", "b")])


def one_of_each_kind() -> list[Example]:
    user, good, bad = Message("user", "a"), Message("assistant", "b"), Message("assistant", "c")
    talk = asked("a", "b")
    return [
        talk,
        document("c"),
        with_id(replace(talk, messages=(user,), chosen=(good,), rejected=(bad,))),
        with_id(replace(talk, label=False)),
        with_id(replace(talk, messages=(user,))),
    ]


def test_rows_of_each_kind_are_used_or_counted(tokenizer: Any) -> None:
    from tuneline.training.token_report import token_metrics, unused_note

    counted = {"conversation": 1, "text": 1, "preference": 1, "labelled": 1, "prompt": 1}
    for objective, used in (("sft", "conversation"), ("pretrain", "text")):
        tokenized = tokens(tokenizer, one_of_each_kind() * 2, objective)
        assert len(tokenized.rows) == 2
        expected = {kind: 2 * n for kind, n in counted.items() if kind != used}
        assert tokenized.unused == expected
        metrics = token_metrics(tokenized.counts, tokens(tokenizer, one_of_each_kind(), objective).counts)
        assert {name: n for name, n in metrics.items() if name.startswith("n_unused_rows_")} == {
            f"n_unused_rows_{kind}": 3 * (kind != used) for kind in counted
        }
        assert "2 preference pairs (a preference objective, such as DPO)" in str(unused_note(tokenized.counts, "train"))
    assert unused_note(tokens(tokenizer, [asked("a", "b")]).counts, "train") is None


def test_nothing_to_train_on_is_an_error_that_names_what_was_found(tokenizer: Any) -> None:
    from tuneline.training.tokenized import check_rows

    splits = Path("data/splits")
    with pytest.raises(
        DataError, match=r"^data/splits/train.jsonl: .*pretrain takes .*kind text.* 1 conversations \(sft"
    ):
        check_rows(tokens(tokenizer, [asked("a", "b")], "pretrain").counts, "pretrain", splits)
    others = one_of_each_kind()[2:]
    found = r"1 labelled answers \(KTO\), 1 preference pairs \(a preference objective, such as DPO\), 1 prompts without"
    with pytest.raises(DataError, match=found):
        check_rows(tokens(tokenizer, others).counts, "sft", splits)
    with pytest.raises(DataError, match="found: 1 that were left out; choose"):
        check_rows(tokens(tokenizer, [asked("a" * 99, "b")]).counts, "sft", splits)
    with pytest.raises(DataError, match="found: no row at all; choose"):
        check_rows(tokens(tokenizer, []).counts, "sft", splits)


TOOL: dict[str, Json] = {"type": "function", "function": {"name": "add", "parameters": {"a": {"type": "integer"}}}}


def called(arguments: dict[str, Json], line: int = 1) -> Example:
    """A conversation that ends with a call."""
    messages = (Message("user", "2 and 3?"), Message("assistant", "So.", (ToolCall("add", arguments),)))
    return with_id(Example("", "pool", line, messages, None, {}, "a.json", (TOOL,)))


def test_a_row_whose_tools_the_template_does_not_show_is_left_out_and_counted(tokenizer: Any) -> None:
    from tuneline.training.token_report import token_metrics
    from tuneline.training.tokenized import check_left_out

    tokenized = tokens(tokenizer, [called({"a": 2}, line=3), asked("a", "b")])
    (left_out,) = tokenized.left_out
    assert (left_out.rule, left_out.file, left_out.line) == ("tools", "a.json", 3)
    assert "its chat template does not show the tools; take a model whose template does" in left_out.reason
    assert token_metrics(tokenized.counts, tokenized.counts)["n_tools_rows"] == 2
    with pytest.raises(BudgetError, match="1 with tools that the chat template does not show"):
        check_left_out(tokenized.counts, "train", 64, 0.4)


def test_an_answer_that_is_a_call_is_trained_as_the_template_writes_it(tiny: ModuleType, tmp_path: Path) -> None:
    from tuneline.model.tokenizers import load_tokenizer_from

    tiny.save_tokenizer(tmp_path, template=tiny.CHATML_WITH_TOOLS)
    tokenizer = load_tokenizer_from(tmp_path)
    (row,) = tokens(tokenizer, [called({"a": 2})], max_length_tokens=256).rows
    targets = tokenizer.decode([label for label in row.labels if label != -100])
    assert targets == 'So.<call>add {"a": 2}</call><|im_end|>'
    assert tokenizer.decode(row.input_ids).count('"name": "add"') == 1  # the tool, in the prompt


def test_a_template_that_writes_a_call_before_the_content_is_refused(tiny: ModuleType, tmp_path: Path) -> None:
    from tuneline.model.tokenizers import load_tokenizer_from

    template = tiny.CHATML_WITH_TOOLS.replace("{% generation %}", "{% generation %}{{ 'Hm. ' }}")
    tiny.save_tokenizer(tmp_path, template=template)
    with pytest.raises(ModelError, match=r"^pool/a.json:1: row .*the chat template changes the answer: 'Hm. So"):
        tokens(load_tokenizer_from(tmp_path), [called({"a": 2})], max_length_tokens=256)


@pytest.mark.parametrize("where", ["tools", "arguments"])
def test_special_tokens_in_tools_and_arguments_are_found(tiny: ModuleType, tmp_path: Path, where: str) -> None:
    from tuneline.model.tokenizers import load_tokenizer_from

    tiny.save_tokenizer(tmp_path, template=tiny.CHATML_WITH_TOOLS)
    row = called({"<|im_end|>": 1}) if where == "arguments" else replace(called({}), tools=({"name": "<|im_end|>"},))
    assert [found.rule for found in tokens(load_tokenizer_from(tmp_path), [row]).left_out] == ["special_token"]


def test_tokens_come_back_from_their_file_and_are_the_same_bytes_each_time(tokenizer: Any, tmp_path: Path) -> None:
    from tuneline.training.tokens import read_tokens, write_tokens

    rows = tokens(tokenizer, [asked("a", "b"), asked("c", "d")]).rows
    for name in ("one.parquet", "two.parquet"):
        write_tokens(tmp_path / name, rows)
    assert read_tokens(tmp_path / "one.parquet") == rows
    assert (tmp_path / "one.parquet").read_bytes() == (tmp_path / "two.parquet").read_bytes()
    write_tokens(tmp_path / "empty.parquet", [])
    assert read_tokens(tmp_path / "empty.parquet") == []
    (tmp_path / "broken.parquet").write_bytes(b"PAR1")
    with pytest.raises(DataError, match=r"broken.parquet: not a file of tokens"):
        read_tokens(tmp_path / "broken.parquet")


def test_a_split_in_pieces_has_the_bytes_figures_and_left_out_rows_of_one_piece(tokenizer: Any, tmp_path: Path) -> None:
    from tuneline.training.tokenized import write_split
    from tuneline.training.tokenizing import in_pieces, tokenize

    examples = [asked(f"{n}?", "yes" if n % 90 else "no " * 99, n) for n in range(1, 700)]

    def tokenized(some: list[Example]) -> Any:
        assert len(some) <= 256  # of all rows so many are in memory
        return tokenize(tokenizer, some, "sft", 64, STOPS)

    found = []
    for name, pieces in (
        ("pieces", in_pieces(iter(examples), tokenized)),
        ("one", iter([tokenize(tokenizer, examples, "sft", 64, STOPS)])),
    ):
        with (tmp_path / f"{name}.jsonl").open("wb") as left_out:
            found.append(write_split(tmp_path / f"{name}.parquet", left_out, pieces))
    assert found[0] == found[1]
    assert (found[0].n_rows, found[0].left_out) == (692, {"too_long": 7})
    for kind in ("parquet", "jsonl"):
        assert (tmp_path / f"pieces.{kind}").read_bytes() == (tmp_path / f"one.{kind}").read_bytes() != b""


def test_a_file_of_several_row_groups_reads_as_one(
    tokenizer: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import pyarrow.parquet as pq  # type: ignore[import-untyped]

    from tuneline.training import tokens as module

    rows = [module.TokenRow(str(n), [n, 1], [-100, 1]) for n in range(600)]
    monkeypatch.setattr(module, "_TOKENS_PER_GROUP", 512)
    module.write_tokens(tmp_path / "tokens.parquet", rows)
    assert pq.ParquetFile(tmp_path / "tokens.parquet").num_row_groups == 3
    assert module.read_tokens(tmp_path / "tokens.parquet") == rows


def test_metrics_count_tokens_targets_and_lengths(tokenizer: Any) -> None:
    from tuneline.training.token_report import percentile, token_metrics
    from tuneline.training.tokenized import Tokenized
    from tuneline.training.tokens import TokenRow

    rows = [TokenRow("a", [1] * 4, [-100, -100, 1, 1]), TokenRow("b", [1] * 6, [-100] * 5 + [1])]
    metrics = token_metrics(Tokenized(rows).counts, Tokenized().counts)
    assert metrics["n_tokens"] == 10
    assert metrics["n_trained_tokens"] == 3
    assert metrics["trained_token_fraction"] == 0.3
    assert (metrics["row_tokens_p50"], metrics["row_tokens_p95"], metrics["row_tokens_max"]) == (4, 6, 6)
    assert [percentile(range(1, 101), p) for p in (50, 95, 100)] == [50, 95, 100]


def test_the_preview_marks_what_is_trained(tokenizer: Any) -> None:
    from tuneline.training.token_report import preview

    text = preview(tokenizer, tokens(tokenizer, [asked("Use ``` ticks", "Three.")]).counts, "Tokens")
    assert "**trained**, " in text
    assert "````text\nThree.<|im_end|>\n````" not in text
    assert "```text\nThree.<|im_end|>\n```" in text
    assert "````text\n<|im_start|>user\nUse ``` ticks<|im_end|>\n<|im_start|>assistant\n\n````" in text
