"""The adapter in a GGUF of its own: on the base's it is the adapter that was trained, or it does not come to be."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from tests.export.conftest import PEFT_WARNING, model_config, save_adapter, save_model
from tests.export.near_ties import BestTokens
from tuneline.config.schema import BudgetConfig
from tuneline.data.records import Example
from tuneline.errors import BudgetError, EnvironmentProblem, ModelError

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings(PEFT_WARNING)]

N_CTX = 256
BUDGET = BudgetConfig(kl_mean_nats=1e-5, top1_agreement=0.995, execution_accuracy_drop=0.01)  # as conf/export has f16
TOKENIZER_BYTES = 100_000  # of this tiny one, in a GGUF or in JSON; a converted file has one, too
NOTHING_LOST = {"execution_accuracy_drop": 0.0, "ended_drop": 0.0}


@pytest.fixture(scope="module")
def base_f16(base: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return convert_base_to(base, tmp_path_factory.mktemp("base_gguf") / "f16.gguf", "f16")


def convert_base_to(base: Path, out: Path, gguf_type: Any) -> Path:
    from tuneline.export.base_gguf import convert_base
    from tuneline.export.llama_cpp import llama_cpp_folder

    n_texts = convert_base(model_config(base), out, gguf_type, outtype="f16", converter=llama_cpp_folder())
    assert n_texts == 10_000
    return out


def convert_adapter_to(adapter: Path, base: Path, out: Path) -> Path:
    from tuneline.export.adapter_gguf import convert_adapter
    from tuneline.export.llama_cpp import llama_cpp_folder

    convert_adapter(adapter, model_config(base), out, converter=llama_cpp_folder())
    return out


def measured(
    adapter: Path, base: Path, base_gguf: Path, gguf: Path, examples: list[Example], base_type: Any = "f16"
) -> dict[str, float | int]:
    from tuneline.export.adapter_link import AdapterLink
    from tuneline.export.verify import measure

    link = AdapterLink(adapter, base_gguf, base_type, gguf, base=model_config(base))
    return measure(link, examples, examples, BUDGET, N_CTX, 8).metrics


def best_tokens(adapter: Path, base: Path, base_gguf: Path, gguf: Path, examples: list[Example]) -> BestTokens:
    from tuneline.export.adapter_link import AdapterLink
    from tuneline.export.parity import answer_row
    from tuneline.export.reference import reference_logits
    from tuneline.export.runtime import Runtime
    from tuneline.model.tokenizers import load_tokenizer_from

    model = AdapterLink(adapter, base_gguf, "f16", gguf, base=model_config(base)).load()
    tokenizer = load_tokenizer_from(adapter)
    found = BestTokens()
    with Runtime(base_gguf, n_ctx_tokens=N_CTX, n_sequences=1, adapter=gguf) as runtime:
        for row in (answer_row(tokenizer, example) for example in examples):
            found.add(reference_logits(model, row.ids, row.positions), runtime.logits(row.ids, row.positions))
    return found


def check(metrics: dict[str, float | int]) -> None:
    from tuneline.export.adapter_link import check_adapter_link

    check_adapter_link("f16", metrics | NOTHING_LOST, BUDGET)


@pytest.mark.parametrize("settings", [{}, {"use_rslora": True}, {"target_modules": ["q_proj", "down_proj"]}], ids=str)
def test_base_and_adapter_apart_predict_what_the_trained_adapter_predicts(
    base: Path, base_f16: Path, examples: list[Example], tmp_path: Path, settings: dict[str, Any]
) -> None:
    save_adapter(base, tmp_path / "adapter", **{"r": 8, "lora_alpha": 32, "target_modules": "all-linear"} | settings)
    gguf = convert_adapter_to(tmp_path / "adapter", base, tmp_path / "adapter.gguf")
    metrics = measured(tmp_path / "adapter", base, base_f16, gguf, examples)
    best = best_tokens(tmp_path / "adapter", base, base_f16, gguf, examples)
    best.check()  # random weights give near ties, and one in these 93 positions is more than top1_agreement allows
    assert metrics["top1_agreement"] == len(best.differences) / (len(best.differences) + len(best.margins))
    check(metrics | {"top1_agreement": 1.0})
    assert metrics["n_compared_examples"] == len(examples)
    assert metrics["size_mib"] == pytest.approx((base_f16.stat().st_size + gguf.stat().st_size) / 2**20)
    assert metrics["adapter_size_mib"] == pytest.approx(gguf.stat().st_size / 2**20)


def test_another_best_token_that_rounding_does_not_explain_is_no_near_tie() -> None:
    import numpy as np

    found = BestTokens()
    found.add(np.array([[1.0, 0.0], [0.0, 3.0]], np.float32), np.array([[1.0, 0.25], [0.0, 3.0]], np.float32))
    found.add(np.array([[0.5, 0.375]], np.float32), np.array([[0.375, 0.5]], np.float32))
    found.check()
    found.add(np.array([[2.0, 1.5]], np.float32), np.array([[1.5, 2.0]], np.float32))
    with pytest.raises(AssertionError, match=r"0\.5 > 0\.25"):
        found.check()


def test_scale_that_the_converter_writes_for_rslora_by_itself_is_outside_the_budget(
    base: Path, base_f16: Path, examples: list[Example], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """alpha / r in place of alpha / sqrt(r): every matrix is right, and half of the update is missing."""
    from tuneline.export import adapter_gguf

    monkeypatch.setattr(adapter_gguf, "gguf_alpha", lambda config: float(config.lora_alpha))
    save_adapter(base, tmp_path / "adapter", r=4, lora_alpha=8, target_modules="all-linear", use_rslora=True)
    gguf = convert_adapter_to(tmp_path / "adapter", base, tmp_path / "adapter.gguf")
    metrics = measured(tmp_path / "adapter", base, base_f16, gguf, examples)
    assert metrics["kl_mean_nats"] > 1e-3
    with pytest.raises(BudgetError, match=r"verify_adapter \(adapter -> its GGUF.*another scale") as caught:
        check(metrics)
    assert "\n" not in str(caught.value)


def test_adapter_gguf_of_an_earlier_training_is_outside_the_budget(
    base: Path, adapter: Path, base_f16: Path, examples: list[Example], tmp_path: Path
) -> None:
    save_adapter(base, tmp_path / "earlier", r=8, lora_alpha=8, target_modules="all-linear")
    gguf = convert_adapter_to(tmp_path / "earlier", base, tmp_path / "adapter.gguf")
    with pytest.raises(BudgetError, match="of an earlier training"):
        check(measured(adapter, base, base_f16, gguf, examples))


def test_base_in_fewer_bits_takes_the_adapter_too(
    base: Path, adapter: Path, base_f16: Path, examples: list[Example], tmp_path: Path
) -> None:
    gguf = convert_adapter_to(adapter, base, tmp_path / "adapter.gguf")
    q8_0 = convert_base_to(base, tmp_path / "q8_0.gguf", "q8_0")
    coarse = measured(adapter, base, q8_0, gguf, examples, "q8_0")
    assert measured(adapter, base, base_f16, gguf, examples)["kl_mean_nats"] < coarse["kl_mean_nats"] < 2e-3
    assert list(tmp_path.glob(".*")) == []  # what was written on the way is gone


def test_converting_twice_gives_the_same_bytes_and_the_base_holds_no_adapter(
    base: Path, adapter: Path, base_f16: Path, tmp_path: Path
) -> None:
    assert convert_base_to(base, tmp_path / "again.gguf", "f16").read_bytes() == base_f16.read_bytes()
    first, second = (convert_adapter_to(adapter, base, tmp_path / f"{n}.gguf") for n in (1, 2))
    assert first.read_bytes() == second.read_bytes()


def needed_bytes(call: Callable[[], object], monkeypatch: pytest.MonkeyPatch) -> int:
    """What the disk is asked for before anything is written, by the refusal of one that has no room at all."""
    with monkeypatch.context() as full:
        full.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=0))
        with pytest.raises(EnvironmentProblem, match="needs up to") as caught:
            call()
    return int(str(caught.value).split("up to ")[1].split(" bytes")[0].replace(",", ""))


@pytest.mark.parametrize("gguf_type", ["f16", "q8_0", "q4_k_m"])
def test_room_for_a_base_is_all_that_lies_on_the_disk_at_once(
    base: Path, base_f16: Path, tmp_path: Path, gguf_type: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its weights in a folder, the file converted of them, and beside a quant the file that it is made of."""
    out = tmp_path / "base.gguf"
    needed = needed_bytes(lambda: convert_base_to(base, out, gguf_type), monkeypatch)
    assert not list(tmp_path.iterdir())
    convert_base_to(base, out, gguf_type)
    at_once = (base / "model.safetensors").stat().st_size + out.stat().st_size
    at_once += 0 if gguf_type == "f16" else base_f16.stat().st_size
    assert at_once <= needed + TOKENIZER_BYTES
    assert needed <= 1.25 * at_once


