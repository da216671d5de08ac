"""Every family through the whole chain: LoRA, merge, GGUF, quants; ids, logits and stops stay what they were."""

import json
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tests.export.conftest import PEFT_WARNING, TEXTS, conversation
from tests.export.miniatures import (
    MINIATURES,
    REFUSED,
    Miniature,
    base_config,
    edit_json,
    save_adapter,
    save_base,
    teach,
)
from tuneline.errors import ModelError
from tuneline.export.context import served_limits

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from tuneline.config.schema import Dtype, GgufType
    from tuneline.data.records import Message

# PEFT 0.21 doubles the rank for gate and up, which Transformers 5 has as one tensor, and looks for them among modules
EXPERTS_WARNING = "ignore:The following (rank|alpha)_pattern keys did not match any targeted module:RuntimeWarning"
pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings(PEFT_WARNING),
    pytest.mark.filterwarnings(EXPERTS_WARNING),
]

Figures = dict[str, float | int]
N_CTX = 256
N_SAID = 12
MAX_KL_NATS: dict["GgufType", float] = {"f32": 1e-6, "f16": 1e-5, "q8_0": 1e-3, "q4_k_m": 2e-2}
MIN_TOP1: dict["GgufType", float] = {"f16": 0.995, "q8_0": 0.97, "q4_k_m": 0.90}  # as in conf/export


@dataclass(frozen=True)
class Chain:
    name: str
    miniature: Miniature
    folder: Path
    rows: list[list[int]]  # conversations longer than any sliding window
    merge_figures: Figures
    n_same_texts: int  # on which the GGUF's tokenizer agrees

    @property
    def merged(self) -> Path:
        return self.folder / "merged"

    def gguf(self, gguf_type: "GgufType") -> Path:
        return self.folder / f"{gguf_type}.gguf"

    @property
    def types(self) -> list["GgufType"]:
        """K-quants need rows of 256 weights."""
        wide = self.miniature.config.get("hidden_size", 256) % 256 == 0
        return ["f16", "q8_0", "q4_k_m"] if wide else ["f16", "q8_0"]


def conversations(tokenizer: "PreTrainedTokenizerBase") -> list[list[int]]:
    from tuneline.model.template import encode_conversation

    examples = [conversation(f"{TEXTS[i]}\n\n{TEXTS[1]} {i}", TEXTS[0] * 2) for i in range(3)]
    return [encode_conversation(tokenizer, example.messages).input_ids[:N_CTX] for example in examples]


def merge_miniature(miniature: Miniature, folder: Path, dtype: "Dtype") -> tuple[list[list[int]], Figures]:
    from tuneline.export.merge import merge
    from tuneline.model.tokenizers import load_tokenizer

    save_base(miniature, folder / "base")
    config = base_config(miniature, folder / "base")
    rows = conversations(load_tokenizer(config))
    teach(folder / "base", rows)
    save_adapter(miniature, folder / "base", folder / "adapter")
    return rows, merge(folder / "adapter", config, dtype, folder / "merged", rows)


def convert_to(merged: Path, out: Path, outtype: Any = "f16") -> int:
    from tuneline.export.gguf import convert
    from tuneline.export.llama_cpp import llama_cpp_folder
    from tuneline.model.tokenizers import load_tokenizer_from

    tokenizer = load_tokenizer_from(merged)
    return convert(merged, tokenizer, out, outtype=outtype, name="miniature", converter=llama_cpp_folder())


