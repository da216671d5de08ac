"""The clean stage's core: every row accounted for, the right copy kept, the same bytes from any number of processes."""

import random
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from msgspec.structs import replace
from omegaconf import OmegaConf

from tuneline.config.schema import CleanConfig, SourceConfig, SourceRole
from tuneline.data import cleaning
from tuneline.data.accounting import Tally
from tuneline.data.cleaning import clean_files, rule_names
from tuneline.data.dedup import keys_of
from tuneline.data.record_files import iterate_rejected, read_examples, write_examples
from tuneline.data.records import Example, Json, Message, Rejected, ToolCall, make_example, with_id
from tuneline.data.writing import CleanOutputs
from tuneline.errors import DataError

ROOT = Path(__file__).resolve().parents[2]
NOT_RULES = {"engine", "workers", "max_rejected_fraction"}


def source(name: str, role: SourceRole) -> SourceConfig:
    return SourceConfig(
        name=name, path=f"{name}.jsonl", hub=None, format="auto", role=role, columns={}, system_prompt=None,
        task_prefix=None, weight=None, count=None,
    )  # fmt: skip


SOURCES = [source("pool", "pool"), source("more", "pool"), source("test", "test"), source("bench", "benchmark")]


def rules_of(name: str, **changes: object) -> CleanConfig:
    """conf/clean/<name>.yaml with other values, in one process."""
    values: Any = OmegaConf.to_container(OmegaConf.load(ROOT / f"conf/clean/{name}.yaml"))
    return CleanConfig.model_validate(values | {"workers": 1} | changes)


BASIC = rules_of("basic", length=rules_of("basic").length.model_copy(update={"max_chars": 400}))
STRICT = rules_of("strict")


def ask(prompt: str, answer: str, source: str = "pool", line: int = 1) -> Example:
    return make_example(source, line, (Message("user", prompt), Message("assistant", answer)), None, {})


@dataclass(frozen=True)
class Result:
    examples: list[Example]
    rejected: list[Rejected]
    clusters: list[str]
    tally: Tally

    def why(self) -> list[tuple[str, int, str]]:
        return [(row.source, row.line, row.rule) for row in self.rejected]


CleanRows = Callable[..., Result]


@pytest.fixture
def clean_rows(tmp_path: Path) -> CleanRows:
    def cleaned(
        rows: Sequence[Example], rules: CleanConfig = BASIC, sources: Sequence[SourceConfig] = SOURCES
    ) -> Result:
        given = tmp_path / "given.jsonl"
        outputs = CleanOutputs(*(tmp_path / name for name in ("kept", "gone", "clusters")))
        write_examples(given, rows)
        tally = clean_files([given], outputs, sources, rules, lambda items: items, lambda _: None)
        clusters = outputs.clusters.read_text().splitlines()
        return Result(read_examples(outputs.examples), list(iterate_rejected(outputs.rejected)), clusters, tally)

    return cleaned


def places(rows: Sequence[Example]) -> list[tuple[str, int]]:
    return [(row.source, row.line) for row in rows]


# --- copies


def test_of_several_copies_the_one_of_the_earliest_source_then_the_longest_stays(clean_rows: CleanRows) -> None:
    rows = [ask("q", "a", "more", 1), ask("q", "a", "pool", 7), ask("q", "a", "pool", 3), ask("Q?", "A.", "more", 2)]
    cleaned = clean_rows([*rows, ask("Q  ?", "A. ", "pool", 9)])
    assert places(cleaned.examples) == [("pool", 9)]
    assert cleaned.why() == [
        ("more", 1, "exact_duplicates"),
        ("pool", 7, "folded_duplicates"),
        ("pool", 3, "exact_duplicates"),
        ("more", 2, "folded_duplicates"),
    ]
    assert cleaned.rejected[0].reason == "a copy of pool:7"
    assert cleaned.rejected[3].reason == "the same words as pool:9"


def test_a_cluster_names_the_row_that_stays_and_all_that_went_for_it(clean_rows: CleanRows) -> None:
    kept = ask("Q  ?", "A. ", "pool", 9)
    (cluster,) = clean_rows([ask("q", "a", "more", 1), ask("q", "a", "pool", 7), kept, ask("x", "y")]).clusters
    assert cluster == (
        '{"copies": [{"jaccard": 1.0, "place": "more:1", "rule": "exact_duplicates"},'
        ' {"jaccard": 1.0, "place": "pool:7", "rule": "folded_duplicates"}],'
        f' "kept": "pool:9", "kept_id": "{kept.id}"}}'
    )


