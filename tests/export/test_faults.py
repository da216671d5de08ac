"""What can be broken between adapter and package: each is refused by the stage it belongs to, in one line."""

import json
import math
import os
import pickle
import random
import re
import shutil
import subprocess
import sys
from collections import namedtuple
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.export.conftest import (
    PEFT_WARNING,
    TEMPLATE,
    conversation,
    convert_folder,
    model_config,
    save_model,
    save_tokenizer,
)
from tuneline.errors import EnvironmentProblem, ModelError, TunelineError

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings(PEFT_WARNING)]

Usage = namedtuple("Usage", "total used free")
ROWS = [[1, 70, 71, 72, 2]]


class Bomb:
    """What a pickle runs when it is read."""

    def __init__(self, file: Path) -> None:
        self.file = file

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.file,)


def merge_into(out: Path, adapter: Path, base: Path) -> dict[str, float | int]:
    from tuneline.export.merge import merge

    out.mkdir()
    return merge(adapter, model_config(base), "float32", out, ROWS)


def refused(call: Callable[[], object], error: type[TunelineError], match: str) -> None:
    with pytest.raises(error, match=match) as caught:
        call()
    assert "\n" not in str(caught.value)


def change_json(file: Path, **values: object) -> None:
    file.write_text(json.dumps(json.loads(file.read_text()) | values))


def change_tensors(file: Path, change: Callable[[dict[str, Any]], None]) -> None:
    from safetensors.torch import load_file, save_file

    tensors = load_file(file)
    change(tensors)
    save_file(tensors, file, metadata={"format": "pt"})


def flip(file: Path, place: int, bit: int = 0) -> None:
    data = bytearray(file.read_bytes())
    data[place] ^= 1 << bit
    file.write_bytes(data)


@pytest.fixture
def broken_adapter(adapter: Path, tmp_path: Path) -> Path:
    """A copy to break."""
    return Path(shutil.copytree(adapter, tmp_path / "adapter"))


@pytest.fixture
def broken_base(base: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(base, tmp_path / "base"))


@pytest.mark.parametrize(
    ("config", "match"),
    [
        ({"base_model_name_or_path": "org/other"}, r"trained on 'org/other', but model.name_or_path is '.*base"),
        ({"revision": "abc"}, r"trained on '.*' at revision abc, but model.name_or_path is "),
        ({"r": 8}, r"the adapter does not fit its base: "),
        ({"target_modules": ["q_proj"]}, r"does not fit its base: .* has no place for .*down_proj"),
    ],
    ids=["base", "revision", "rank", "modules"],
)
def test_an_adapter_for_another_base_revision_or_rank_is_not_merged(
    config: dict[str, Any], match: str, broken_adapter: Path, base: Path, tmp_path: Path
) -> None:
    change_json(broken_adapter / "adapter_config.json", **config)
    refused(lambda: merge_into(tmp_path / "out", broken_adapter, base), ModelError, match)
    assert not list((tmp_path / "out").iterdir())


@pytest.mark.parametrize(
    "text",
    ["{", "[]", "3", '{"peft_type": "LROA"}', '{"peft_type": null}', '{"peft_type": ["LORA"]}', "\udcff"],
)
def test_an_adapter_whose_configuration_is_damaged_is_one_line(
    text: str, broken_adapter: Path, base: Path, tmp_path: Path
) -> None:
    (broken_adapter / "adapter_config.json").write_bytes(text.encode("utf-8", "surrogateescape"))
    call = lambda: merge_into(tmp_path / "out", broken_adapter, base)  # noqa: E731
    refused(call, ModelError, r"adapter_config\.json: not a readable PEFT configuration \(.*train the adapter again")


def swap(tokenizer: Any, one: str, other: str) -> None:
    first, second = getattr(tokenizer, one), getattr(tokenizer, other)
    setattr(tokenizer, one, second)
    setattr(tokenizer, other, first)


CHANGES: dict[str, tuple[Callable[[Any], object], str]] = {
    "template": (lambda it: setattr(it, "chat_template", TEMPLATE + "\n"), "the chat template in the tuned model's"),
    "pad": (lambda it: setattr(it, "pad_token", "<|im_start|>"), r"pad_token is '<\|pad\|>' in .* '<\|im_start\|>' in"),
    "eos": (lambda it: setattr(it, "eos_token", "<|im_start|>"), r"eos_token is '<\|im_end\|>' in the base's"),
    "pad and eos": (lambda it: swap(it, "pad_token", "eos_token"), "eos_token is"),
    "added token": (lambda it: it.add_tokens(["<|new|>"]), r"the id of token '<\|new\|>' is None in the base's"),
    "ids": (lambda it: setattr(it.backend_tokenizer, "normalizer", lowercase()), "the tokenizers disagree on"),
}


