"""`tuneline data check`: any file, tried without a trace."""

import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from tuneline.commands.main import dispatch
from tuneline.errors import ConfigError, DataError
from tuneline.reporting import checking

DATA = Path(__file__).resolve().parents[3] / "shared" / "data"
EMAIL, PHONE = "ann.smith@example-mail.com", "555-123-4567"
ANSWER = "An animal that gives milk and eats grass all day long on the meadow."
ROWS = [
    {"prompt": "What is a cow, please?", "completion": ANSWER},
    {"prompt": "What is a cow, please?", "completion": ANSWER},
    {"prompt": "Which one is it?", "completion": ""},
    {"prompt": f"Write to {EMAIL}\x1b[31m", "completion": 4},
    {"prompt": "And what is a horse?", "completion": "An animal that people ride, and that eats hay in the stable."},
    {"messages": [{"role": "user", "content": f"call {PHONE}"}]},
]


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """6 rows and a broken line, outside the repository."""
    path = tmp_path / "data" / "rows.jsonl"
    path.parent.mkdir()
    lines = [json.dumps(row) for row in ROWS]
    path.write_text("\n".join([*lines, f'{{"prompt": "\\n{PHONE} or {EMAIL}', ""]), encoding="utf-8")
    return path


def check(*words: str | Path) -> int:
    """The exit code."""
    try:
        dispatch(["data", "check", *map(str, words)])
    except SystemExit as ended:
        return int(ended.code or 0)
    return 0


def counts_by_rule(printed: str) -> dict[str, str]:
    """Second word of every line of the table that begins with a rule."""
    lines = [line.split() for line in printed.splitlines() if line.startswith(" ") and line[1:2].isalpha()]
    return {words[0]: words[1] for words in lines if len(words) > 1}


