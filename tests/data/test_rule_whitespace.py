"""White space: prose is tidied; whatever may mean something stays to the last blank; tidying twice changes nothing."""

import json
import time
from pathlib import Path
from textwrap import dedent

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tuneline.data.finding import Changed
from tuneline.data.records import Example, Message, ToolCall, contents, make_example
from tuneline.data.whitespace import tidy, whitespace_rule

FOLDER = Path(__file__).resolve().parents[3] / "shared" / "data"


@pytest.mark.parametrize(
    ("text", "tidied"),
    [
        ("One line.\r\nAnother.\rA third.", "One line.\nAnother.\nA third."),
        ("A sentence.   \nAnother. \n\nThe end.\t\n", "A sentence.\nAnother.\n\nThe end."),
        ("A gap   inside, and one behind.  The end.", "A gap inside, and one behind. The end."),
        (
            "Two blanks  as once was taught.\nLine by line.  And again.",
            "Two blanks as once was taught.\nLine by line. And again.",
        ),
        ("First.\n\n\n\nSecond.\n \n\t\n\nThird.", "First.\n\nSecond.\n\nThird."),
        ("\n\n  Hello there.  \n\n", "Hello there."),
        ("It costs 1\u00a0000 euros\u2009– or\u202fmore.", "It costs 1 000 euros – or more."),
        ("Ten apples at $5 and  two at $6.", "Ten apples at $5 and two at $6."),
        ("It's  what they'd do.", "It's what they'd do."),
        ("你好。  \n\n\n\n再见。", "你好。\n\n再见。"),
        (" \n\t ", ""),
    ],
)
def test_prose_is_tidied(text: str, tidied: str) -> None:
    assert tidy(text) == tidied


UNTOUCHED = {
    "python": """
        def mean(values):
            total = 0


            for value in values:   # one by one
                total  += value
            return total / len(values)
        """,
    "python without a block": "import os\n\n\n\nimport sys\n",
    "python console": ">>> 1  + 1\n2\n\n\n",
    "makefile": "all: build   test\n\nbuild:\n\tgcc  -o main main.c\n\n\n",
    "make target alone": "clean:   \n",
    "yaml": """
        name:   tuneline
        steps:
          - run:  make
            with:
              key: a   # aligned
        """,
    "yaml in capitals": "Resources:\n  Bucket:\n    Type:   S3\n\n\n\n",
    "table": """
        | name    | age |
        |---------|-----|
        | Ada     |  36 |


        """,
    "aligned columns": """
        Name      Age
        Ada       36
        Grace     85
        """,
    "two columns": "apples    5\npears    12\n",
    "columns in one line": "The row is\nred   green   blue\nand so on.",
    "columns of numbers": "x y z\n1  2  3",
    "one gap beside a number": "total  12",
    "tabs between columns": "name\tage\nAda\t36\n\n\n",
    "json": '{"a":  [1,   2],\r\n "b": "x  y"}\n',
    "json list": '["a",  "b"]\n',
    "latex": "We have \\alpha   +  \\beta.  \n\n\n\nSo \\[ x  =  y \\]\n",
    "inline formula": "Let $a   + b$ be  given.\n",
    "displayed formula": "So\n$$\na   + b\n$$\n",
    "aligned equations": "x  = 1\nyy = 22\n",
    "sql": "SELECT name,   age\nFROM singer\nWHERE note  LIKE 'a  b'\n",
    "sql in small letters": "select name   from singer\n",
    "sql inside a sentence": "Run SELECT  name FROM singer  please. ",
    "diff": "@@ -1 +1 @@\n-a  b \n+a b\n",
    "javascript": "const a  = 1;\n\n\n\nlet b;\n",
    "c": "int  main(void) {\n\treturn 0;\n}\n",
    "call alone": "print('a  b')\n",
    "shell": "$ ls  -l\n\n\n\n",
    "html": "<p>a   b</p>\n\n\n",
    "markdown code by indentation": "So:\n\n    a   b\n\n\n\nDone.\n",
    "csv": "a,b,\n1,2,\n\n\n",
    "inline code": "Type `a   b` here.",
    "quoted blanks": 'Who is called "A  B"?',
    "line break of markdown": "Roses are red,  \nViolets are blue.",
    "indentation of a poem": "The fog comes\n   on little cat feet.",
    "chinese indentation": "\u3000\u3000从前有一座山。",
}


@pytest.mark.parametrize("kind", sorted(UNTOUCHED))
def test_code_data_and_mathematics_come_out_byte_for_byte(kind: str) -> None:
    text = UNTOUCHED[kind]
    text = dedent(text[1:]) if text.startswith("\n ") else text
    assert tidy(text) == text


def test_prose_around_fenced_code_is_tidied_and_the_code_is_not() -> None:
    code = "```python\nx  = 1   \n\n\n\ny = 2\n```"
    assert tidy(f"Look  here:   \n\n\n\n{code}\n\n\n\nThat is  all.\n") == f"Look here:\n\n{code}\n\nThat is all."
    listed = "  ~~~\n  a   b  \n  ~~~"
    assert tidy(f"Look  here:\n{listed}\n") == f"Look here:\n{listed}"


