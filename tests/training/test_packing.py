"""Packing and padding: neither changes a loss, and no document sees another."""

import contextlib
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from tuneline.errors import ModelError

pytestmark = pytest.mark.slow


def row(name: str, ids: list[int], n_prompt: int = 2) -> Any:
    from tuneline.training.tokens import IGNORED, TokenRow

    return TokenRow(name, ids, [IGNORED] * n_prompt + ids[n_prompt:])


def rows() -> list[Any]:
    lengths = (9, 4, 12, 7, 5)
    return [row(str(i), [(37 * i + 11 * t) % 300 + 4 for t in range(n)]) for i, n in enumerate(lengths)]


def model(tiny: ModuleType, folder: Path, architecture: str, attention: str = "sdpa") -> Any:
    from tuneline.model.loading import load_merged

    tiny.save_model(folder, architecture)
    return load_merged(folder, tiny.hardware(attn_implementation=attention))


def loss_sum(model: Any, batch: Any) -> float:
    # use_cache: with a cache, Transformers does not look for packed documents
    return float(model(**batch, num_items_in_batch=1, use_cache=False).loss.detach())


def test_best_fit_decreasing_by_hand() -> None:
    from tuneline.training.packing import pack_best_fit

    # 5 opens a pack (2 left), 4 opens one (3 left), 3 fits the second exactly, 2 the first
    assert pack_best_fit([5, 3, 4, 2], 7) == [[0, 3], [1, 2]]
    # 1 goes where least is left: beside 6, not beside 4
    assert pack_best_fit([4, 6, 1], 7) == [[0], [1, 2]]


def test_packing_keeps_every_row_once_within_the_capacity() -> None:
    from hypothesis import given
    from hypothesis import strategies as st

    from tuneline.training.packing import pack_best_fit

    @given(st.lists(st.integers(1, 20)))
    def holds(lengths: list[int]) -> None:
        packs = pack_best_fit(lengths, 20)
        assert sorted(index for pack in packs for index in pack) == list(range(len(lengths)))
        assert all(sum(lengths[index] for index in pack) <= 20 for pack in packs)
        half_empty = [pack for pack in packs if sum(lengths[index] for index in pack) <= 10]
        assert len(half_empty) <= 1, "two of them would have gone together"

    holds()


def test_a_packed_row_restarts_positions_and_hides_each_first_token_as_target() -> None:
    from tuneline.training.packing import collate
    from tuneline.training.tokens import IGNORED

    batch: Any = collate(
        [[row("a", [5, 6, 7]), row("b", [8, 9, 10, 11])], [row("c", [12, 13, 14, 15, 16])]], "packed", 0
    )
    assert batch["input_ids"].tolist() == [[5, 6, 7, 8, 9, 10, 11], [12, 13, 14, 15, 16, 0, 0]]
    assert batch["position_ids"].tolist() == [[0, 1, 2, 0, 1, 2, 3], [0, 1, 2, 3, 4, 0, 1]]
    assert batch["labels"].tolist() == [
        [IGNORED, IGNORED, 7, IGNORED, IGNORED, 10, 11],
        [IGNORED, IGNORED, 14, 15, 16, IGNORED, IGNORED],
    ]


def test_a_flattened_batch_tells_the_flash_kernels_where_documents_end() -> None:
    from tuneline.training.packing import collate

    batch: Any = collate([[row("a", [5, 6, 7]), row("b", [8, 9])], [row("c", [1, 2, 3, 4])]], "flattened", 0)
    assert batch["position_ids"].tolist() == [[0, 1, 2, 0, 1, 0, 1, 2, 3]]
    assert batch["cu_seq_lens_q"].tolist() == [0, 3, 5, 9]
    assert batch["max_length_k"] == 4


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
@pytest.mark.parametrize("architecture", ["llama", "qwen2", "sliding"])
def test_the_loss_is_the_same_one_by_one_padded_packed_and_flattened(
    tiny: ModuleType, tmp_path: Path, architecture: str, attention: str
) -> None:
    from tuneline.training.packing import collate, sequences

    weights = model(tiny, tmp_path, architecture, attention)
    alone = sum(loss_sum(weights, collate([[one]], "padded", 0)) for one in rows())
    padded = loss_sum(weights, collate(sequences(rows(), False, 16), "padded", 0))
    packed = loss_sum(weights, collate(sequences(rows(), True, 16), "packed", 0))
    flattened = loss_sum(weights, collate(sequences(rows(), True, 16), "flattened", 0))
    assert [padded, packed, flattened] == pytest.approx([alone] * 3, rel=1e-5)
    assert len(sequences(rows(), True, 16)) == 3, "37 tokens in rows of 16"