@pytest.fixture(scope="module", params=MINIATURES)
def chain(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Chain:
    from tuneline.export.quantize import quant_type, quantize

    miniature, folder = MINIATURES[request.param], tmp_path_factory.mktemp("chain")
    rows, figures = merge_miniature(miniature, folder, "float32")
    n_same = convert_to(folder / "merged", folder / "f16.gguf")
    chain = Chain(request.param, miniature, folder, rows, figures, n_same)
    for quant in chain.types[1:]:
        quantize(chain.gguf("f16"), chain.gguf(quant), quant_type(quant))
    return chain


def compare(merged: Path, gguf: Path, rows: Sequence[Sequence[int]], n_ctx: int = N_CTX) -> Figures:
    from tuneline.export.reference import REFERENCE
    from tuneline.model.loading import load_merged

    return compare_with(load_merged(merged, REFERENCE), gguf, None, rows, n_ctx)


def compare_with(
    model: "PreTrainedModel", gguf: Path, adapter: Path | None, rows: Sequence[Sequence[int]], n_ctx: int
) -> Figures:
    from tuneline.export.divergence import Divergence
    from tuneline.export.reference import reference_logits
    from tuneline.export.runtime import Runtime

    divergence = Divergence()
    with Runtime(gguf, n_ctx_tokens=n_ctx, n_sequences=1, adapter=adapter) as runtime:
        for ids in rows:
            places = range(len(ids))
            divergence.add(reference_logits(model, ids, places), runtime.logits(ids, places))
    return divergence.metrics()


def shows(template: str, messages: Sequence["Message"], tools: Sequence[Any]) -> bool:
    """Whether a miniature's template can show such a conversation: tools few do, a system prompt not Mistral's."""
    refuses_system = "raise_exception" in template and any(message.role == "system" for message in messages)
    return not refuses_system and (not tools or "tools" in template)


def test_merge_is_base_plus_adapter_and_survives_the_disk(chain: Chain) -> None:
    assert chain.merge_figures["relative_logit_diff"] < 1e-4
    assert chain.merge_figures["written_relative_logit_diff"] < 1e-4


def test_adapter_changes_the_answers(chain: Chain) -> None:
    """Otherwise nothing below would notice that it was left out."""
    from tuneline.export.divergence import Divergence
    from tuneline.export.reference import REFERENCE, reference_logits
    from tuneline.model.loading import load_base, load_merged

    base, merged = load_base(base_config(chain.miniature, chain.folder / "base"), REFERENCE, None), Divergence()
    ids = chain.rows[0]
    tuned = reference_logits(load_merged(chain.merged, REFERENCE), ids, range(len(ids)))
    merged.add(reference_logits(base, ids, range(len(ids))), tuned)
    assert merged.metrics()["kl_mean_nats"] > 0.01


def test_tokenizer_in_the_file_agrees_on_ten_thousand_texts(chain: Chain) -> None:
    assert chain.n_same_texts == 10_000


def test_logits_of_every_type_are_those_of_the_merged_model(chain: Chain) -> None:
    for gguf_type in chain.types:
        figures = compare(chain.merged, chain.gguf(gguf_type), chain.rows)
        print(
            f"\n| {chain.name} | {gguf_type} | {figures['kl_mean_nats']:.1e} | {100 * figures['top1_agreement']:.1f} % "
            f"| {figures['relative_logit_diff']:.1e} | {figures['n_tokens']} |",
            end="",
        )
        assert figures["kl_mean_nats"] < MAX_KL_NATS[gguf_type]
        assert figures["top1_agreement"] >= MIN_TOP1[gguf_type]


def test_adapter_in_a_file_of_its_own_on_the_bases_is_the_trained_one_or_refused(chain: Chain) -> None:
    from tuneline.export.adapter_gguf import convert_adapter
    from tuneline.export.adapter_link import AdapterLink
    from tuneline.export.base_gguf import convert_base
    from tuneline.export.llama_cpp import llama_cpp_folder

    base, converter = base_config(chain.miniature, chain.folder / "base"), llama_cpp_folder()
    adapter, gguf, base_gguf = (chain.folder / name for name in ("adapter", "adapter.gguf", "base.gguf"))
    if (reason := chain.miniature.not_alone) is not None:
        with pytest.raises(ModelError, match=reason):
            convert_adapter(adapter, base, gguf, converter=converter)
        return
    convert_adapter(adapter, base, gguf, converter=converter)
    assert convert_base(base, base_gguf, "f16", outtype="f16", converter=converter) == 10_000
    model = AdapterLink(adapter, base_gguf, "f16", gguf, base=base).load()
    figures = compare_with(model, base_gguf, gguf, chain.rows, N_CTX)
    print(
        f"\n| {chain.name} | lora_on_f16 | {figures['kl_mean_nats']:.1e} | {figures['relative_logit_diff']:.1e} |",
        end="",
    )
    assert figures["kl_mean_nats"] < MAX_KL_NATS["f16"]
    assert figures["top1_agreement"] >= MIN_TOP1["f16"]


def test_every_stop_ends_an_answer_in_both_engines(chain: Chain) -> None:
    from tuneline.evaluation.generation import stop_ids
    from tuneline.export.parity import check_stops
    from tuneline.export.reference import REFERENCE
    from tuneline.export.runtime import open_vocabulary
    from tuneline.model.loading import load_merged
    from tuneline.model.tokenizers import load_tokenizer_from

    tokenizer = load_tokenizer_from(chain.merged)
    stops = stop_ids(load_merged(chain.merged, REFERENCE), tokenizer)
    assert set(stops) >= {tokenizer.convert_tokens_to_ids(stop) for stop in chain.miniature.stops}
    with open_vocabulary(chain.gguf("f16")) as vocabulary:
        check_stops(chain.name, vocabulary, stops)


def test_a_stop_token_ends_generation_in_both_engines(chain: Chain, tmp_path: Path) -> None:
    """It changes places with a token that the model says, in the weights and in the prompt: all else is the same."""
    from tuneline.evaluation.generation import generate_greedy_ids, stop_ids
    from tuneline.export.reference import REFERENCE
    from tuneline.export.runtime import Runtime
    from tuneline.model.loading import load_merged
    from tuneline.model.tokenizers import load_tokenizer_from

    tokenizer = load_tokenizer_from(chain.merged)
    stop = tokenizer.get_vocab()[chain.miniature.stops[0]]
    prompt = tokenizer.encode("SELECT name, age FROM people", add_special_tokens=False)
    (said,) = generate_greedy_ids(load_merged(chain.merged, REFERENCE), tokenizer, [prompt], N_SAID, 1, "saying")
    assert len(said) == N_SAID, "the model stops by itself: choose another prompt"
    end = max(said.index(token) for token in said)
    prompt = [stop if token == said[end] else token for token in prompt]
    folder = Path(shutil.copytree(chain.merged, tmp_path / "swapped"))
    change_tensors(folder, lambda tensors: swap_rows(tensors, stop, said[end]))
    convert_to(folder, tmp_path / "swapped.gguf")
    swapped = load_merged(folder, REFERENCE)
    assert stop in stop_ids(swapped, tokenizer)
    assert generate_greedy_ids(swapped, tokenizer, [prompt], N_SAID, 1, "stopping") == [said[:end]]
    with Runtime(tmp_path / "swapped.gguf", n_ctx_tokens=N_CTX, n_sequences=1) as runtime:
        assert list(runtime.generate([prompt], N_SAID, stop=True)) == [(0, said[:end])]
        ((_, on),) = runtime.generate([prompt], N_SAID, stop=False)
        assert on[end] == stop  # so it was said, and ended what would have gone on
        assert len(on) == N_SAID


def test_llama_cpp_renders_golden_conversations_as_the_model_does(chain: Chain) -> None:
    from tuneline.export.golden import GOLDENS, compare_templates
    from tuneline.export.served import open_served
    from tuneline.model.tokenizers import load_tokenizer_from

    with open_served(chain.gguf("f16")) as served:
        compared = compare_templates(chain.name, load_tokenizer_from(chain.merged), served.prompt_ids)
    assert compared.metrics["n_templates_compared"] == len(GOLDENS) - len(compared.refused)
    assert set(compared.refused) == {
        name for name, golden in GOLDENS.items() if not shows(chain.miniature.template, golden.messages, golden.tools)
    }


def test_modelfile_family_is_recognised(chain: Chain) -> None:
    from tuneline.export.modelfile import matching_family
    from tuneline.model.template import render_text
    from tuneline.model.tokenizers import load_tokenizer_from

    tokenizer = load_tokenizer_from(chain.merged)
    bos = tokenizer.bos_token or ""
    match = matching_family(lambda messages: render_text(tokenizer, messages).removeprefix(bos))
    assert (match and match.family.name) == chain.miniature.family


def test_mistral_without_its_sentencepiece_model_is_refused(tmp_path: Path) -> None:
    """The converter then takes tokenizer.json, which has no scores for the pieces."""
    save_base(MINIATURES["mistral"], tmp_path / "base")
    (tmp_path / "base" / "tokenizer.model").unlink()
    with pytest.raises(ModelError, match="the tokenizers disagree on") as caught:
        convert_to(tmp_path / "base", tmp_path / "out.gguf")
    assert "\n" not in str(caught.value)
    assert not list(tmp_path.glob("*out.gguf*"))


@pytest.mark.parametrize("name", REFUSED)
def test_text_that_would_be_read_otherwise_is_refused_in_one_line(name: str, tmp_path: Path) -> None:
    save_base(REFUSED[name], tmp_path / "base")
    with pytest.raises(ModelError) as caught:
        convert_to(tmp_path / "base", tmp_path / "out.gguf")
    assert "\n" not in str(caught.value)
    assert "the tokenizers disagree on" in str(caught.value) or "neither in llama.cpp's table" in str(caught.value)
    assert not list(tmp_path.glob("*out.gguf*"))


Change = Callable[[Path], None]  # of a folder with a model


def change_tensors(folder: Path, change: Callable[[dict[str, Any]], None]) -> None:
    from safetensors.torch import load_file, save_file

    tensors = load_file(folder / "model.safetensors")
    change(tensors)
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})