def test_near_copies_go_with_their_similarity(clean_rows: CleanRows) -> None:
    words = " ".join(f"word{number}" for number in range(60))
    cleaned = clean_rows([ask("q", words, line=1), ask("q", f"{words} more", line=2)], STRICT)
    assert cleaned.why() == [("pool", 1, "near_duplicates")]  # the longer one stays
    assert cleaned.rejected[0].reason == "a near copy of pool:2 (Jaccard similarity 0.983)"  # 57 of 58 runs


def test_rows_on_one_passage_stay_where_they_teach_something_else(clean_rows: CleanRows) -> None:
    passage = " ".join(f"word{number}" for number in range(90))
    asked = [("Who", "The miller's third son."), ("When", "In 1820."), ("When then", "In 1820.")]
    rows = [ask(f"{passage} {question}?", answer, line=line) for line, (question, answer) in enumerate(asked, 1)]
    assert clean_rows(rows, STRICT).why() == [("pool", 2, "near_duplicates")]  # the longer one stays


def test_rows_under_other_system_texts_are_no_near_copies(clean_rows: CleanRows) -> None:
    words = " ".join(f"word{number}" for number in range(60))
    rows = [
        make_example("pool", line, (Message("system", system), *ask("q", f"{words} {end}").messages), None, {})
        for line, (system, end) in enumerate([("To French.", "oui"), ("To Spanish.", "si"), ("to french", "non")], 1)
    ]
    assert clean_rows(rows, STRICT).why() == [("pool", 3, "near_duplicates")]


def test_rows_of_one_template_do_not_pile_up_in_memory(tmp_path: Path) -> None:
    """A group of rows that all share a passage is read bit by bit: measured in a process of its own."""
    peaks = [_peak_mib_of_templated_rows(tmp_path / str(n_rows), n_rows) for n_rows in (1000, 6000)]
    assert peaks[1] - peaks[0] < 5000 * 6 / 1024  # 6 KiB a kept row: its runs and keys, not its text


def _peak_mib_of_templated_rows(folder: Path, n_rows: int) -> float:
    folder.mkdir()
    passage = " ".join(f"word{number}" for number in range(200))
    own = random.Random(1)
    rows = (
        ask(f"{passage} {' '.join(str(own.randrange(10**6)) for _ in range(40))}", f"{own.random()}", line=line)
        for line in range(1, n_rows + 1)
    )
    write_examples(folder / "given.jsonl", rows)
    program = Path(__file__).with_name("peak_of_cleaning.py")
    words = [sys.executable, str(program), str(folder / "given.jsonl"), str(folder), STRICT.model_dump_json()]
    done = subprocess.run(words, check=True, capture_output=True, text=True)
    n_kept, peak_mib = done.stdout.split()
    assert int(n_kept) == n_rows
    return float(peak_mib)


def test_rows_of_one_question_with_other_labels_or_roles_are_no_copies(clean_rows: CleanRows) -> None:
    words = " ".join(f"word{number}" for number in range(60))
    good = with_id(Example("", "pool", 1, ask("q", words).messages, None, {}, label=True))
    bad = with_id(Example("", "pool", 2, ask("q", words).messages, None, {}, label=False))
    raw = make_example("pool", 3, (), f"q\n{words}", {})
    assert clean_rows([good, bad, raw], STRICT).rejected == []
    assert clean_rows([ask("a", "b c", line=1), ask("a b", "c", line=2)]).rejected == []


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("Who, me?", "who me"),
        ("Show the  names!!", " show the names\n"),
        ("caf\u00e9", "CAFE\u0301"),
        ("“Yes” – he said…", '"yes" he said.'),
        ("STRASSE", "straße"),
        ("你好，世界。", "你好 世界"),
    ],
)
def test_case_punctuation_and_white_space_make_no_difference(one: str, other: str) -> None:
    keys = keys_of([ask(one, "a"), ask(other, "a")], BASIC).folded
    assert keys[0] == keys[1]


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("WHERE x > 5", "WHERE x < 5"),
        ("3 + 4", "3 - 4"),
        ("WHERE b != 5", "WHERE b = 5"),
        ("a*b", "a/b"),
        ("f(x)", "f[x]"),
        ("it's", "its"),
        ("?", "!"),
        ("5 %", "5 $"),
        ("a_b", "a b"),
        ("😀", "😢"),
    ],
)
def test_signs_with_a_meaning_make_a_difference(one: str, other: str) -> None:
    keys = keys_of([ask(one, "a"), ask(other, "a")], BASIC).folded
    assert keys[0] != keys[1]