@pytest.mark.parametrize("layout", ["packed", "flattened"])
def test_changing_one_document_leaves_the_logits_of_the_next_bit_for_bit(
    tiny: ModuleType, tmp_path: Path, layout: Any
) -> None:
    import torch

    from tuneline.training.packing import collate

    weights = model(tiny, tmp_path, "llama")
    second = row("b", [30, 31, 32, 33, 34])

    def logits(first: list[int]) -> torch.Tensor:
        inputs = collate([[row("a", first), second]], layout, 0)
        result: torch.Tensor = weights(**{**inputs, "labels": None}, use_cache=False).logits[0, 6:11]
        return result

    assert torch.equal(logits([5, 6, 7, 8, 9, 10]), logits([90, 80, 70, 60, 50, 40]))


def test_what_stands_in_the_padding_changes_no_loss(tiny: ModuleType, tmp_path: Path) -> None:
    from tuneline.training.packing import collate

    weights = model(tiny, tmp_path, "llama")
    losses = [loss_sum(weights, collate([[one] for one in rows()], "padded", pad)) for pad in (0, 200)]
    assert losses[0] == losses[1]


@pytest.mark.parametrize("layout", ["packed", "flattened"])
def test_a_model_whose_attention_ignores_the_mask_is_refused(tiny: ModuleType, tmp_path: Path, layout: Any) -> None:
    from transformers import AttentionInterface
    from transformers.integrations.sdpa_attention import sdpa_attention_forward

    from tuneline.training.isolation import check_isolation

    def leaking(module: Any, query: Any, key: Any, value: Any, attention_mask: Any, **kwargs: Any) -> Any:
        return sdpa_attention_forward(module, query, key, value, None, **kwargs)

    check_isolation(model(tiny, tmp_path, "llama"), layout, 320, tiny.hardware())
    AttentionInterface.register("leaking", leaking)
    leaky = model(tiny, tmp_path, "llama")
    leaky.config._attn_implementation = "leaking"
    with pytest.raises(ModelError, match="packing: true, but in LlamaForCausalLM a document sees the one before"):
        check_isolation(leaky, layout, 320, tiny.hardware())
    check_isolation(leaky, "padded", 320, tiny.hardware())


def test_weights_in_fp32_are_checked_in_the_precision_of_training(tiny: ModuleType, tmp_path: Path) -> None:
    """The flash kernels take 16-bit numbers only, while full fine-tuning holds its weights in 32: Transformers casts
    for them, to the type of autocast."""
    import torch
    from transformers import AttentionInterface
    from transformers.integrations.sdpa_attention import sdpa_attention_forward

    from tuneline.training.isolation import check_isolation

    computed_in = set()

    def spying(module: Any, query: Any, *inputs: Any, **kwargs: Any) -> Any:
        computed_in.add(torch.get_autocast_dtype("cpu") if torch.is_autocast_enabled("cpu") else query.dtype)
        return sdpa_attention_forward(module, query, *inputs, **kwargs)

    AttentionInterface.register("spying", spying)
    for precision, dtype in (("fp32", torch.float32), ("bf16", torch.bfloat16)):
        weights = model(tiny, tmp_path / precision, "llama")
        weights.config._attn_implementation = "spying"
        with contextlib.suppress(ModelError):  # a kernel unknown to Transformers gets no block mask
            check_isolation(weights, "packed", 320, tiny.hardware(precision=precision))
        assert computed_in == {dtype}
        computed_in.clear()
