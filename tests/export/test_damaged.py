"""A GGUF that was damaged after it was made: what notices, and says so in one line."""

import math
import shutil
import struct
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.export.conftest import PEFT_WARNING
from tuneline.config.schema import BudgetConfig, GgufType
from tuneline.data.records import Example
from tuneline.errors import BudgetError, ModelError

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings(PEFT_WARNING)]

N_CTX = 256
# random weights leave near ties at the top
BUDGET = BudgetConfig(kl_mean_nats=1e-3, top1_agreement=0.9, execution_accuracy_drop=0.5)
NAN = {"F32": struct.pack("<f", math.nan), "F16": struct.pack("<e", math.nan)}
BLOCK_BYTES = {"F32": 128, "F16": 64, "Q8_0": 34}  # of 32 weights


def start_of_data(gguf: Path) -> int:
    from tuneline.export.header import read_header

    tensors = read_header(gguf).tensors
    last = max(tensors, key=lambda tensor: tensor.offset)
    n_bytes = math.prod(last.shape) // 32 * BLOCK_BYTES[last.type]
    return gguf.stat().st_size - -(-n_bytes // 32) * 32 - last.offset


def place_of(gguf: Path, name: str) -> int:
    from tuneline.export.header import read_header

    (tensor,) = (tensor for tensor in read_header(gguf).tensors if tensor.name == name)
    return start_of_data(gguf) + tensor.offset


def write_at(gguf: Path, place: int, data: bytes) -> None:
    with gguf.open("r+b") as file:
        file.seek(place)
        file.write(data)


def flip(gguf: Path, place: int, bit: int) -> None:
    write_at(gguf, place, bytes([gguf.read_bytes()[place] ^ 1 << bit]))


def after(gguf: Path, text: bytes) -> int:
    """Where `text` ends in the file, which holds it once at least."""
    place = gguf.read_bytes().find(text)
    assert place >= 0
    return place + len(text)


@pytest.fixture
def copy(f16: Path, tmp_path: Path) -> Path:
    return Path(shutil.copy(f16, tmp_path / "f16.gguf"))


def verified(merged: Path, gguf: Path, examples: list[Example], gguf_type: GgufType = "f16") -> None:
    """As the stage does it: measured, then held to a budget."""
    from tuneline.export.budget import check_budget
    from tuneline.export.verify import Link, measure

    metrics = measure(Link(merged, gguf, gguf_type), examples, examples[:2], BUDGET, N_CTX, 4).metrics
    check_budget(gguf_type, metrics | {"exact_match_drop": 0.0, "ended_drop": 0.0}, BUDGET)


@pytest.mark.parametrize("name", ["output_norm.weight", "blk.1.ffn_down.weight"])
def test_nan_in_a_16_bit_file_is_named_by_its_tensor(
    name: str, copy: Path, merged: Path, examples: list[Example]
) -> None:
    stored = "F32" if "norm" in name else "F16"
    write_at(copy, place_of(copy, name), NAN[stored])
    with pytest.raises(ModelError, match=rf"f16\.gguf: .*{name}.* NaN or infinity.*export\.outtype=bf16") as caught:
        verified(merged, copy, examples)
    assert "\n" not in str(caught.value)


def test_nan_that_no_held_out_row_reads_is_found_in_the_scale_of_a_block(
    f16: Path, merged: Path, tmp_path: Path, examples: list[Example]
) -> None:
    from tuneline.export.quantize import quantize

    q8_0 = tmp_path / "q8_0.gguf"
    quantize(f16, q8_0, "q8_0")
    verified(merged, q8_0, examples, "q8_0")
    write_at(q8_0, place_of(q8_0, "token_embd.weight") + 500 * 256 // 32 * BLOCK_BYTES["Q8_0"], NAN["F16"])
    with pytest.raises(ModelError, match=r"q8_0\.gguf: .*token_embd\.weight.* changed after it was made"):
        verified(merged, q8_0, examples, "q8_0")


def exponent_of_a_weight(gguf: Path) -> tuple[int, int]:
    return place_of(gguf, "blk.0.attn_v.weight") + 1, 6


def letter_of_the_template(gguf: Path) -> tuple[int, int]:
    return after(gguf, b"{%- for message in message"), 0


def letter_of_a_token(gguf: Path) -> tuple[int, int]:
    """Of one that the varied strings contain; of others only the hash tells."""
    return after(gguf, struct.pack("<Q", 6) + b"SELECT") - 1, 0


def base_of_the_rotation(gguf: Path) -> tuple[int, int]:
    return after(gguf, b"llama.rope.freq_base") + 4 + 3, 0


FLIPS: dict[str, tuple[Callable[[Path], tuple[int, int]], type[Exception], str]] = {
    "a weight's exponent": (exponent_of_a_weight, BudgetError, r"kl_mean_nats is .*changed after it was made"),
    "the chat template": (letter_of_the_template, ModelError, "holds another chat template .*convert it again"),
    "a token": (letter_of_a_token, ModelError, "the tokenizers disagree on"),
    "a hyperparameter": (base_of_the_rotation, BudgetError, r"kl_mean_nats is .*changed after it was made"),
}


@pytest.mark.parametrize(("where", "error", "message"), FLIPS.values(), ids=FLIPS)
def test_one_flipped_bit_is_caught_and_its_cause_named(
    where: Callable[[Path], tuple[int, int]],
    error: type[Exception],
    message: str,
    copy: Path,
    merged: Path,
    examples: list[Example],
) -> None:
    verified(merged, copy, examples)
    flip(copy, *where(copy))
    with pytest.raises(error, match=message) as caught:
        verified(merged, copy, examples)
    assert "\n" not in str(caught.value)


def test_a_bit_that_no_figure_shows_changes_the_hash_that_is_shipped(
    copy: Path, f16: Path, merged: Path, examples: list[Example]
) -> None:
    """The lowest of a weight: DVC and `tuneline verify-model` compare hashes, so it does not pass them."""
    from tuneline.serving.integrity import file_digests

    flip(copy, place_of(copy, "blk.0.attn_v.weight"), 0)
    verified(merged, copy, examples)
    assert file_digests(copy) != file_digests(f16)