def test_code_whose_fence_is_never_closed_is_not_touched() -> None:
    text = "Look:\n```\na   b  \n\n\n\n"
    assert tidy(text) == text


@pytest.mark.parametrize(
    ("code", "tail"),
    [
        ("1. ```\n   foo   bar\n   ```", "\n"),
        ("- * ~~~\n    foo   bar\n    ~~~", "\n"),
        ("> ```\n> foo   bar\n> ```", "\n\n"),
        ("> 1) ```\n>    foo   bar\n>    ```", "\n"),
        ("\u00a0```\nfoo\u00a0  bar\n\u00a0```", "\n"),
        ("```\n> ```\nfoo   bar\n- ```\nfoo   bar\n```", "\n"),
    ],
)
def test_code_in_lists_quotes_and_behind_odd_spaces_is_not_touched(code: str, tail: str) -> None:
    assert tidy(f"Do  this:\n{code}{tail}Then  this") == f"Do this:\n{code}{tail}Then this"


@pytest.mark.parametrize("text", ["See: ```\nfoo   bar\n```\nThen  this", "a) ~~~\nfoo   bar\n~~~ x\nThen  this"])
def test_a_text_with_a_fence_that_is_not_understood_is_not_touched(text: str) -> None:
    assert tidy(text) == text


def test_only_what_people_wrote_is_tidied() -> None:
    odd = "two  words \n"
    call = ToolCall("find", {"what": odd})
    turns = (Message("user", odd), Message("assistant", odd, (call,)), Message("tool", odd), Message("assistant", "ok"))
    (finding,) = whitespace_rule()([make_example("pool", 1, turns, None, {})])
    assert isinstance(finding, Changed)
    assert contents(finding.example) == ["two words", "two words", odd, odd, "ok"]
    assert finding.counts == {"whitespace_tidied": 1}


def test_a_tidied_row_has_the_id_of_its_new_content_and_a_clean_one_is_not_mentioned() -> None:
    clean, untidy = (make_example("pool", 1, (), text, {}) for text in ("A text.", "A text. "))
    assert whitespace_rule()([clean, untidy]) == [None, Changed(clean, {"whitespace_tidied": 1})]


def test_both_continuations_of_a_pair_are_tidied() -> None:
    said = (Message("assistant", "yes "),), (Message("assistant", "no "),)
    pair = Example("", "pool", 1, (Message("user", "so?"),), None, {}, chosen=said[0], rejected=said[1])
    (finding,) = whitespace_rule()([pair])
    assert isinstance(finding, Changed)
    assert contents(finding.example) == ["so?", "yes", "no"]


BLANKS = (" ", "  ", "    ", "\n", "\n\n", "\t", "\r", "\r\n", "\u00a0", "\u3000", "\x0b", "\u2028", "\u200a", "\x85")
WORDS = (
    *("a", "Word", "it's", "1", "if", "SELECT", "key:", "- ", "> ", "1. ", "```", "~~~", "\n```\n", "\n\u00a0~~~\n"),
    *".,:\"'`$()=-+|#",
)
PIECES = st.sampled_from(BLANKS + WORDS)


@settings(max_examples=500, deadline=None)
@given(st.lists(PIECES, max_size=25).map("".join))
def test_tidying_twice_changes_nothing_more(text: str) -> None:
    assert tidy(tidy(text)) == tidy(text)


@pytest.mark.parametrize("text", ["\u200a`1\n\xa0~~~\n\n\x85```$A:", "\xa0~~~A:\u200a\xa0\n\n~~~\n\n- "])
def test_tidying_twice_changes_nothing_more_beside_fences_behind_odd_spaces(text: str) -> None:
    assert tidy(tidy(text)) == tidy(text)


@settings(max_examples=300, deadline=None)
@given(st.lists(PIECES, max_size=25).map("".join))
def test_nothing_but_white_space_changes(text: str) -> None:
    assert "".join(tidy(text).split()) == "".join(text.split())


@pytest.mark.parametrize(
    "piece",
    [
        *(" ", "\t", "\n", "\r", "a  ", "a\t \n", "```\n", "$", "$ ", ": ", "(", "x("),
        *("' ", "- ", "> ", "1. ", "\n> ```", "\n- ```\n"),
    ],
)
def test_time_grows_with_the_length_only(piece: str) -> None:
    text = "a " + piece * 100_000 + "\n"
    begin = time.perf_counter()
    tidy(text)
    assert time.perf_counter() - begin < 5  # seconds; a test of every pair of places would take minutes


@pytest.mark.skipif(not FOLDER.is_dir(), reason="the public samples are not beside the repository")
def test_real_prose_is_tidied_once_and_keeps_its_words() -> None:
    rows = json.loads((FOLDER / "alpaca_en_demo.json").read_text(encoding="utf-8"))
    answers = [row["output"] for row in rows]
    changed = [answer for answer in answers if tidy(answer) != answer]
    assert changed
    assert all(tidy(tidy(answer)) == tidy(answer) and tidy(answer).split() == answer.split() for answer in changed)
    fenced = [(code, tidy(answer)) for answer in changed for code in answer.split("```")[1::2]]
    assert fenced
    assert all(code in tidied for code, tidied in fenced)
