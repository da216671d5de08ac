"""Several adapters on one base: what is refused, and that the real server lets a request choose."""

import json
import shutil
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

import pytest

from tests.export.conftest import PEFT_WARNING, TEXTS
from tests.serving.conftest import record, write_package
from tests.serving.server import serving
from tuneline.errors import ModelError
from tuneline.serving.integrity import Verified, described, verify_model
from tuneline.serving.server import free_port, lora_command

N_CTX = 64


def lora_package(folder: Path, base: bytes, adapter: bytes) -> Verified:
    write_package(folder)
    (folder / "lora").mkdir()
    (folder / "lora/base.gguf").write_bytes(base)
    (folder / "lora/adapter.gguf").write_bytes(adapter)
    return verify_model(record(folder))


def command(several: list[Verified]) -> str:
    return " ".join(lora_command(Path("llama-server"), several, "127.0.0.1", 8080, parallel=2))


def test_one_base_is_loaded_and_only_the_first_adapter_is_on(tmp_path: Path) -> None:
    several = [lora_package(tmp_path / name, b"GGUF base", name.encode()) for name in ("a", "b")]
    words = command(several)
    assert f"--model {tmp_path}/a/lora/base.gguf" in words
    assert f"--lora-scaled {tmp_path}/a/lora/adapter.gguf:1,{tmp_path}/b/lora/adapter.gguf:0" in words
    assert f"--ctx-size {2 * N_CTX}" in words
    assert "--no-cache-prompt" in words


def test_an_adapter_for_another_base_is_refused_by_its_folder(tmp_path: Path) -> None:
    several = [lora_package(tmp_path / "a", b"GGUF base", b"1"), lora_package(tmp_path / "b", b"GGUF esab", b"2")]
    with pytest.raises(ModelError, match=r"b/lora/base\.gguf: another base than that of .*/a"):
        command(several)


def test_a_package_without_adapter_is_told_the_key_that_ships_it(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"deploy: no adapter alone in it; package it with export\.lora_base set"):
        command([verify_model(write_package(tmp_path / "deploy"))])


def test_a_path_that_llama_server_would_cut_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"takes no adapter from a path with , or : in it"):
        command([lora_package(tmp_path / "a:b", b"GGUF base", b"1")])


def test_the_package_keeps_one_model_to_serve_beside_the_two_files(tmp_path: Path) -> None:
    verified = lora_package(tmp_path / "a", b"GGUF base", b"1")
    assert verified.gguf.name == "tiny.gguf"
    assert any("lora/adapter.gguf on lora/base.gguf" in line for line in described(verified))


slow = pytest.mark.slow
peft = pytest.mark.filterwarnings(PEFT_WARNING)


