"""The links from the merged model to each GGUF: close when all is well, caught when something is not."""

import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tests.export.conftest import PEFT_WARNING, conversation
from tuneline.config.schema import BudgetConfig, GgufType
from tuneline.data.records import Example
from tuneline.errors import BudgetError, ModelError

if TYPE_CHECKING:
    from collections.abc import Callable

    from transformers import PreTrainedTokenizerBase

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings(PEFT_WARNING)]

N_CTX = 256
TIGHT = BudgetConfig(kl_mean_nats=1e-4, top1_agreement=0.99, execution_accuracy_drop=0.01)


def measured(merged: Path, gguf: Path, examples: list[Example], gguf_type: GgufType = "f16") -> dict[str, float | int]:
    from tuneline.export.verify import Link, measure

    return measure(Link(merged, gguf, gguf_type), examples, examples, TIGHT, N_CTX, 8).metrics


@pytest.fixture(scope="module")
def q8_0(f16: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    from tuneline.export.quantize import quantize

    out = tmp_path_factory.mktemp("quants") / "q8_0.gguf"
    quantize(f16, out, "q8_0")
    return out


def test_f16_predicts_what_the_merged_model_predicts(merged: Path, f16: Path, examples: list[Example]) -> None:
    metrics = measured(merged, f16, examples)
    assert metrics["kl_mean_nats"] < 1e-5
    assert metrics["top1_agreement"] > 0.99
    assert metrics["perplexity_ratio"] == pytest.approx(1, abs=1e-3)
    assert metrics["n_compared_examples"] == len(examples)
    # 16 bits, but norms and metadata: a little more
    assert 16 <= metrics["bits_per_weight"] < 16.2


def test_all_that_is_scored_decides_where_the_rows_compared_are_outside_the_budget(
    merged: Path, f16: Path, examples: list[Example]
) -> None:
    from tuneline.export.verify import Link, measure

    def compared(rows: list[Example], kl_mean_nats: float) -> dict[str, float | int]:
        budget = TIGHT.model_copy(update={"kl_mean_nats": kl_mean_nats})
        return measure(Link(merged, f16, "f16"), rows, examples, budget, N_CTX, 1).metrics

    def divergence(rows: list[Example]) -> float:
        return compared(rows, 1.0)["kl_mean_nats"]

    whole = divergence(examples)
    farthest = max(([example] for example in examples), key=divergence)
    alone = divergence(farthest)
    assert whole < alone
    for budget, rows, expected in (
        (alone, farthest, alone),
        ((whole + alone) / 2, examples, whole),
        (0.0, examples, whole),
    ):
        found = compared(farthest, budget)
        assert found["n_compared_examples"] == len(rows)
        assert found["kl_mean_nats"] == pytest.approx(expected)


def test_more_bits_are_closer(merged: Path, f16: Path, q8_0: Path, examples: list[Example], tmp_path: Path) -> None:
    from tuneline.export.quantize import quantize

    quantize(f16, tmp_path / "q4.gguf", "q4_k_m")
    all_metrics = [
        measured(merged, f16, examples),
        measured(merged, q8_0, examples, "q8_0"),
        measured(merged, tmp_path / "q4.gguf", examples, "q4_k_m"),
    ]
    divergences = [metrics["kl_mean_nats"] for metrics in all_metrics]
    assert divergences == sorted(divergences)
    assert divergences[0] < divergences[1] / 10
    assert [m["size_mib"] for m in all_metrics] == sorted((m["size_mib"] for m in all_metrics), reverse=True)


def edited(gguf: Path, out: Path, edit: "Callable[[dict[str, Any]], None]") -> Path:
    """A copy whose tensors, by name, `edit` has changed in place: with llama.cpp's own reader."""
    import shutil
    import sys

    from tuneline.export.llama_cpp import llama_cpp_folder

    sys.path.insert(0, str(llama_cpp_folder() / "gguf-py"))
    from gguf import GGUFReader  # type: ignore[import-not-found]  # llama.cpp's Python code, unpacked by setup

    sys.path.pop(0)
    shutil.copy(gguf, out)
    reader = GGUFReader(out, "r+")
    edit({tensor.name: tensor.data for tensor in reader.tensors})
    reader.data.flush()
    return out


def test_permuted_weights_are_caught_by_the_budget(
    merged: Path, f16: Path, examples: list[Example], tmp_path: Path
) -> None:
    """The value projections of two layers exchanged: every tensor is sound, the model is another."""
    from tuneline.export.budget import check_budget

    def exchange(data: dict[str, Any]) -> None:
        a, b = data["blk.0.attn_v.weight"], data["blk.1.attn_v.weight"]
        a[:], b[:] = b.copy(), a.copy()

    metrics = measured(merged, edited(f16, tmp_path / "wrong.gguf", exchange), examples)
    assert metrics["kl_mean_nats"] > 1e-3
    with pytest.raises(BudgetError, match=r"merged -> f16.*kl_mean_nats is .*allows 0\.0001.*usual causes"):
        check_budget("f16", metrics | {"execution_accuracy_drop": 0.0, "ended_drop": 0.0}, TIGHT)


def test_weights_that_became_infinite_are_caught(
    merged: Path, f16: Path, examples: list[Example], tmp_path: Path
) -> None:
    def overflow(data: dict[str, Any]) -> None:
        data["blk.0.ffn_down.weight"][0, 0] = float("inf")

    wrong = edited(f16, tmp_path / "wrong.gguf", overflow)
    with pytest.raises(ModelError, match=r"blk\.0\.ffn_down\.weight.* NaN or infinity.*outtype=bf16"):
        measured(merged, wrong, examples)


def test_logits_that_became_infinite_are_caught(
    merged: Path, f16: Path, tokenizer: "PreTrainedTokenizerBase", examples: list[Example], tmp_path: Path
) -> None:
    """As from a sum beyond float16; here from a weight, which `measure` would find before."""
    from tuneline.export.parity import answer_row, compare_answers
    from tuneline.export.reference import REFERENCE
    from tuneline.export.runtime import Runtime
    from tuneline.model.loading import load_merged

    def overflow(data: dict[str, Any]) -> None:
        data["blk.0.ffn_down.weight"][0, 0] = float("inf")

    wrong = edited(f16, tmp_path / "wrong.gguf", overflow)
    with (
        Runtime(wrong, n_ctx_tokens=N_CTX, n_sequences=1) as runtime,
        pytest.raises(BudgetError, match=r"not finite.*outtype=bf16"),
    ):
        compare_answers(runtime, load_merged(merged, REFERENCE), [answer_row(tokenizer, examples[0])])


def test_greedy_answers_are_those_of_transformers(
    merged: Path, f16: Path, tokenizer: "PreTrainedTokenizerBase", examples: list[Example]
) -> None:
    from tuneline.evaluation.generation import generate_greedy_ids
    from tuneline.evaluation.heldout import prompt_messages
    from tuneline.export.reference import REFERENCE, reference_logits
    from tuneline.export.runtime import Runtime
    from tuneline.model.loading import load_merged
    from tuneline.model.template import encode_prompt

    prompts = [encode_prompt(tokenizer, prompt_messages(example)) for example in examples]
    model = load_merged(merged, REFERENCE)
    expected = generate_greedy_ids(model, tokenizer, prompts, 24, 4, "test")
    with Runtime(f16, n_ctx_tokens=N_CTX, n_sequences=3) as runtime:
        found = dict(runtime.generate(prompts, 24, stop=True))
    for prompt, theirs, ours in zip(prompts, expected, (found[i] for i in range(12)), strict=True):
        for place, (a, b) in enumerate(zip(theirs, ours, strict=False)):
            if a != b:  # only where rounding decides, and then the rest of the answer is another
                (logits,) = reference_logits(model, prompt + theirs[:place], [len(prompt) + place - 1])
                assert abs(logits[a] - logits[b]) < 1e-2
                break
        else:  # one ended, or was cut, where the other goes on
            assert len(theirs) == len(ours)
    assert max(map(len, expected)) > 1


def test_answers_do_not_depend_on_how_many_are_generated_at_once(f16: Path) -> None:
    from tuneline.export.runtime import Runtime

    prompts = [[1, *range(3 + n, 40 + 3 * n)] for n in range(9)]
    answers = []
    for n_sequences in (1, 4, 16):
        with Runtime(f16, n_ctx_tokens=N_CTX, n_sequences=n_sequences) as runtime:
            answers.append(dict(runtime.generate(prompts, 16, stop=True)))
    assert answers[0] == answers[1] == answers[2]
    assert sorted(answers[0]) == list(range(9))


def test_answer_row_predicts_the_last_answer_and_its_end_only(tokenizer: "PreTrainedTokenizerBase") -> None:
    from tuneline.data.records import Message, make_example
    from tuneline.export.parity import answer_row

    turns = (
        Message("user", "a"),
        Message("assistant", "first"),
        Message("user", "b"),
        Message("assistant", "second"),
    )
    row = answer_row(tokenizer, make_example("test", 1, turns, None, {}))
    assert tokenizer.decode(row.answer_ids) == "second<|im_end|>"


def test_tools_belong_to_the_prompt_of_an_answer_row(
    tokenizer: "PreTrainedTokenizerBase", monkeypatch: pytest.MonkeyPatch
) -> None:
    from msgspec.structs import replace

    from tuneline.export.parity import answer_row

    shown = "{% if tools %}{{ tools | tojson }}{% endif %}" + str(tokenizer.chat_template)
    monkeypatch.setattr(tokenizer, "chat_template", shown)
    plain = conversation("a", "b")
    row, bare = answer_row(tokenizer, replace(plain, tools=({"name": "add"},))), answer_row(tokenizer, plain)
    assert '"name": "add"' in tokenizer.decode(row.ids)
    assert row.answer_ids == bare.answer_ids
    assert row.positions[0] > bare.positions[0]


def test_perplexity_is_that_of_torch(tokenizer: "PreTrainedTokenizerBase", merged: Path, f16: Path) -> None:
    import torch

    from tuneline.export.parity import answer_row, compare_answers
    from tuneline.export.reference import REFERENCE
    from tuneline.export.runtime import Runtime
    from tuneline.model.loading import load_merged

    rows = [answer_row(tokenizer, conversation("short", "x")), answer_row(tokenizer, conversation("b", "y" * 30))]
    model = load_merged(merged, REFERENCE)
    with Runtime(f16, n_ctx_tokens=N_CTX, n_sequences=1) as runtime:
        metrics = compare_answers(runtime, model, rows)
    losses = []
    for row in rows:
        with torch.inference_mode():
            logits = model(input_ids=torch.tensor([row.ids])).logits[0, row.positions]
        targets = torch.tensor(row.answer_ids)
        losses += torch.nn.functional.cross_entropy(logits, targets, reduction="none").tolist()
    assert metrics["perplexity_merged"] == pytest.approx(math.exp(sum(losses) / len(losses)), rel=1e-5)
    assert metrics["n_tokens"] == len(losses)
    assert 0 < metrics["log_perplexity_ratio_se"] < 0.1


def test_row_that_does_not_fit_says_which_key_to_raise(f16: Path) -> None:
    from tuneline.export.runtime import Runtime

    with (
        Runtime(f16, n_ctx_tokens=32, n_sequences=2) as runtime,
        pytest.raises(ModelError, match=r"export\.n_ctx: 32 tokens .*\(48 tokens\).*raise export\.n_ctx"),
    ):
        list(runtime.generate([list(range(40))], 8, stop=True))


def test_token_that_llama_cpp_would_not_stop_at_is_refused(f16: Path) -> None:
    from tuneline.export.parity import check_stops
    from tuneline.export.runtime import open_vocabulary

    with open_vocabulary(f16) as vocabulary:
        check_stops("link", vocabulary, {2})
        with pytest.raises(ModelError, match=r"link: tokens \[100\]"):
            check_stops("link", vocabulary, {2, 100})


def test_decoding_keeps_the_space_before_punctuation(f16: Path) -> None:
    from tuneline.export.runtime import open_vocabulary

    text = "SELECT a , b FROM t WHERE x = 's ' ; \n  don 't"
    with open_vocabulary(f16) as vocabulary:
        assert vocabulary.decode(vocabulary.encode(text, add_special=False)) == text


def test_speed_is_positive_and_names_its_units(f16: Path) -> None:
    from tuneline.export.runtime import Runtime
    from tuneline.export.speed import measure_speed

    with Runtime(f16, n_ctx_tokens=N_CTX, n_sequences=1) as runtime:
        speed = measure_speed(runtime, [[1, 5, 6, 7]] * 3, load_s=0.5)
    assert set(speed) == {"load_s", "n_threads", "prompt_tokens_per_s", "generation_tokens_per_s"}
    assert min(speed.values()) > 0


def test_memory_is_that_of_the_model_not_of_this_process(f16: Path) -> None:
    from tuneline.export.memory import measure_memory

    memory = measure_memory(f16, N_CTX, [1, 5, 6, 7])
    assert f16.stat().st_size / 2**20 < memory["model_memory_mib"] < memory["peak_memory_mib"] < 250


def test_broken_file_is_told_by_its_name_from_the_other_process(tmp_path: Path) -> None:
    from tuneline.export.memory import measure_memory

    (tmp_path / "broken.gguf").write_bytes(b"GGUF")
    with pytest.raises(ModelError, match=r"broken\.gguf: its memory cannot be measured: .*not a readable GGUF file"):
        measure_memory(tmp_path / "broken.gguf", N_CTX, [1])


def test_memory_of_a_prompt_longer_than_one_argument_may_be_is_asked_for(f16: Path) -> None:
    from tuneline.export.memory import measure_memory

    with pytest.raises(ModelError, match=r"cannot be measured: .*256 tokens do not hold .*\(30000 tokens\)"):
        measure_memory(f16, 256, [12345] * 30_000)


def test_speed_is_no_difference_of_two_times(f16: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Which may be nothing or less, where the clock is coarse or reading took longer the second time."""
    from itertools import count

    from tuneline.export import speed
    from tuneline.export.runtime import Runtime

    monkeypatch.setattr(speed, "perf_counter", count().__next__)
    with Runtime(f16, n_ctx_tokens=256, n_sequences=1) as runtime:
        figures = speed.measure_speed(runtime, [[1, 5, 6, 7]] * 3, load_s=0.5)
    assert figures["prompt_tokens_per_s"] == 12
    assert figures["generation_tokens_per_s"] == speed.N_NEW_TOKENS


def test_a_prompt_that_fills_the_context_leaves_a_speed_of_generation(f16: Path) -> None:
    from tuneline.export.runtime import Runtime
    from tuneline.export.speed import measure_speed

    with Runtime(f16, n_ctx_tokens=256, n_sequences=1) as runtime:
        assert measure_speed(runtime, [[5] * 255], load_s=0.5)["generation_tokens_per_s"] > 0
