"""Personal data and secrets: found as they are written, and nothing else touched."""

import json
import re
import runpy
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from time import process_time

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from tuneline.config.schema import PiiAction, PiiRuleConfig
from tuneline.data.finding import Changed
from tuneline.data.pii import PII_KINDS, excerpt, find, mask, pii_rule
from tuneline.data.records import Example, Json, Message, ToolCall, make_example, with_id
from tuneline.data.signs import NO_SIGN, signs

REPOSITORY = Path(__file__).resolve().parents[2]
REAL = REPOSITORY.parent / "shared" / "data"
planted = runpy.run_path(str(Path(__file__).with_name("planted_pii.py")))  # the file is no package's module


def settings(default: PiiAction = "redact", **actions: PiiAction) -> PiiRuleConfig:
    return PiiRuleConfig.model_validate({"enabled": True} | dict.fromkeys(PII_KINDS, default) | actions)


def called(arguments: dict[str, Json]) -> Example:
    turns = (Message("user", "do it"), Message("assistant", "", (ToolCall("pay", arguments),)))
    return make_example("own", 1, turns, None, {})


def ask(prompt: str, answer: str) -> Example:
    return make_example("own", 1, (Message("user", prompt), Message("assistant", answer)), None, {})


@pytest.mark.parametrize("n_claims", [10, 3_000, 8_000])
def test_a_web_token_that_an_excerpt_cuts_is_masked_however_long_it_is(n_claims: int) -> None:
    letters = "aB3dE5gH7jK9mN1pQ"
    token = f"eyJhbGciOiJIUzI1NiJ9.eyJ{(letters * n_claims)[:n_claims]}.{letters * 3}"
    assert excerpt(f"token {token} and what follows it", 40) == "token <SECRET> and what follows it"


# --- the planted corpus


def test_recall_and_precision_on_the_planted_corpus() -> None:
    hits: Counter[str] = Counter()
    misses: Counter[str] = Counter()
    false: Counter[str] = Counter()
    for sample in planted["planted_corpus"](seed=20, n_per_writing=20):
        found = set(find(sample.text))
        hits.update(kind for kind, _, _ in found & set(sample.planted))
        misses.update(kind for kind, _, _ in set(sample.planted) - found)
        false.update(kind for kind, _, _ in found - set(sample.planted))
    assert set(hits) == set(PII_KINDS)
    for kind in PII_KINDS:
        assert hits[kind] / (hits[kind] + misses[kind]) >= 0.99, (kind, misses)
        assert hits[kind] / (hits[kind] + false[kind]) >= 0.98, (kind, false)


def test_the_planted_corpus_is_the_same_for_the_same_seed_and_marks_what_it_planted() -> None:
    corpus = planted["planted_corpus"](seed=1, n_per_writing=2)
    assert corpus == planted["planted_corpus"](seed=1, n_per_writing=2)
    assert corpus != planted["planted_corpus"](seed=2, n_per_writing=2)
    emails = [s.text[begin:end] for s in corpus for kind, begin, end in s.planted if kind == "email"]
    assert all(re.search(r"@|[(\[]at[)\]]| AT ", email, re.IGNORECASE) for email in emails)
    assert not any("«" in sample.text or "@@" in sample.text for sample in corpus)