def test_room_for_a_base_is_looked_for_before_it_is_loaded(
    base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from tuneline.export import base_gguf

    def load_base(*_: object) -> None:
        raise AssertionError("the base was loaded")

    monkeypatch.setattr(base_gguf, "load_base", load_base)
    stored = (base / "model.safetensors").stat().st_size  # in fp32; a GGUF of 16 bits is half of that
    needed = needed_bytes(lambda: convert_base_to(base, tmp_path / "base.gguf", "f16"), monkeypatch)
    assert needed == pytest.approx(1.5 * stored, rel=0.01)


def test_a_base_of_more_bits_than_its_config_says_is_not_written_without_room(
    base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(base, tmp_path / "base")
    config = tmp_path / "base" / "config.json"
    config.write_text(json.dumps(json.loads(config.read_text(encoding="utf-8")) | {"dtype": "bfloat16"}))
    stored = (base / "model.safetensors").stat().st_size
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=stored * 5 // 4))  # 16 bits would fit
    with pytest.raises(EnvironmentProblem, match=r"base\.gguf: needs up to"):
        convert_base_to(tmp_path / "base", tmp_path / "base.gguf", "f16")
    assert [path.name for path in tmp_path.iterdir()] == ["base"]


def test_no_adapter_is_larger_than_the_room_that_was_asked_for(
    base: Path, adapter: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "adapter.gguf"
    needed = needed_bytes(lambda: convert_adapter_to(adapter, base, out), monkeypatch)
    convert_adapter_to(adapter, base, out)
    assert out.stat().st_size <= needed <= out.stat().st_size + TOKENIZER_BYTES


def test_file_states_the_alpha_that_scales_as_the_adapter_does(base: Path, tmp_path: Path) -> None:
    from tuneline.export.header import read_header

    for name, rslora in (("lora", False), ("rslora", True)):
        save_adapter(base, tmp_path / name, r=16, lora_alpha=8, target_modules="all-linear", use_rslora=rslora)
        header = read_header(convert_adapter_to(tmp_path / name, base, tmp_path / f"{name}.gguf"))
        alpha = header.metadata["adapter.lora.alpha"]
        assert alpha == (32 if rslora else 8)  # 32 / 16 is 8 / sqrt(16)
        assert len(header.tensors) == 2 * 2 * 7  # A and B, two layers of seven matrices


@pytest.mark.filterwarnings("ignore:Model has `tie_word_embeddings=True` and a tied layer:UserWarning")
@pytest.mark.filterwarnings("ignore:Setting `save_embedding_layers`:UserWarning")
@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"use_dora": True}, "a DoRA adapter"),
        ({"bias": "all"}, "bias 'all' is trained"),
        ({"modules_to_save": ["norm"]}, "whole modules or token embeddings"),
        ({"trainable_token_indices": [1, 2]}, "whole modules or token embeddings"),
        ({"alpha_pattern": {"q_proj": 16}}, "scales differ by layer"),
        ({"rank_pattern": {"q_proj": 2}}, "scales differ by layer"),
        ({"target_modules": ["embed_tokens"]}, "it holds base_model.model.model.embed_tokens"),
    ],
    ids=str,
)
def test_what_llama_cpp_cannot_put_onto_a_model_is_refused_in_one_line(
    base: Path, tmp_path: Path, settings: dict[str, Any], message: str
) -> None:
    save_adapter(base, tmp_path / "adapter", **{"r": 4, "lora_alpha": 8, "target_modules": "all-linear"} | settings)
    with pytest.raises(ModelError, match=rf"adapter_config\.json: {message}.*export\.lora_base: null") as caught:
        convert_adapter_to(tmp_path / "adapter", base, tmp_path / "adapter.gguf")
    assert "\n" not in str(caught.value)
    assert not list(tmp_path.glob("*adapter.gguf*"))