def swap_rows(tensors: dict[str, Any], one: int, other: int) -> None:
    """Of the embeddings, and of the matrix that the logits come from where that is another."""
    for name in {"model.embed_tokens.weight", "lm_head.weight"} & tensors.keys():
        tensors[name][[one, other]] = tensors[name][[other, one]]


def permute_q(folder: Path) -> None:
    """As a converter does that takes one order of the rotary pairs for the other."""

    def change(tensors: dict[str, Any]) -> None:
        name = "model.layers.0.self_attn.q_proj.weight"
        rows, columns = tensors[name].shape
        tensors[name] = tensors[name].view(8, 2, rows // 16, columns).swapaxes(1, 2).reshape(rows, columns).contiguous()

    change_tensors(folder, change)


def forget_q_norm(folder: Path) -> None:
    def change(tensors: dict[str, Any]) -> None:
        tensors["model.layers.0.self_attn.q_norm.weight"].fill_(1.0)

    change_tensors(folder, change)


def forget_bias(folder: Path) -> None:
    def change(tensors: dict[str, Any]) -> None:
        tensors["model.layers.0.self_attn.v_proj.bias"].zero_()

    change_tensors(folder, change)


def wrong_theta(folder: Path) -> None:
    edit_json(folder / "config.json", lambda config: config["rope_parameters"].update(rope_theta=100.0))


def wrong_scaling(folder: Path) -> None:
    edit_json(folder / "config.json", lambda config: config["rope_parameters"].update(factor=1.0))


def forget_adapter(folder: Path) -> None:
    shutil.copy(folder.parent / "base/model.safetensors", folder / "model.safetensors")


def swap_experts(folder: Path) -> None:
    """As a converter does that joins them in another order."""

    def change(tensors: dict[str, Any]) -> None:
        for name in [name for name in tensors if "layers.0." in name and ".experts.0." in name]:
            other = name.replace(".experts.0.", ".experts.1.")
            tensors[name], tensors[other] = tensors[other], tensors[name]

    change_tensors(folder, change)


MUTATIONS: list[tuple[str, Change]] = [
    ("llama3", forget_adapter),
    ("qwen2", forget_adapter),
    ("llama3", permute_q),
    ("llama3", wrong_theta),
    ("llama3", wrong_scaling),
    ("qwen2-untied", forget_bias),
    ("qwen3", forget_q_norm),
    ("qwen3-moe", swap_experts),
    ("mixtral", swap_experts),
]


@pytest.mark.parametrize(("name", "change"), MUTATIONS, ids=lambda value: getattr(value, "__name__", value))
def test_logits_show_what_the_conversion_changed(name: str, change: Change, tmp_path: Path) -> None:
    """The same model, but `change` happens to it on its way into the file."""
    rows, _ = merge_miniature(MINIATURES[name], tmp_path, "float32")
    shutil.copytree(tmp_path / "merged", tmp_path / "changed")
    change(tmp_path / "changed")
    convert_to(tmp_path / "changed", tmp_path / "f16.gguf")
    assert compare(tmp_path / "merged", tmp_path / "f16.gguf", rows)["kl_mean_nats"] > 10 * MAX_KL_NATS["f16"]


@pytest.fixture(scope="module")
def merged_llama(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("llama")
    save_base(MINIATURES["llama3"], folder)
    return folder


@pytest.fixture
def llama(merged_llama: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(merged_llama, tmp_path / "llama"))


def test_dropped_lm_head_is_refused(llama: Path) -> None:
    change_tensors(llama, lambda tensors: tensors.pop("lm_head.weight"))
    with pytest.raises(ModelError, match=r"not tied \(tie_word_embeddings\), but there is no lm_head.weight"):
        convert_to(llama, llama / "out.gguf")
    assert not list(llama.glob("*out.gguf*"))


def test_token_that_was_added_after_training_is_refused(llama: Path) -> None:
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(llama)
    tokenizer.add_tokens(["<|late|>"])
    tokenizer.save_pretrained(llama)
    with pytest.raises(ModelError, match=r"'<\|late\|>' was added without a row"):
        convert_to(llama, llama / "out.gguf")


def test_sharded_checkpoint_gives_the_same_file(llama: Path, tmp_path: Path) -> None:
    from transformers import AutoModelForCausalLM

    convert_to(llama, tmp_path / "whole.gguf")
    AutoModelForCausalLM.from_pretrained(llama).save_pretrained(tmp_path / "shards", max_shard_size="1MB")
    assert len(list((tmp_path / "shards").glob("*.safetensors"))) > 1
    for file in llama.glob("tokenizer*"):
        shutil.copy(file, tmp_path / "shards")
    shutil.copy(llama / "chat_template.jinja", tmp_path / "shards")
    convert_to(tmp_path / "shards", tmp_path / "sharded.gguf")
    assert (tmp_path / "sharded.gguf").read_bytes() == (tmp_path / "whole.gguf").read_bytes()


def test_a_bf16_merge_gives_the_logits_of_its_own_gguf(tmp_path: Path) -> None:
    """So what is left between the two is what the engines compute in."""
    rows, _ = merge_miniature(MINIATURES["gemma3"], tmp_path, "bfloat16")
    convert_to(tmp_path / "merged", tmp_path / "f32.gguf", "f32")
    assert compare(tmp_path / "merged", tmp_path / "f32.gguf", rows)["kl_mean_nats"] < MAX_KL_NATS["f32"]


def config_of(folder: Path) -> dict[str, Any]:
    config: dict[str, Any] = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    return config


def longer_than_window(miniature: Miniature) -> Miniature:
    from dataclasses import replace

    return replace(miniature, config=miniature.config | {"sliding_window": 32})


@pytest.mark.parametrize("name", ["phi3", "mistral"])
def test_logits_show_a_window_that_llama_cpp_does_not_keep(name: str, tmp_path: Path) -> None:
    """llama.cpp slides the window of Gemma 3 only; within the window the others agree."""
    rows, _ = merge_miniature(longer_than_window(MINIATURES[name]), tmp_path, "float32")
    convert_to(tmp_path / "merged", tmp_path / "f16.gguf")
    assert [tokens for tokens, _ in served_limits(config_of(tmp_path / "merged"))] == [32]
    short = [ids[:32] for ids in rows]
    assert compare(tmp_path / "merged", tmp_path / "f16.gguf", short)["kl_mean_nats"] < MAX_KL_NATS["f16"]
    assert compare(tmp_path / "merged", tmp_path / "f16.gguf", rows)["kl_mean_nats"] > 10 * MAX_KL_NATS["f16"]


def test_logits_show_a_context_in_which_llama_cpp_takes_longropes_other_factors(tmp_path: Path) -> None:
    """Transformers chooses them by the length of the text, llama.cpp by that of the context."""
    rows, _ = merge_miniature(MINIATURES["phi4-mini"], tmp_path, "float32")
    convert_to(tmp_path / "merged", tmp_path / "f16.gguf")
    assert [tokens for tokens, _ in served_limits(config_of(tmp_path / "merged"))] == [N_CTX]
    longer = compare(tmp_path / "merged", tmp_path / "f16.gguf", rows, n_ctx=2 * N_CTX)
    assert longer["kl_mean_nats"] > 10 * MAX_KL_NATS["f16"]
