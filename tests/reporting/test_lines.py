"""Tables for people: what stands in a row reaches no spreadsheet as a formula."""

import csv
from pathlib import Path

import pytest

from tests.reporting.stage_files import Files, dialogue
from tuneline.reporting.describing import write_report
from tuneline.reporting.lines import write_table


def cells(path: Path) -> list[list[str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.reader(file))


@pytest.mark.parametrize("start", ["=", "+", "-", "@", "\uff1d", "\uff0b", "\uff0d", "\uff20"])
def test_a_text_that_begins_like_a_formula_is_text_in_a_spreadsheet(start: str, tmp_path: Path) -> None:
    write_table(tmp_path / "t.csv", ("name", "n"), [(f"{start}cmd|' /C calc'!A0", 1)])
    assert cells(tmp_path / "t.csv") == [["name", "n"], [f"'{start}cmd|' /C calc'!A0", "1"]]


def test_numbers_and_other_texts_stay_as_they_are(tmp_path: Path) -> None:
    write_table(tmp_path / "t.csv", ("name", "n", "x"), [("a = b", -3, -0.5), ("", 0, 1.5)])
    assert cells(tmp_path / "t.csv")[1:] == [["a = b", "-3", "-0.5"], ["", "0", "1.5"]]


@pytest.mark.parametrize("sign", ["\r", "\n", "\t", "\u2028"])
def test_a_control_character_in_a_text_ends_no_row_and_hides_no_formula(sign: str, tmp_path: Path) -> None:
    write_table(tmp_path / "t.csv", ("name", "n"), [(f"{sign}=1+1", 1)])
    assert cells(tmp_path / "t.csv")[1:] == [[f"{sign}=1+1".encode("unicode_escape").decode(), "1"]]


def test_an_answer_that_is_a_formula_is_harmless_in_every_table(files: Files, tmp_path: Path) -> None:
    answer = '=HYPERLINK("x")'
    files.sides["train"] = [dialogue("sums", line, f"q {line}", answer) for line in range(4)]
    files.clusters = [{"kept": "+1:1", "copies": [{"place": "-2:1", "rule": "exact_duplicates", "jaccard": 1.0}]}]
    (tmp_path / "report").mkdir()
    write_report(files.described(tmp_path), tmp_path / "report")
    tables = {path.name: cells(path) for path in (tmp_path / "report").glob("*.csv")}
    assert f"'{answer}" in {row[2] for row in tables["labels.csv"]}
    assert tables["largest_clusters.csv"][1][1] == "'+1:1"
    found = [cell for table in tables.values() for row in table for cell in row]
    assert not [cell for cell in found if cell.startswith(("=", "+", "-", "@"))]