def forget_a_matrix(folder: Path) -> None:
    change_tensors(folder, lambda tensors: tensors.popitem())


def spoil_a_matrix(folder: Path) -> None:
    def change(tensors: dict[str, Any]) -> None:
        next(iter(tensors.values()))[0, 0] = float("nan")

    change_tensors(folder, change)


def name_another_base(folder: Path) -> None:
    edit_config(folder, {"base_model_name_or_path": "models/base/other"})


def pickle_it(folder: Path) -> None:
    (folder / "adapter_model.safetensors").rename(folder / "adapter_model.bin")


def remove_config(folder: Path) -> None:
    (folder / "adapter_config.json").unlink()


def change_tensors(folder: Path, change: Callable[[dict[str, Any]], object]) -> None:
    from safetensors.torch import load_file, save_file

    tensors = load_file(folder / "adapter_model.safetensors")
    change(tensors)
    save_file(tensors, folder / "adapter_model.safetensors")


def edit_config(folder: Path, values: dict[str, Any]) -> None:
    path = folder / "adapter_config.json"
    path.write_text(json.dumps(json.loads(path.read_text(encoding="utf-8")) | values), encoding="utf-8")


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (forget_a_matrix, "converter refuses the adapter"),
        (spoil_a_matrix, "not finite"),
        (name_another_base, "was trained on 'models/base/other'"),
        (pickle_it, "a pickle"),
        (remove_config, "a whole model, no adapter"),
    ],
)
def test_damaged_or_foreign_adapter_is_refused_in_one_line(
    base: Path, adapter: Path, tmp_path: Path, damage: Callable[[Path], None], message: str
) -> None:
    shutil.copytree(adapter, tmp_path / "adapter")
    damage(tmp_path / "adapter")
    with pytest.raises(ModelError, match=message) as caught:
        convert_adapter_to(tmp_path / "adapter", base, tmp_path / "adapter.gguf")
    assert "\n" not in str(caught.value)
    assert not list(tmp_path.glob("*adapter.gguf*"))


