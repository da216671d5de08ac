"""The strings on which tokenizers are compared, and the comparison."""

import unicodedata

import pytest

from tuneline.errors import ModelError
from tuneline.export.tokens import GGUF_SIDES, N_VARIED_TEXTS, check_same_ids, varied_texts

TEXTS = list(varied_texts(N_VARIED_TEXTS, ["<|im_start|>", "<|im_end|>"]))


def test_ten_thousand_strings_are_the_same_every_time() -> None:
    assert len(TEXTS) == 10_000
    assert list(varied_texts(N_VARIED_TEXTS, ["<|im_start|>", "<|im_end|>"])) == TEXTS
    assert len(set(TEXTS)) > 9_900


@pytest.mark.parametrize(
    "piece",
    [
        "   ",
        "\n\n",
        "\t",
        "\r\n",
        "👩‍👩‍👧",
        "🇩🇪",
        "<|im_end|>",
        "I'LL",
        "अ",
        "א",
        "한국어",
        "東京",
        "Привет",
        "1234567",
        "\u3000",
        "```",
        "\v",
        "\f",
        "\u0085",
        "\u1680",
        "\u2002",
        "\u200a",
        "\u2028",
        "\u2029",
        "\u202f",
        "\u205f",
    ],
)
def test_strings_hold_what_splits_tokenizers(piece: str) -> None:
    assert any(piece in text for text in TEXTS)


def test_strings_have_every_character_class_and_are_nfc() -> None:
    classes = {unicodedata.category(character)[0] for text in TEXTS for character in text}
    assert classes >= set("LMNPSZC")
    assert all(unicodedata.is_normalized("NFC", text) for text in TEXTS)


def test_difference_names_link_text_place_and_both_ids() -> None:
    with pytest.raises(ModelError, match=r"link: .*'ab' at token 1: \[2\] in the model's own, \[3\] in the GGUF"):
        check_same_ids(
            "link", GGUF_SIDES, ["", "ab"], lambda text: [1, 2][: len(text)], lambda text: [1, 3][: len(text)]
        )


def test_missing_last_token_is_a_difference() -> None:
    with pytest.raises(ModelError, match=r"at token 1: \[2\] .*, \[\] in the GGUF"):
        check_same_ids("link", GGUF_SIDES, ["a"], lambda _: [1, 2], lambda _: [1])


def test_same_ids_are_counted() -> None:
    assert (
        check_same_ids(
            "link", GGUF_SIDES, TEXTS[:7], lambda text: list(text.encode()), lambda text: list(text.encode())
        )
        == 7
    )