# --- writings, each with its text around it


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("write to anna@example.org.", "write to <EMAIL>."),
        ("<bob.miller+x@mail.example.co.uk>", "<<EMAIL>>"),
        ("WHERE email = 'eve_k@example.com'", "WHERE email = '<EMAIL>'"),
        ("请联系zhang@example.com谢谢", "请联系<EMAIL>谢谢"),
        ("mcushing7 (at) hotmail (dot) com.", "<EMAIL>."),
        ("a@b.org and c@d.org", "<EMAIL> and <EMAIL>"),
        ("call +1 202-555-0110 now", "call <PHONE> now"),
        ("(+1 202-555-0110)", "(<PHONE>)"),
        ("**+44 20 7946 0912** when it is done", "**<PHONE>** when it is done"),
        ("+491701234567", "<PHONE>"),
        ("+49 (170) 1234567 2 times", "<PHONE> 2 times"),
        ("+49 170 1234567 20 times", "<PHONE> 20 times"),
        ("+44 (0)20 7946 0958 or +33 6 12 34 56 78", "<PHONE> or <PHONE>"),
        ("0049 170 1234567", "<PHONE>"),
        ("(555) 123-4567", "<PHONE>"),
        ("call 555-123-4567.", "call <PHONE>."),
        ("tel:555.123.4567", "tel:<PHONE>"),
        ("name,555-123-4567,city", "name,<PHONE>,city"),
        ("1-800-555-0199", "<PHONE>"),
        ("030 12345678", "<PHONE>"),
        ("0171/1234567", "<PHONE>"),
        ("(020 7946 0958)", "(<PHONE>)"),
        ("06 12 34 56 78", "<PHONE>"),
        ('{"phone": "2125550187"}', '{"phone": "<PHONE>"}'),
        ("My mobile number is 212 555 0187.", "My mobile number is <PHONE>."),
        ("手机号13800138000", "手机号<PHONE>"),
        ("+1 202-555-0110+1 202-555-0110", "<PHONE><PHONE>"),
        ("555-123-4567\n555-123-4568\n555-123-4569", "<PHONE>\n<PHONE>\n<PHONE>"),
        ("http://81.2.69.142:8080/x", "http://<IP>:8080/x"),
        ("ping 2a00:1450:4001:81b::200e", "ping <IP>"),
        ("the server at 8.8.8.8", "the server at <IP>"),
        ("ssh root@81.2.69.142 -p 22", "ssh root@<IP> -p 22"),
        ("card 4111 1111 1111 1111, exp 10/27", "card <CARD>, exp 10/27"),
        ("5500-0000-0000-0004", "<CARD>"),
        ("4111 1111 1111 1111 5500 0000 0000 0004", "<CARD> <CARD>"),
        ("4000000000000002 4000000000000002", "<CARD> <CARD>"),
        ("4000000000000002,4000000000000002", "<CARD>,<CARD>"),
        ("anna@web.com.py", "<EMAIL>"),
        ("call me at 98765 43210", "call me at <PHONE>"),
        ("text 2125550187", "text <PHONE>"),
        ("reach 0301234567", "reach <PHONE>"),
        ("password = hunter2Zx9!", "password = <SECRET>"),
        ("password=hunter2Zx9!&state=1", "password=<SECRET>&state=1"),
        ("My password is hunter2Zx9! Keep it.", "My password is <SECRET>! Keep it."),
        ("378282246310005", "<CARD>"),
        ("DE89 3704 0044 0532 0130 00 and more", "<IBAN> and more"),
        ("to GB82WEST12345698765432.", "to <IBAN>."),
        ("my SSN is 536-22-1234", "my SSN is <NATIONAL_ID>"),
        ("SSN: 536221234", "SSN: <NATIONAL_ID>"),
        ("NINO AB 12 34 56 C", "NINO <NATIONAL_ID>"),
        ("DNI 12345678Z", "DNI <NATIONAL_ID>"),
        ("RSSMRA85M01H501Q", "<NATIONAL_ID>"),
        ("CPF 529.982.247-25", "CPF <NATIONAL_ID>"),
        ("11010519491231002X", "<NATIONAL_ID>"),
        ("PESEL 44051401359", "PESEL <NATIONAL_ID>"),
        ("BSN 111222333", "BSN <NATIONAL_ID>"),
        ("DB_PASSWORD=kX7vq2Tz", "DB_PASSWORD=<SECRET>"),
        ('{"password": "a9B7$#fG3&Z1"}', '{"password": "<SECRET>"}'),
        ("Here is your new password: a9B7$#fG3&Z1.", "Here is your new password: <SECRET>."),
        ("psql postgresql://eva:kX7vq2Tz@db.host.net/x", "psql postgresql://<SECRET>@db.host.net/x"),
        ("x/#access_token=sdLfkj452Qz81kWb2&state=1", "x/#access_token=<SECRET>&state=1"),
        ("WANDB_API_KEY=9f86d081884c7d659a2feaa0c55ad015a3bf4f1b", "WANDB_API_KEY=<SECRET>"),
    ],
)
def test_what_is_found_is_replaced_and_nothing_around_it(text: str, expected: str) -> None:
    assert mask(text) == expected


@pytest.mark.parametrize(
    ("text", "n_phones"),
    [
        ("555-123-4567 555-123-4568", 2),
        ("020 7946 0958 020 7946 0959", 2),
        ("06 12 34 56 78 06 12 34 56 79", 2),
        ("0171 1234567 0171 1234568", 2),
        ("+1 202-555-0110 202-555-0111", 2),
        ("+1 202-555-0110 +1 202-555-0111 +1 202-555-0112", 3),
        ("+44 20 7946 0912 020 7946 0913", 2),
        ("+49 30 12345678 030 87654321", 2),
        ("(555) 123-4567 (555) 123-4568", 2),
    ],
)
def test_numbers_with_only_a_space_between_them_all_go(text: str, n_phones: int) -> None:
    assert mask(text) == " ".join(["<PHONE>"] * n_phones)