def test_adapter_of_a_base_of_another_shape_is_refused_by_llama_cpp(base_f16: Path, tmp_path: Path) -> None:
    from tuneline.export.runtime import Runtime

    save_model(tmp_path / "narrow", 0, tied=True, hidden_size=128)
    save_adapter(tmp_path / "narrow", tmp_path / "adapter", r=4, lora_alpha=8, target_modules="all-linear")
    gguf = convert_adapter_to(tmp_path / "adapter", tmp_path / "narrow", tmp_path / "adapter.gguf")
    with pytest.raises(ModelError, match=r"adapter\.gguf: llama\.cpp cannot put it onto .*f16\.gguf: "):
        Runtime(base_f16, n_ctx_tokens=N_CTX, n_sequences=1, adapter=gguf)


def test_template_changed_after_training_is_caught_by_the_link(
    base: Path, adapter: Path, base_f16: Path, examples: list[Example], tmp_path: Path
) -> None:
    gguf = convert_adapter_to(adapter, base, tmp_path / "adapter.gguf")
    shutil.copytree(adapter, tmp_path / "adapter")
    template = tmp_path / "adapter" / "chat_template.jinja"
    template.write_text("{{ 'Hi' }}" + template.read_text(encoding="utf-8"), encoding="utf-8")
    with pytest.raises(ModelError, match=r"adapter -> .*f16\.gguf with .*adapter\.gguf\): the GGUF holds another chat"):
        measured(tmp_path / "adapter", base, base_f16, gguf, examples)


def test_missing_script_says_how_to_get_it(base: Path, adapter: Path, tmp_path: Path) -> None:
    from tuneline.export.adapter_gguf import convert_adapter
    from tuneline.export.llama_cpp import llama_cpp_folder

    for name in ("VERSION", "convert_hf_to_gguf.py"):
        shutil.copy(llama_cpp_folder() / name, tmp_path)
    with pytest.raises(EnvironmentProblem, match=r"convert_lora_to_gguf\.py: .*run `make setup`"):
        convert_adapter(adapter, model_config(base), tmp_path / "adapter.gguf", converter=tmp_path)