def lowercase() -> Any:
    from tokenizers.normalizers import Lowercase

    return Lowercase()


@pytest.mark.parametrize(("change", "match"), CHANGES.values(), ids=CHANGES)
def test_a_tokenizer_that_was_changed_after_training_is_not_merged(
    change: Callable[[Any], object], match: str, broken_adapter: Path, base: Path, tmp_path: Path
) -> None:
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(broken_adapter)
    change(tokenizer)
    tokenizer.save_pretrained(broken_adapter)
    call = lambda: merge_into(tmp_path / "out", broken_adapter, base)  # noqa: E731
    refused(call, ModelError, rf"merge \(.*adapter\): .*{match}.*train it again")
    assert not list((tmp_path / "out").iterdir())


def test_a_tokenizer_that_is_not_written_as_it_is_is_noticed(
    adapter: Path, base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from tuneline.export import merge

    def spoilt(model: object, tokenizer: Any, *rest: Any) -> None:
        tokenizer.chat_template += "\n"
        write_model(model, tokenizer, *rest)  # type: ignore[arg-type]

    write_model = merge.write_model
    monkeypatch.setattr(merge, "write_model", spoilt)
    call = lambda: merge_into(tmp_path / "out", adapter, base)  # noqa: E731
    refused(call, ModelError, r"-> .*out\): the chat template in what was written is not that in the base's")


def test_an_adapter_of_a_wider_base_is_not_merged(broken_adapter: Path, tmp_path: Path) -> None:
    """Of the very name, but its files were changed since."""
    save_model(tmp_path / "narrow", 0, tied=True, hidden_size=128)
    save_tokenizer(tmp_path / "narrow")
    change_json(broken_adapter / "adapter_config.json", base_model_name_or_path=str(tmp_path / "narrow"))
    call = lambda: merge_into(tmp_path / "out", broken_adapter, tmp_path / "narrow")  # noqa: E731
    refused(call, ModelError, "the adapter does not fit its base: ")


@pytest.mark.parametrize("name", ["adapter_model.bin", "adapter_model.pt"])
def test_an_adapter_that_is_a_pickle_is_not_read(name: str, broken_adapter: Path, base: Path, tmp_path: Path) -> None:
    (broken_adapter / "adapter_model.safetensors").unlink()
    (broken_adapter / name).write_bytes(pickle.dumps(Bomb(tmp_path / "exploded")))
    call = lambda: merge_into(tmp_path / "out", broken_adapter, base)  # noqa: E731
    refused(call, ModelError, rf"{re.escape(name)}: a pickle, which is never read; save the model as safetensors")
    assert not (tmp_path / "exploded").exists()


def test_a_pickle_under_the_name_of_safetensors_is_not_read(broken_adapter: Path, base: Path, tmp_path: Path) -> None:
    (broken_adapter / "adapter_model.safetensors").write_bytes(pickle.dumps(Bomb(tmp_path / "exploded")))
    refused(lambda: merge_into(tmp_path / "out", broken_adapter, base), ModelError, "no readable safetensors file")
    assert not (tmp_path / "exploded").exists()


def test_a_base_that_is_a_pickle_is_not_read(adapter: Path, broken_base: Path, tmp_path: Path) -> None:
    import torch

    adapter = Path(shutil.copytree(adapter, tmp_path / "adapter"))
    change_json(adapter / "adapter_config.json", base_model_name_or_path=str(broken_base))
    from safetensors.torch import load_file

    torch.save(load_file(broken_base / "model.safetensors"), broken_base / "pytorch_model.bin")
    (broken_base / "model.safetensors").unlink()
    call = lambda: merge_into(tmp_path / "out", adapter, broken_base)  # noqa: E731
    refused(call, ModelError, "base: cannot be loaded: .*safetensors")


def test_a_base_with_a_number_that_is_none_is_not_merged(
    broken_adapter: Path, broken_base: Path, tmp_path: Path
) -> None:
    def spoil(tensors: dict[str, Any]) -> None:
        tensors["model.layers.0.mlp.up_proj.weight"][3, 5] = math.nan

    change_tensors(broken_base / "model.safetensors", spoil)
    change_json(broken_adapter / "adapter_config.json", base_model_name_or_path=str(broken_base))
    call = lambda: merge_into(tmp_path / "out", broken_adapter, broken_base)  # noqa: E731
    refused(call, ModelError, "NaN|not finite")


def test_a_flipped_bit_in_the_header_of_an_adapter_is_one_line(
    broken_adapter: Path, base: Path, tmp_path: Path
) -> None:
    file = broken_adapter / "adapter_model.safetensors"
    for place in (0, 7, 8, 40):
        flip(file, place, 6)
        out = tmp_path / f"out{place}"
        refused(lambda out=out: merge_into(out, broken_adapter, base), ModelError, "safetensors|does not fit")  # type: ignore[misc]
        flip(file, place, 6)


def test_a_missing_tensor_of_the_merged_model_is_not_converted(merged: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(merged, tmp_path / "merged"))
    change_tensors(folder / "model.safetensors", lambda tensors: tensors.pop("model.layers.1.mlp.up_proj.weight"))
    refused(lambda: convert_folder(folder, tmp_path / "out.gguf"), ModelError, "blk.1.ffn_up.weight")
    assert not list(tmp_path.glob("*out.gguf*"))


def test_a_merged_model_with_a_number_that_is_none_is_not_converted(merged: Path, tmp_path: Path) -> None:
    def spoil(tensors: dict[str, Any]) -> None:
        tensors["model.layers.0.mlp.up_proj.weight"][3, 5] = math.nan

    folder = Path(shutil.copytree(merged, tmp_path / "merged"))
    change_tensors(folder / "model.safetensors", spoil)
    refused(lambda: convert_folder(folder, tmp_path / "out.gguf"), ModelError, "blk.0.ffn_up.weight.* has invalid data")
    assert not list(tmp_path.glob("*out.gguf*"))


def test_a_merged_model_that_is_a_pickle_is_not_converted(merged: Path, tmp_path: Path) -> None:
    """llama.cpp's converter would read it."""
    import torch
    from safetensors.torch import load_file

    folder = Path(shutil.copytree(merged, tmp_path / "merged"))
    torch.save(load_file(folder / "model.safetensors"), folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()
    match = r"pytorch_model\.bin: a pickle, which is never read"
    refused(lambda: convert_folder(folder, tmp_path / "out.gguf"), ModelError, match)
    assert not list(tmp_path.glob("*out.gguf*"))


def test_no_stage_that_writes_weights_starts_without_room(
    merged: Path, adapter: Path, base: Path, f16: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from tuneline.export.adapter_gguf import convert_adapter
    from tuneline.export.base_gguf import convert_base
    from tuneline.export.calibration import compute
    from tuneline.export.llama_cpp import llama_cpp_folder
    from tuneline.export.quantize import quantize

    converter, text = llama_cpp_folder(), tmp_path / "rows.txt"
    monkeypatch.setattr(shutil, "disk_usage", lambda path: Usage(9000, 8000, 1000))
    for loading in ("merge.load_tuned", "base_gguf.load_base"):
        monkeypatch.setattr(f"tuneline.export.{loading}", None)  # what takes minutes is not even called
    for name, call in {
        "model.safetensors": lambda: merge_into(tmp_path / "merged", adapter, base),
        "out.gguf": lambda: convert_folder(merged, tmp_path / "out.gguf"),
        "q8_0.gguf": lambda: quantize(f16, tmp_path / "q8_0.gguf", "q8_0"),
        "imatrix.gguf": lambda: compute(Path("no-such-program"), f16, text, tmp_path / "imatrix.gguf", n_ctx=64),
        "base.gguf": lambda: convert_base(
            model_config(base), tmp_path / "base.gguf", "q8_0", outtype="f16", converter=converter
        ),
        "adapter.gguf": lambda: convert_adapter(
            adapter, model_config(base), tmp_path / "adapter.gguf", converter=converter
        ),
    }.items():
        refused(call, EnvironmentProblem, rf"{name}: needs up to [\d,]{{6,}} bytes, 1,000 are free")
    assert [path.name for path in tmp_path.rglob("*")] == ["merged"]


FLIPS = """
import sys
from pathlib import Path
from tuneline.errors import TunelineError
from tuneline.export.quantize import check_file_type, quantize
from tuneline.export.runtime import Runtime
source, folder = Path(sys.argv[1]), Path(sys.argv[2])
data = source.read_bytes()
for word in sys.argv[3].split(","):
    place, bit = map(int, word.split("."))
    changed = bytearray(data)
    changed[place] ^= 1 << bit
    (folder / "flipped.gguf").write_bytes(changed)
    print(word, end=" ", flush=True)
    try:
        check_file_type(folder / "flipped.gguf", "f16")
        with Runtime(folder / "flipped.gguf", n_ctx_tokens=64, n_sequences=1) as runtime:
            runtime.logits([5, 6, 7], [2])
        quantize(folder / "flipped.gguf", folder / "out.gguf", "q8_0")
        print("runs", flush=True)
    except TunelineError as error:
        print("refused", str(error).count("\\n"), flush=True)
"""


def test_no_flipped_bit_of_a_header_ends_llama_cpp_or_a_stage_without_a_line(f16: Path, tmp_path: Path) -> None:
    """Most are refused; the others change names and texts that the tokens and templates are compared by."""
    data, draw = f16.read_bytes(), random.Random(0)
    end = data.rfind(b"output_norm.weight") + 40
    infos = data.find(b"token_embd.weight")
    name_of_the_type = data.find(b"general.file_type")
    assert name_of_the_type > 0
    places = [*range(24), name_of_the_type, *draw.sample(range(24, infos), 60), *draw.sample(range(infos, end), 60)]
    flips = ",".join(f"{place}.{draw.randrange(8)}" for place in places)
    done = subprocess.run(
        [sys.executable, "-c", FLIPS, str(f16), str(tmp_path), flips],
        env={**os.environ, "PYTHONPATH": "src"}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, f"{done.stdout.splitlines()[-1]}: {done.stderr[-2000:]}"
    outcomes = [line.split(" ", 1)[1] for line in done.stdout.splitlines()]
    assert len(outcomes) == len(places)
    assert set(outcomes) <= {"runs", "refused 0"}
    assert set(outcomes[:25]) == {"refused 0"}
    assert outcomes.count("refused 0") > 100


def test_one_flipped_exponent_in_the_weights_is_outside_the_budget(merged: Path, f16: Path, tmp_path: Path) -> None:
    from tuneline.export.header import read_header
    from tuneline.export.parity import answer_row, compare_answers
    from tuneline.export.reference import REFERENCE
    from tuneline.export.runtime import Runtime
    from tuneline.model.loading import load_merged
    from tuneline.model.tokenizers import load_tokenizer_from

    tensors = {tensor.name: tensor for tensor in read_header(f16).tensors}
    last = max(tensors.values(), key=lambda tensor: tensor.offset)
    size = {"F16": 2, "F32": 4}[last.type] * math.prod(last.shape)
    start = len(f16.read_bytes()) - last.offset - (size + -size % 32)
    shutil.copy(f16, tmp_path / "f16.gguf")
    flip(tmp_path / "f16.gguf", start + tensors["blk.0.ffn_down.weight"].offset + 1, 6)  # the highest of the exponent
    row = answer_row(load_tokenizer_from(merged), conversation("How many?", "SELECT count(*) FROM people"))
    with Runtime(tmp_path / "f16.gguf", n_ctx_tokens=128, n_sequences=1) as runtime:
        metrics = compare_answers(runtime, load_merged(merged, REFERENCE), [row])
    assert metrics["kl_mean_nats"] > 1e-5


def test_a_gguf_of_another_model_with_the_same_tokenizer_is_outside_the_budget(merged: Path, tmp_path: Path) -> None:
    from tuneline.export.parity import answer_row, compare_answers
    from tuneline.export.reference import REFERENCE
    from tuneline.export.runtime import Runtime
    from tuneline.model.loading import load_merged
    from tuneline.model.tokenizers import load_tokenizer_from

    save_model(tmp_path / "foreign", 7, tied=True)
    save_tokenizer(tmp_path / "foreign")
    foreign = convert_folder(tmp_path / "foreign", tmp_path / "f16.gguf")
    row = answer_row(load_tokenizer_from(merged), conversation("How many?", "SELECT count(*) FROM people"))
    with Runtime(foreign, n_ctx_tokens=128, n_sequences=1) as runtime:
        metrics = compare_answers(runtime, load_merged(merged, REFERENCE), [row])
    assert metrics["kl_mean_nats"] > 0.1