@pytest.mark.parametrize(
    "text",
    [
        "SELECT name FROM t WHERE id = 1234567890 AND price BETWEEN 1000000000 AND 2000000000;",
        "INSERT INTO t VALUES (1, 2024, 987654321, 3.14159265358979, -1234567890.5);",
        "WHERE day >= '2024-01-15' AND day < '2024-02-15 10:30:45'",
        "WHERE email LIKE '%@gmail.com' OR email LIKE '%smith@gmail.com'",
        "01.02.2024 10, 01-02-2024, 2024-01-15T10:30:45+0100, 2010-2020 2021-2022",
        "1990 1991 1992 1993, 10 20 30 40 50, 1 000 000 000, 1.000.000.000, 1,000,000,000",
        "ISBN 978-3-16-148410-0, IP 192.168.100.200, card 4111 1111 1111 1112",
        "550e8400-e29b-41d4-a716-446655440000, ORD-555-123-4567, v2.10.3456, A/C No. 00632000001783",
        "01001000 01100101, 0101 1100 11",
        "472547338\n+960397912423686\n-------",
        "5 +1234567890 = 1234567895, x+1234567890, 1234567890-987654321",
        "200 - 42 - 18 - 14 = <<200-42-18-14=126>>126, $76000-$22800",
        "c = a @ b.transpose(); @app.route('/x'); pip install x@latest; user@localhost; icon@2x.png",
        "git clone git@github.com:org/repo.git; ftp://username:password@ftp.example.com",
        "doi 10.1111/1365-2664.12646, phone 12345678, room 012, MA 01504-3977, Boston, MA\n# 02110-1301",
        "version 1.2.3.4, v10.20.30.40, pip install x==81.2.69.14, 1.2.3.4 Scope, OID 1.3.6.1.4.1",
        "127.0.0.1, 10.1.2.3, 172.16.0.9, 169.254.1.1, 203.0.113.7, 198.51.100.1, 224.0.0.1, 255.255.255.0",
        "::1, fe80::1, 2001:db8::1, std::vector, a::before, dead::beef, aa:bb:cc:dd:ee:ff, 12:30:45",
        "000-12-3456, 666-12-3456, 900-12-3456, 123-00-4567, 123-45-0000",
        "DE89 3704 0044 0532 0130 01, 12345678A, AB 12 34 56 E, 529.982.247-26, 110105194912310021",
        "sk-xxxxxxxxxxxxxxxxxxxxxxxx, sk-..., <your key>, AKIAIOSFODNN7EXAMPLE, password=changeme1!",
        "password = getpass2(user1), password: str = None, pwd = os.environ['DB_PASSWORD1']",
        "token = tokenizer.encode(x1), self.token = token_2, max_tokens=4096",
        "postgres://user:password@localhost/db, https://${USER}:${TOKEN1}@host, Authorization: Bearer <token>",
        "class='sk-folding-cube', sk-ssh-ed25519-cert-v01@, ObjectIdentifier('2.5.29.14')",
        "-----BEGIN PRIVATE KEY-----\n...\n-----END PRIVATE KEY-----",
        "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855, #ff8800, 52.520008, 13.404954",
        "[12/03/21, 10:15:33] Anna: see you at 10:15",
        "4111 1111 1111 1111 5500 0000 0000 0005",
        "a@b.shape, matrix@vector.reshape, q@k.mT, run@train.py",
        "text 12345 67890, contact 2023 2024 2025 x, phone 2023 2024 2025 x",
    ],
)
def test_numbers_dates_ids_code_and_placeholders_are_left_alone(text: str) -> None:
    assert find(text) == []


def test_a_private_key_goes_whole_also_when_it_is_cut_off() -> None:
    body = "\n".join(["MIIEvQIBADANBgkqhkiG9w0BAQEFAASCBKcwggSjAgEAAoIBAQC7VJTUt9Us8cKj"] * 3)
    whole = f"-----BEGIN RSA PRIVATE KEY-----\n{body}\n-----END RSA PRIVATE KEY-----"
    assert mask(f"key:\n{whole}\nbye") == "key:\n<SECRET>\nbye"
    assert mask(f"-----BEGIN PRIVATE KEY-----\n{body}") == "<SECRET>"
    assert mask(f"{whole}\n{whole}") == "<SECRET>\n<SECRET>"


# --- the rule