def test_every_row_is_read_and_counted_by_the_rule_that_rejects_it(
    file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert check(file) == 3
    printed = capsys.readouterr().out
    assert "7 rows read, 2 kept, 5 rejected" in printed
    assert "format prompt_completion (found by its keys); 5 of the first" in printed
    assert "kinds: 4 conversation" in printed
    counts = counts_by_rule(printed)
    expected = {"reader": "1", "format": "2", "conversation": "0", "empties": "1", "exact_duplicates": "1"}
    assert {rule: counts[rule] for rule in expected} == expected
    assert counts["toxicity"] == "off"
    assert "rows.jsonl:2 a copy of rows.jsonl:1" in printed
    # rows that can be read: 22 + 68 characters twice, 16, and 20 + 60
    assert [words.split() for words in printed.splitlines() if words.startswith(" characters")] == [
        ["characters", "16", "80", "90", "90"]
    ]


def test_an_element_of_a_json_list_has_one_number_and_it_is_no_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "pretty.json"
    path.write_text(json.dumps([ROWS[0], ROWS[3], ROWS[1]], indent=1), encoding="utf-8")
    assert check(path) == 3
    printed = capsys.readouterr().out
    assert "pretty.json[2] completion is a number" in printed
    assert "pretty.json[3] a copy of pretty.json[1]" in printed
    assert "1 of pretty.json[1]: pretty.json[3]" in printed
    assert re.search(r"pretty\.json:[0-9]", printed) is None


def test_a_file_without_a_bad_row_ends_with_0(file: Path) -> None:
    file.write_text(json.dumps(ROWS[0]) + "\n", encoding="utf-8")
    assert check(file) == 0


def test_nothing_is_written_that_stays(file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    elsewhere = tmp_path / "temporary"
    elsewhere.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(elsewhere))
    before = sorted(tmp_path.rglob("*"))
    check(file)
    assert sorted(tmp_path.rglob("*")) == before


def test_nothing_that_is_printed_is_personal_or_moves_the_cursor(
    file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    check(file, "--show", "9")
    printed = capsys.readouterr().out
    assert EMAIL not in printed
    assert PHONE not in printed
    assert not [sign for sign in printed if sign != "\n" and not sign.isprintable()]


def test_the_name_of_a_file_moves_no_cursor_either(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = file.rename(file.with_name("rows\x1b[2J.jsonl"))
    assert check(path) == 3
    captured = capsys.readouterr()
    printed = captured.out + captured.err
    assert "rows\\x1b[2J.jsonl" in captured.err
    assert not [sign for sign in printed if sign != "\n" and not sign.isprintable()]


@pytest.mark.parametrize(("n_shown", "n_printed"), [("0", 0), ("1", 1), ("5", 2)])
def test_as_many_rows_of_a_rule_are_shown_as_asked_for(
    n_shown: str, n_printed: int, file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    check(file, "--show", n_shown)
    printed = capsys.readouterr().out
    assert ("rows.jsonl:4" in printed) + ("rows.jsonl:6" in printed) == n_printed


def test_columns_and_format_are_obeyed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "qa.csv"
    path.write_text("question,answer\nWhat is a cow?,An animal that gives milk.\n", encoding="utf-8")
    assert check(path, "--columns", "prompt=question", "--columns", "completion=answer") == 0
    assert "format prompt_completion" in capsys.readouterr().out
    assert check(path, "--columns", "text=answer", "--format", "text") == 0
    assert "kinds: 1 text" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "problem"),
    [
        (["--columns", "prompt"], "--columns prompt: no KEY=COLUMN"),
        (["--columns", "prompt=a", "--columns", "prompt=b"], "--columns prompt=b: prompt is a already; give each key"),
        (["--columns", "prompt=nothing"], r"--columns.prompt: 'nothing' is in none of the first rows"),
        (["--clean", "strickt"], "--clean strickt: no such file in conf/clean, allowed is .*did you mean 'strict'"),
        (["--conf", "nowhere"], "--clean strict: no such file in nowhere/clean, allowed is none; run in"),
    ],
)
def test_an_option_that_cannot_be_is_one_line_with_the_fix(words: list[str], problem: str, file: Path) -> None:
    with pytest.raises((DataError, ConfigError), match=problem) as raised:
        check(file, *words)
    assert "\n" not in str(raised.value)


def test_a_files_own_words_are_not_taken_for_an_option(tmp_path: Path) -> None:
    path = tmp_path / "data.sources[0].jsonl"
    path.write_text('{"data.sources[0].a": 1}\n', encoding="utf-8")
    with pytest.raises(DataError) as raised:
        check(path)
    assert str(raised.value).count("data.sources[0].") == 2


@pytest.mark.parametrize("name", ["row*.jsonl", "rows?.jsonl"])
def test_a_name_that_stands_for_several_files_is_refused(name: str, file: Path) -> None:
    for path in (file.with_name("rows1.jsonl"), file.with_name(name)):
        path.write_text(json.dumps(ROWS[0]) + "\n", encoding="utf-8")
    with pytest.raises(DataError, match=r"stands for several files; give one file") as raised:
        check(file.with_name(name))
    assert "\n" not in str(raised.value)


def test_a_rule_of_another_type_is_named_with_its_key(file: Path, tmp_path: Path) -> None:
    shutil.copytree("conf/clean", tmp_path / "conf" / "clean")
    rules = tmp_path / "conf" / "clean" / "strict.yaml"
    text = rules.read_text(encoding="utf-8")
    rules.write_text(text.replace("whitespace: {enabled: true}", "whitespace: {enabled: 3}"), encoding="utf-8")
    with pytest.raises(ConfigError, match=r"strict\.yaml: clean\.whitespace\.enabled: 3, allowed is true or false"):
        check(file, "--conf", tmp_path / "conf")


def test_a_folder_a_pipe_and_a_device_are_refused_at_once(tmp_path: Path) -> None:
    (tmp_path / "folder.jsonl").mkdir()
    os.mkfifo(tmp_path / "pipe.jsonl")
    (tmp_path / "zero.jsonl").symlink_to("/dev/zero")
    for path in sorted(tmp_path.iterdir()):
        with pytest.raises(DataError, match=rf"{path.name}: is no regular file; give the path of one file"):
            check(path)


@pytest.mark.parametrize(
    ("name", "content", "problem"),
    [
        ("none.jsonl", None, r"none\.jsonl: no such file"),
        (f"{'long' * 80}.jsonl", None, r"long\.jsonl: cannot be looked up \(File name too long\); give the path of"),
        ("empty.jsonl", b"", r"empty\.jsonl: is empty"),
        ("rows.xlsx", b"PK", r"extension '\.xlsx' is unknown"),
        ("utf16.jsonl", '{"text": "a"}'.encode("utf-16"), r"UTF-16"),
        ("other.jsonl", b'{"a": 1}\n', r"fit no known format"),
    ],
)
def test_a_file_that_cannot_be_used_is_an_error(name: str, content: bytes | None, problem: str, tmp_path: Path) -> None:
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError, match=problem):
        check(tmp_path / name)


@pytest.mark.parametrize("words", [["data"], ["data", "check"], ["data", "check", "a.jsonl", "--show", "-1"]])
def test_a_wrong_command_line_ends_with_2(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        dispatch(words)
    assert ended.value.code == 2
    assert "usage: tuneline data" in capsys.readouterr().err


def test_no_heavy_library_is_imported(file: Path, pytestconfig: pytest.Config) -> None:
    heavy = "{'torch', 'transformers', 'dvc', 'hydra', 'datasets', 'pyarrow', 'matplotlib', 'tokenizers'}"
    code = (
        "import sys\nfrom tuneline.commands.main import dispatch\n"
        f"try:\n    dispatch(['data', 'check', {str(file)!r}])\n"
        f"except SystemExit:\n    print(sorted({heavy} & set(sys.modules)))"
    )
    environment = {**os.environ, "PYTHONPATH": str(pytestconfig.rootpath / "src")}
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment, check=True)
    assert ran.stdout.splitlines()[-1] == "[]"


@pytest.mark.slow  # starts processes
def test_several_processes_find_what_one_finds(
    file: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    check(file)
    alone = capsys.readouterr().out
    monkeypatch.setattr(checking, "_BYTES_FOR_PROCESSES", 1)
    check(file)
    assert capsys.readouterr().out == alone


@pytest.mark.slow
@pytest.mark.skipif(not DATA.is_dir(), reason="the public samples are not beside the repository")
@pytest.mark.parametrize(
    ("name", "n_rows", "words"),
    [
        ("alpaca_en_demo.json", 999, []),
        ("alpaca_zh_demo.json", 1000, []),
        ("glaive_toolcall_en_demo.json", 300, []),
        ("dpo_en_demo.json", 300, []),
        ("kto_en_demo.json", 300, []),
        ("c4_demo.jsonl", 300, []),
        ("gsm8k_train.jsonl", 7473, ["--columns", "prompt=question", "--columns", "completion=answer"]),
        ("toolformer_dedupe_only.json", 7673, []),
    ],
)
def test_public_files_are_read_to_the_last_row(
    name: str, n_rows: int, words: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert check(DATA / name, *words) in (0, 3)
    assert f"{n_rows:,} rows read" in capsys.readouterr().out