def called(name: str, arguments: dict[str, Json]) -> Example:
    answer = Message("assistant", "", (ToolCall(name, arguments),))
    return with_id(Example("", "pool", 1, (Message("user", "Go."), answer), None, {}))


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (called("f", {"from": "Paris", "to": "Rome"}), called("f", {"from": "Rome", "to": "Paris"})),
        (called("confirm", {"id": "a"}), called("cancel", {"id": "a"})),
        (called("f", {"on": True, "n": 1}), called("f", {"on": False, "n": 2})),
        (called("f", {}), replace(called("f", {}), tools=({"name": "f"},))),
    ],
)
def test_other_calls_and_other_tools_make_other_rows(one: Example, other: Example) -> None:
    keys = keys_of([one, other], STRICT)
    assert keys.folded[0] != keys.folded[1]
    assert not (keys.bands[0] == keys.bands[1]).all()


def test_texts_without_a_word_are_compared_by_their_signs() -> None:
    keys = keys_of([ask("?", "!"), ask("!!!", "...")], STRICT)
    assert not (keys.bands[0] == keys.bands[1]).any()


def test_rows_that_differ_in_an_address_only_are_copies_once_it_is_redacted(clean_rows: CleanRows) -> None:
    rows = [ask("mail anna@example.net", "yes", line=1), ask("mail bob@example.net", "yes", line=2)]
    assert clean_rows(rows).why() == [("pool", 2, "exact_duplicates")]


# --- held-out rows


def test_a_pool_row_is_no_copy_of_a_held_out_row(clean_rows: CleanRows) -> None:
    sources = [SOURCES[2], SOURCES[0], SOURCES[3]]  # the test comes first here
    rows = [ask("q", "a", "test"), ask("q", "a", "pool"), ask("q", "a", "bench")]
    assert clean_rows(rows, STRICT, sources).examples == rows


def test_rows_of_test_and_benchmark_sources_are_held_out_as_given(clean_rows: CleanRows) -> None:
    given = [
        ask("\ufffd", "a", "test", 1),
        ask("q", "", "bench", 2),
        ask("q", "I cannot help with that.", "test", 3),
        ask("mail anna@example.net", "a" * 401, "test", 4),
        ask("q", "a", "test", 5),
        ask("q", "a", "test", 6),
    ]
    pool = [ask("mail anna@example.net", "yes", "pool", 1), ask("", "no", "pool", 2)]
    cleaned = clean_rows([*pool, *given])
    assert [row for row in cleaned.examples if row.source != "pool"] == given
    assert cleaned.tally.changed == {"email": 1}
    counts = cleaned.tally.metrics(rule_names(BASIC), SOURCES)
    assert (counts["n_kept_from_test"], counts["n_rejected_from_test"]) == (5, 0)
    assert (counts["n_kept_from_pool"], counts["n_rejected_from_pool"]) == (1, 1)


# --- the whole


def test_each_rule_counts_what_it_took_and_the_first_that_finds_something_takes_it(clean_rows: CleanRows) -> None:
    rows = [
        ask("\ufffd", "", line=1),
        ask("q", "", line=2),
        ask("q", "a" * 401, line=3),
        ask("q", "I cannot help with that.", line=4),
        ask("q", "a", line=5),
        ask("q", "a", line=6),
        ask("Q", "a", line=7),
    ]
    counts = clean_rows(rows).tally.metrics(rule_names(BASIC), SOURCES)
    assert {name: n for name, n in counts.items() if n} == {
        "n_read": 7,
        "n_kept": 1,
        "n_rejected": 6,
        "rejected_fraction": 6 / 7,
        "n_rejected_by_encoding": 1,
        "n_rejected_by_empties": 1,
        "n_rejected_by_length": 1,
        "n_rejected_by_refusals": 1,
        "n_rejected_by_exact_duplicates": 1,
        "n_rejected_by_folded_duplicates": 1,
        "n_kept_from_pool": 1,
        "n_rejected_from_pool": 6,
        "n_rejected_from_pool_by_encoding": 1,
        "n_rejected_from_pool_by_empties": 1,
        "n_rejected_from_pool_by_length": 1,
        "n_rejected_from_pool_by_refusals": 1,
        "n_rejected_from_pool_by_exact_duplicates": 1,
        "n_rejected_from_pool_by_folded_duplicates": 1,
    }
    assert {f"n_rejected_by_{rule}" for rule in rule_names(BASIC)} <= counts.keys()  # zero is said too


def test_rules_are_the_sections_of_conf_in_their_order() -> None:
    assert rule_names(BASIC) == [name for name in CleanConfig.model_fields if name not in NOT_RULES]


@pytest.mark.parametrize("name", ["encoding", "empties", "refusals", "exact_duplicates", "folded_duplicates"])
def test_a_rule_that_is_off_takes_nothing(name: str, clean_rows: CleanRows) -> None:
    rows = [ask("\ufffd", "a"), ask("e", "", line=6), ask("q", "I cannot help with that.", line=2)]
    rows += [ask("x", "a", line=number) for number in (3, 4)] + [ask("X", "a", line=5)]
    section = {**dict(BASIC)[name].model_dump(), "enabled": False}
    off = CleanConfig.model_validate({**BASIC.model_dump(), name: section})
    assert name in {row.rule for row in clean_rows(rows).rejected}
    assert name not in {row.rule for row in clean_rows(rows, off).rejected}