def test_redaction_reaches_every_text_counts_by_kind_and_changes_the_id() -> None:
    calls = (ToolCall("send", {"to": ["anna@example.org"], "n": 3}),)
    turns = (Message("user", "mail anna@example.org or bob@example.org"), Message("assistant", "", calls))
    row = make_example("own", 1, turns, None, {"owner": "a@b.org"})
    (found,) = pii_rule(settings())([row])
    assert isinstance(found, Changed)
    assert found.counts == {"email": 3}
    assert found.example.messages[0].content == "mail <EMAIL> or <EMAIL>"
    assert found.example.messages[1].tool_calls == (ToolCall("send", {"to": ["<EMAIL>"], "n": 3}),)
    assert found.example.meta == {"owner": "a@b.org"}  # the task needs it
    assert found.example == with_id(found.example)
    assert found.example.id != row.id


def test_a_kind_to_drop_wins_over_one_to_redact_and_the_reason_shows_no_value() -> None:
    row = ask("my card is 4111 1111 1111 1111 and 5500-0000-0000-0004", "thanks, anna@example.org")
    assert pii_rule(settings(card="drop"))([row]) == ["holds 2 card"]
    assert pii_rule(settings("drop"))([row]) == ["holds 1 email, 2 card"]


def test_a_kept_kind_is_not_looked_for() -> None:
    row = ask("my card is 4111 1111 1111 1111", "thanks, anna@example.org")
    (found,) = pii_rule(settings(card="keep"))([row])
    assert isinstance(found, Changed)
    assert found.counts == {"email": 1}
    assert found.example.messages[0].content == row.messages[0].content
    assert pii_rule(settings("keep"))([row]) == [None]


def test_rows_keep_their_order_and_clean_ones_have_no_finding() -> None:
    findings = pii_rule(settings())([ask("a", "b"), ask("a@b.org", "b"), ask("1, 2, 3", "c")])
    assert [finding is None for finding in findings] == [True, False, True]


@given(st.text(max_size=300))
def test_any_text_has_ordered_spans_apart_from_each_other(text: str) -> None:
    last = 0
    for kind, begin, end in find(text):
        assert kind in PII_KINDS
        assert last <= begin < end <= len(text)
        last = end


def test_a_masked_text_has_nothing_left_to_mask() -> None:
    for sample in planted["planted_corpus"](seed=4, n_per_writing=2):
        masked = mask(sample.text)
        assert mask(masked) == masked


def test_lone_surrogates_are_text_like_any_other() -> None:
    assert mask("\ud800 anna@example.org \udfff") == "\ud800 <EMAIL> \udfff"


def test_numbers_and_keys_of_tool_calls_are_redacted() -> None:
    arguments: dict[str, Json] = {"card": 4111111111111111, "phone": 2125550187, "n": 3, "ok": True, "x": [1.5]}
    row = called(arguments | {"a@b.org": "first", "c@d.org": "second"})
    (found,) = pii_rule(settings())([row])
    assert isinstance(found, Changed)
    assert found.counts == {"card": 1, "phone": 1, "email": 2}
    assert found.example.messages[-1].tool_calls[0].arguments == {
        **{"card": "<CARD>", "phone": "<PHONE>", "n": 3, "ok": True, "x": [1.5]},
        **{"<EMAIL>": "first", "<EMAIL>_": "second"},
    }
    assert found.example == with_id(found.example)


def test_a_row_with_a_number_to_drop_in_a_tool_call_goes() -> None:
    assert pii_rule(settings(card="drop"))([called({"card": 4111111111111111})]) == ["holds 1 card"]


def test_descriptions_of_tools_are_redacted() -> None:
    tool: Json = {"name": "mail", "description": "mails anna@example.org", "limit": 3}
    row = with_id(replace(ask("hello", "hi"), tools=(tool,)))
    (found,) = pii_rule(settings())([row])
    assert isinstance(found, Changed)
    assert found.counts == {"email": 1}
    assert found.example.tools == ({"name": "mail", "description": "mails <EMAIL>", "limit": 3},)
    assert pii_rule(settings("drop"))([row]) == ["holds 1 email"]


def test_the_rule_and_mask_agree_on_what_a_placeholder_lays_bare() -> None:
    text = "536-22-1234 4111111111111111"
    (found,) = pii_rule(settings())([ask(text, "ok")])
    assert isinstance(found, Changed)
    assert found.example.messages[0].content == mask(text) == "<NATIONAL_ID> <CARD>"


# --- time