@pytest.fixture(scope="module")
def shipped_adapters(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Two adapters of one tiny base, packaged by the code of the package stage."""
    from tests.export.conftest import convert_folder, model_config, save_adapter, save_model, save_tokenizer
    from tuneline.export.adapter_gguf import convert_adapter
    from tuneline.export.base_gguf import convert_base
    from tuneline.export.llama_cpp import llama_cpp_folder
    from tuneline.export.quantize import quantize

    top = tmp_path_factory.mktemp("adapters")
    base, converter = top / "model", llama_cpp_folder()
    save_model(base, 0, tied=True)
    save_tokenizer(base)
    quantize(convert_folder(base, top / "f16.gguf"), top / "q8_0.gguf", "q8_0")
    for name, rank in (("a", 4), ("b", 8)):
        save_adapter(base, top / name / "adapter", r=rank, lora_alpha=4 * rank, target_modules="all-linear")
        convert_base(model_config(base), top / name / "base/f16.gguf", "f16", outtype="f16", converter=converter)
        convert_adapter(top / name / "adapter", model_config(base), top / name / "adapter.gguf", converter=converter)
        shutil.copy(top / "q8_0.gguf", top / name)
    return [shipped(top / name, base) for name in ("a", "b")]


def shipped(ggufs: Path, base: Path) -> Path:
    from tests.export.conftest import experiment, exporting, reports
    from tuneline.export.package import Inputs, package

    it = exporting(experiment(), lora_base="f16")
    figures = {**reports().verified["f16"], "adapter_size_mib": 0.4, "kl_mean_nats": 2e-6}
    inputs = Inputs(base / "config.json", base / "config.json", base, ggufs / "adapter", base)
    (ggufs / "deploy").mkdir()
    package(it, replace(reports(), lora=figures), ggufs / "q8_0.gguf", inputs, ggufs / "deploy")
    return ggufs / "deploy"


@slow
@peft
def test_package_holds_both_files_with_their_hashes(shipped_adapters: list[Path]) -> None:
    first, second = map(verify_model, shipped_adapters)
    assert first.has_lora
    assert first.record["files"]["lora/base.gguf"] == second.record["files"]["lora/base.gguf"]
    assert first.record["files"]["lora/adapter.gguf"] != second.record["files"]["lora/adapter.gguf"]
    assert {"lora_base", "lora_adapter"} <= first.record["inputs"].keys()
    assert first.record["metrics"]["lora"]["kl_mean_nats"] == 2e-6


@pytest.fixture(scope="module")
def port(shipped_adapters: list[Path]) -> Iterator[int]:
    port = free_port()
    with serving(shipped_adapters[0], port, "--lora", str(shipped_adapters[1])):
        yield port


def tokens(port: int, prompt: list[int], **chosen: Any) -> list[int]:
    """What the server appends to a prompt of token ids."""
    connection = HTTPConnection("127.0.0.1", port, timeout=60)
    body = {"prompt": prompt, "n_predict": 16, "return_tokens": True, "ignore_eos": True, **chosen}
    connection.request("POST", "/completion", json.dumps(body), {"Content-Type": "application/json"})
    answer: list[int] = json.loads(connection.getresponse().read())["tokens"]
    connection.close()
    return answer


@slow
@peft
def test_a_request_chooses_the_adapter_that_answers(port: int, shipped_adapters: list[Path]) -> None:
    from tuneline.export.runtime import Runtime

    prompt, expected = [1, *range(5, 30)], []
    for folder in shipped_adapters:
        with Runtime(
            folder / "lora/base.gguf", n_ctx_tokens=N_CTX, n_sequences=1, adapter=folder / "lora/adapter.gguf"
        ) as runtime:
            expected += [answer for _, answer in runtime.generate([prompt], 16, stop=False)]
    found = [tokens(port, prompt, lora=[{"id": number, "scale": 1.0}]) for number in (0, 1)]
    assert found == expected
    assert found[0] != found[1]
    assert tokens(port, prompt) == found[0]  # the first folder's, where none is named


@slow
@peft
def test_adapters_do_not_mix_when_they_are_asked_at_once(port: int) -> None:
    chosen = [{"lora": [{"id": number % 2, "scale": 1.0}]} for number in range(8)]
    alone = [tokens(port, [1, *range(5, 30)], **one) for one in chosen]
    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(lambda one: tokens(port, [1, *range(5, 30)], **one), chosen)) == alone


@slow
@peft
def test_openais_client_chooses_with_an_extra_key(port: int) -> None:
    from openai import OpenAI

    ask: dict[str, Any] = {"model": "any", "messages": [{"role": "user", "content": TEXTS[1]}], "max_tokens": 24}
    with OpenAI(base_url=f"http://127.0.0.1:{port}/v1", api_key="none", max_retries=0) as client:
        first, second = (
            client.chat.completions.create(**ask, extra_body={"lora": [{"id": number, "scale": 1.0}]})
            for number in (0, 1)
        )
        plain = client.chat.completions.create(**ask)
    assert first.choices[0].message.content == plain.choices[0].message.content
    assert first.choices[0].message.content != second.choices[0].message.content
