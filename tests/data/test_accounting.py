"""Counts of rows, and what a failed run says about the first one it lost."""

from pathlib import Path

import pytest

from tuneline.data.accounting import Tally
from tuneline.data.records import Rejected, make_example
from tuneline.errors import DataError

EMAIL = "ann.smith@example-mail.com"


def refused(*rows: Rejected) -> str:
    tally = Tally()
    for row in rows:
        tally.reject(row)
    with pytest.raises(DataError) as raised:
        tally.check(0.5, "data.max_rejected_fraction", Path("rejected.jsonl"))
    return str(raised.value)


def test_the_first_rejected_row_is_named_with_its_file() -> None:
    rows = [Rejected("pool", 1, "ingest", "format", "why", {}, file) for file in ("b.jsonl", "a.jsonl")]
    assert "first pool/b.jsonl:1 (why);" in refused(*rows)
    assert "first pool:1 (why);" in refused(Rejected("pool", 1, "ingest", "format", "why", {}))


def test_a_rejected_row_has_the_place_of_its_example() -> None:
    example = make_example("pool", 3, (), "text", {})
    assert Rejected("pool", 3, "clean", "x", "y", None).place == example.place == "pool:3"
    assert Rejected("pool", 3, "clean", "x", "y", None, "a.jsonl").place == "pool/a.jsonl:3"


@pytest.mark.parametrize("n_before", [0, 180, 195])
def test_the_message_holds_no_personal_data_of_the_row_not_even_the_half_of_it(n_before: int) -> None:
    reason = f"role '{'x ' * (n_before // 2)}{EMAIL}' is unknown"
    message = refused(Rejected("pool", 1, "ingest", "conversation", reason, {}))
    assert "role 'x" in message or n_before == 0
    assert not {"ann", "smith"} & set(message.replace(".", " ").replace("'", " ").split())