HOSTILE = {
    "digits": "1",
    "at signs": "a@",
    "groups": "12 ",
    "single digits": "1 ",
    "dashes": "1-",
    "dots": "1.",
    "labels": "b.",
    "numbers": "+1 202-555-0110 ",
    "glued numbers": "+1 202-555-0110",
    "trunk codes": "0049 ",
    "colons": "2001:",
    "accounts": "DE89 3704 ",
    "cards": "4111 1111 1111 1111 ",
    "cards in a row": "4111111111111111 ",
    "IP addresses in a row": "81.2.69.142/",
    "short IP addresses": "1.1.1.1 ",
    "labelled numbers": "2125550187: ",
    "signs": "=",
    "assignments": 'password="a1',
    "key begins": "-----BEGIN PRIVATE KEY-----\n",
    "web tokens": "eyJaaaaaaaaaa.",
    "prefixes": "sk-",
    "addresses": "://a:1",
    "hidden addresses": "a (at) ",
    "personal numbers": "SSN 123456789 ",
}


@pytest.mark.parametrize("unit", HOSTILE.values(), ids=HOSTILE.keys())
def test_hostile_text_takes_linear_time(unit: str) -> None:
    text = (unit * 100_000)[:100_000]
    start = process_time()
    (finding,) = pii_rule(settings())([ask("card phone ip 8.8.8.8 " + text, "+" + text + "x@")])
    assert not isinstance(finding, str)
    # quadratic time would be minutes; linear is below a second on a slow machine
    assert process_time() - start < 10


def test_all_cards_of_a_long_row_go() -> None:
    row = ask("card " + "4111111111111111 " * 1200, "ok")
    start = process_time()
    (found,) = pii_rule(settings())([row])
    assert process_time() - start < 2
    assert isinstance(found, Changed)
    assert found.counts == {"card": 1200}
    assert found.example.messages[0].content == "card " + "<CARD> " * 1200


def test_prose_shows_no_sign_and_every_planted_thing_does() -> None:
    prose = "In 1998 the club had 40 members; by 2003, after the move (see page 12), there were 1,250 - or so they say."
    assert not any(signs(prose))
    for sample in planted["planted_corpus"](seed=5, n_per_writing=5):
        assert any(signs(sample.text)) or not sample.planted


_PIECES = [
    *("KIA", "SIA", "BIA", "ACCA", "PRIVATE", "KEY", "AIS", "AIzaSy", "DOT", " DOT ", " AT ", "AC", "SK", "/T", "/B"),
    *("a", "B", ".", ". ", "é", "-", "_", "5", "@", "(at)", " ", "\n", "abcdefghijklmnop"),
]


@given(st.lists(st.sampled_from(_PIECES), max_size=8).map("".join))
def test_a_text_shows_the_same_signs_beside_prose_that_is_looked_at_more_closely(text: str) -> None:
    assert signs("(") == NO_SIGN
    assert signs(text) == signs(f"( {text} ")  # with a bracket a text is no plain prose


# --- real data


def _texts(value: object) -> Iterator[str]:
    match value:
        case str():
            yield value
        case list():
            for item in value:
                yield from _texts(item)
        case dict():
            for item in value.values():
                yield from _texts(item)


def _real_texts(name: str) -> list[str]:
    path = REAL / name
    if not path.exists():
        pytest.skip(f"{path} is not here")
    content = path.read_text(encoding="utf-8")
    return list(
        _texts([json.loads(line) for line in content.splitlines()] if name.endswith("l") else json.loads(content))
    )


# Every one of these was looked at in its text, and is what it is said to be; more would be damage.
@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("alpaca_en_demo.json", {"email": 4, "phone": 1, "secret": 1}),
        ("alpaca_zh_demo.json", {}),
        ("dpo_en_demo.json", {"email": 3}),
        ("glaive_toolcall_en_demo.json", {"email": 25, "secret": 14}),
        ("gsm8k_test.jsonl", {}),
        ("kto_en_demo.json", {}),
        ("c4_demo.jsonl", {"email": 8, "phone": 24}),
    ],
)
def test_real_data_loses_what_is_personal_and_no_sum_or_code(name: str, expected: dict[str, int]) -> None:
    assert Counter(kind for text in _real_texts(name) for kind, _, _ in find(text)) == expected


def test_the_statements_of_the_embedded_pool_keep_everything_but_addresses_and_numbers() -> None:
    with (REPOSITORY / "data" / "raw" / "text_to_sql" / "pool.jsonl").open(encoding="utf-8") as file:
        texts = [text for line in file for text in _texts(json.loads(line))]
    assert {kind for text in texts for kind, _, _ in find(text)} <= {"email", "phone"}