def test_a_rejected_row_is_kept_as_it_was_read(clean_rows: CleanRows) -> None:
    row = ask("  mail   anna@example.net  ", "I cannot help with that.")
    (gone,) = clean_rows([row], STRICT).rejected
    assert isinstance(gone.row, dict)
    assert gone.row["id"] == row.id


def test_a_row_of_an_unknown_source_is_an_error(clean_rows: CleanRows) -> None:
    with pytest.raises(DataError, match=r"given\.jsonl: source 'old' is not in data\.sources; run ingest again"):
        clean_rows([ask("q", "a", "old", 4)])


def test_a_check_that_fails_leaves_the_reasons_but_no_examples(tmp_path: Path) -> None:
    given, outputs = tmp_path / "given.jsonl", CleanOutputs(*(tmp_path / name for name in ("kept", "gone", "clusters")))
    write_examples(given, [ask("q", "")])

    def refuse(tally: Tally) -> None:
        raise DataError(f"{tally.n_rejected} rejected")

    with pytest.raises(DataError, match="1 rejected"):
        clean_files([given], outputs, SOURCES, BASIC, lambda items: items, refuse)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["clusters", "given.jsonl", "gone"]


def test_an_empty_file_of_examples_gives_empty_files(clean_rows: CleanRows) -> None:
    cleaned = clean_rows([], STRICT)
    assert (cleaned.examples, cleaned.rejected, cleaned.clusters) == ([], [], [])


PIECES = st.sampled_from(
    ["a", "A", " ", "!", "b", "\ufffd", "x@y.net", "z@y.net", "I cannot help with that.", "+1 202-555-0110"]
)
TEXTS = st.lists(PIECES, max_size=4).map("".join)


@st.composite
def many_rows(draw: st.DrawFn) -> list[Example]:
    pairs = draw(st.lists(st.tuples(TEXTS, TEXTS, st.sampled_from(["pool", "more", "test"])), max_size=30))
    return [ask(prompt, answer, source, line) for line, (prompt, answer, source) in enumerate(pairs, 1)]


@pytest.mark.parametrize("rules", [BASIC, STRICT], ids=["basic", "strict"])
@settings(deadline=None, max_examples=15, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(rows=many_rows(), seed=st.integers(0, 9), part_bytes=st.sampled_from([300, 2**21]))
def test_kept_and_rejected_are_what_was_read_and_order_decides_nothing(
    rows: list[Example],
    seed: int,
    part_bytes: int,
    rules: CleanConfig,
    clean_rows: CleanRows,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(cleaning, "_PART_BYTES", part_bytes)
    cleaned = clean_rows(rows, rules)
    assert Counter(places(cleaned.examples) + [row[:2] for row in cleaned.why()]) == Counter(places(rows))
    assert places(cleaned.examples) == [place for place in places(rows) if place in set(places(cleaned.examples))]
    shuffled = clean_rows(random.Random(seed).sample(rows, len(rows)), rules)
    assert Counter(row.id for row in shuffled.examples) == Counter(row.id for row in cleaned.examples)
    assert shuffled.tally.by_rule() == cleaned.tally.by_rule()
    # clean rows stay as they are: the rules have nothing left to do
    again = clean_rows(cleaned.examples, rules)
    assert (again.examples, again.rejected) == (cleaned.examples, [])
    assert [row for row in cleaned.examples if row.source == "test"] == [row for row in rows if row.source == "test"]


def test_every_number_of_processes_gives_the_same_bytes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cleaning, "_PART_BYTES", 4000)  # many parts
    generator = random.Random(1)
    words = [f"w{number}" for number in range(40)]
    rows = [ask("q", " ".join(generator.choices(words, k=generator.randrange(3, 60))), line=n) for n in range(300)]
    rows += [ask("q", contents.messages[1].content + " w1", line=1000 + contents.line) for contents in rows[::5]]
    write_examples(tmp_path / "given.jsonl", rows)
    written = []
    for workers in (1, 2, 3):
        outputs = CleanOutputs(*(tmp_path / f"{workers}-{name}" for name in ("kept", "gone", "clusters")))
        rules = STRICT.model_copy(
            update={"workers": workers, "language": STRICT.language.model_copy(update={"enabled": False})}
        )
        clean_files([tmp_path / "given.jsonl"], outputs, SOURCES, rules, lambda items: items, lambda _: None)
        written.append([path.read_bytes() for path in (outputs.examples, outputs.rejected, outputs.clusters)])
    assert written[0] == written[1] == written[2]
    assert all(written[0])
