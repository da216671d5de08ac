"""Conversion: the file reads text exactly as the model did, or does not come to be."""

import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tests.export.conftest import PEFT_WARNING, TEMPLATE, convert_folder, save_model, save_tokenizer
from tuneline.errors import EnvironmentProblem, ModelError
from tuneline.export.pretokenizer import LLAMA3_SPLIT, QWEN2_SPLIT

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings(PEFT_WARNING)]


def retokenize(folder: Path, pre_tokenizer: Any, *, ignore_merges: bool = False) -> None:
    """Give the model in `folder` another tokenizer of the same size."""
    from tokenizers import AddedToken, Tokenizer, decoders, models, trainers
    from transformers import PreTrainedTokenizerFast

    from tests.export.conftest import TEXTS

    raw = Tokenizer(models.BPE(ignore_merges=ignore_merges))
    raw.pre_tokenizer, raw.decoder = pre_tokenizer, decoders.ByteLevel()
    from tokenizers.pre_tokenizers import ByteLevel

    trainer = trainers.BpeTrainer(vocab_size=509, initial_alphabet=sorted(ByteLevel.alphabet()), show_progress=False)
    raw.train_from_iterator([text.swapcase() for text in TEXTS], trainer)
    raw.add_special_tokens([AddedToken(t, special=True) for t in ("<|pad|>", "<|im_start|>", "<|im_end|>")])
    tokenizer = PreTrainedTokenizerFast(  # type: ignore[no-untyped-call]  # Transformers leaves it untyped
        tokenizer_object=raw, eos_token="<|im_end|>", pad_token="<|pad|>"
    )
    tokenizer.chat_template = TEMPLATE
    tokenizer.save_pretrained(folder)


def test_file_holds_the_template_without_the_tags_only_transformers_knows(f16: Path) -> None:
    from tuneline.export.gguf import chat_template

    template = chat_template(f16)
    assert "generation %}" not in template
    assert "add_generation_prompt" in template


def test_converting_twice_gives_the_same_bytes(merged: Path, f16: Path, tmp_path: Path) -> None:
    assert convert_folder(merged, tmp_path / "again.gguf").read_bytes() == f16.read_bytes()


def test_header_reads_what_llama_cpps_own_reader_reads(f16: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from tuneline.export.header import read_header
    from tuneline.export.llama_cpp import llama_cpp_folder

    monkeypatch.syspath_prepend(str(llama_cpp_folder() / "gguf-py"))
    from gguf import GGUFReader  # type: ignore[import-not-found]  # llama.cpp's Python code, unpacked by setup

    theirs, ours = GGUFReader(f16), read_header(f16)
    assert {t.name: (t.shape, t.type) for t in ours.tensors} == {
        t.name: (tuple(int(n) for n in t.shape), t.tensor_type.name) for t in theirs.tensors
    }
    keys = [key for key in theirs.fields if not key.startswith("GGUF.")]
    assert {key: ours.metadata[key] for key in keys} == {key: theirs.fields[key].contents() for key in keys}


def split_of(name: str) -> Any:
    from tokenizers import Regex
    from tokenizers.pre_tokenizers import ByteLevel, Digits, Sequence, Split

    match name:
        case "gpt-2":
            return ByteLevel(add_prefix_space=False)
        case "smollm":
            return Sequence([Digits(individual_digits=True), ByteLevel(add_prefix_space=False)])
    pattern = {"qwen2": QWEN2_SPLIT, "llama-bpe": LLAMA3_SPLIT, "smaug-bpe": LLAMA3_SPLIT}[name]
    bytes_only = ByteLevel(add_prefix_space=False, use_regex=False)
    return Sequence([Split(Regex(pattern), "isolated"), bytes_only])


@pytest.mark.parametrize("name", ["smollm", "qwen2", "llama-bpe", "smaug-bpe"])
def test_every_pre_tokenizer_of_the_table_gives_identical_ids(name: str, tmp_path: Path) -> None:
    from tuneline.export.header import read_header

    save_model(tmp_path / "model", 0, tied=True)
    retokenize(tmp_path / "model", split_of(name), ignore_merges=name == "llama-bpe")
    out = convert_folder(tmp_path / "model", tmp_path / "out.gguf")  # compares 10,000 strings
    assert read_header(out).metadata["tokenizer.ggml.pre"] == name


def test_pre_tokenizer_llama_cpp_does_not_have_is_refused_and_nothing_is_written(tmp_path: Path) -> None:
    from tokenizers.pre_tokenizers import ByteLevel, Punctuation, Sequence

    save_model(tmp_path / "model", 0, tied=True)
    retokenize(tmp_path / "model", Sequence([Punctuation(), ByteLevel(add_prefix_space=False)]))
    with pytest.raises(ModelError, match=r"converter refuses it: tokenizer.json: pre_tokenizer .*Punctuation"):
        convert_folder(tmp_path / "model", tmp_path / "out.gguf")
    assert not list(tmp_path.glob("*out.gguf*"))


def test_wrong_pre_tokenizer_type_is_caught_by_the_ids(merged: Path, f16: Path, tmp_path: Path) -> None:
    """The same file, but said to split digits one by one."""
    from tuneline.export.gguf import check_tokenizer
    from tuneline.model.tokenizers import load_tokenizer_from

    name, wrong = b"\x05\0\0\0\0\0\0\0gpt-2", b"\x05\0\0\0\0\0\0\0qwen2"
    data = f16.read_bytes()
    assert data.count(name) == 1
    (tmp_path / "wrong.gguf").write_bytes(data.replace(name, wrong))
    with pytest.raises(ModelError, match="the tokenizers disagree on"):
        check_tokenizer("link", tmp_path / "wrong.gguf", load_tokenizer_from(merged))


def test_foreign_tokenizer_is_caught(f16: Path, tmp_path: Path) -> None:
    from tuneline.export.gguf import check_tokenizer
    from tuneline.model.tokenizers import load_tokenizer_from

    retokenize(tmp_path, split_of("gpt-2"))
    with pytest.raises(ModelError, match=r"link: .*GGUF"):
        check_tokenizer("link", f16, load_tokenizer_from(tmp_path))


def test_another_chat_template_is_caught(f16: Path, tokenizer: "PreTrainedTokenizerBase") -> None:
    from tuneline.export.gguf import check_tokenizer
    from tuneline.model.tokenizers import load_tokenizer_from

    changed = load_tokenizer_from(Path(tokenizer.name_or_path))
    changed.chat_template = TEMPLATE.replace("assistant", "model")
    with pytest.raises(ModelError, match="another chat template"):
        check_tokenizer("link", f16, changed)


@pytest.mark.parametrize(
    ("token", "match"),
    [
        ("pad_token", r"link: pad is 0 in the GGUF, 1 in the model's tokenizer"),
        ("eos_token", r"link: '<\|im_start\|>' does not end an answer in the GGUF \(EOS 2\)"),
    ],
)
def test_another_pad_or_eos_than_in_the_file_is_caught(
    token: str, match: str, f16: Path, tokenizer: "PreTrainedTokenizerBase"
) -> None:
    from tuneline.export.gguf import check_tokenizer
    from tuneline.model.tokenizers import load_tokenizer_from

    changed = load_tokenizer_from(Path(tokenizer.name_or_path))
    setattr(changed, token, "<|im_start|>")
    with pytest.raises(ModelError, match=match):
        check_tokenizer("link", f16, changed)


def test_missing_converter_says_make_setup(merged: Path, tokenizer: "PreTrainedTokenizerBase", tmp_path: Path) -> None:
    from tuneline.export.gguf import convert

    with pytest.raises(EnvironmentProblem, match="make setup"):
        convert(merged, tokenizer, tmp_path / "x.gguf", outtype="f16", name="x", converter=tmp_path)


def test_converter_of_another_release_is_refused(
    merged: Path, tokenizer: "PreTrainedTokenizerBase", tmp_path: Path
) -> None:
    from tuneline.export.gguf import convert

    (tmp_path / "convert_hf_to_gguf.py").touch()
    (tmp_path / "VERSION").write_text("0.0.1\n")
    with pytest.raises(EnvironmentProblem, match=r"llama-cpp-python 0\.0\.1, installed is .*make setup"):
        convert(merged, tokenizer, tmp_path / "x.gguf", outtype="f16", name="x", converter=tmp_path)


def test_unsupported_architecture_is_one_line(merged: Path, tmp_path: Path) -> None:
    shutil.copytree(merged, tmp_path / "model")
    config = (tmp_path / "model/config.json").read_text().replace("LlamaForCausalLM", "NoSuchForCausalLM")
    (tmp_path / "model/config.json").write_text(config)
    with pytest.raises(ModelError, match=r"refuses it: .*NoSuchForCausalLM") as caught:
        convert_folder(tmp_path / "model", tmp_path / "x.gguf")
    assert "\n" not in str(caught.value)


def test_model_with_bos_keeps_it(tmp_path: Path) -> None:
    from tokenizers.processors import TemplateProcessing

    from tuneline.export.runtime import open_vocabulary
    from tuneline.model.tokenizers import load_tokenizer_from

    save_model(tmp_path / "model", 0, tied=False)
    save_tokenizer(tmp_path / "model")
    tokenizer = load_tokenizer_from(tmp_path / "model")
    tokenizer.backend_tokenizer.post_processor = TemplateProcessing(
        single="<|im_start|> $A", pair="<|im_start|> $A $B", special_tokens=[("<|im_start|>", 1)]
    )
    tokenizer.bos_token = "<|im_start|>"
    tokenizer.save_pretrained(tmp_path / "model")
    out = convert_folder(tmp_path / "model", tmp_path / "x.gguf")
    with open_vocabulary(out) as vocabulary:
        assert vocabulary.bos_id == 1
        assert vocabulary.encode("a", add_special=True)[0] == 1


def test_vocabulary_of_a_multimodal_model_is_that_of_its_text_section(tmp_path: Path) -> None:
    """A Gemma 3 that sees pictures, as Transformers saves its configuration."""
    import json

    from transformers import Gemma3Config

    from tuneline.export.gguf import _check_every_token_has_a_row
    from tuneline.model.tokenizers import load_tokenizer_from

    save_tokenizer(tmp_path)
    tokenizer = load_tokenizer_from(tmp_path)
    Gemma3Config(text_config={"vocab_size": len(tokenizer)}).save_pretrained(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    assert "vocab_size" not in config
    _check_every_token_has_a_row(tmp_path, tokenizer, config)
    config["text_config"]["vocab_size"] -= 1
    with pytest.raises(ModelError, match="was added without a row"):
        _check_every_token_has_a_row(tmp_path, tokenizer, config)


def test_configuration_without_a_vocabulary_is_one_line(merged: Path, tmp_path: Path) -> None:
    import json

    shutil.copytree(merged, tmp_path / "model")
    config = json.loads((merged / "config.json").read_text())
    del config["vocab_size"]
    (tmp_path / "model/config.json").write_text(json.dumps(config))
    with pytest.raises(ModelError, match=r"config\.json: it has no vocab_size"):
        convert_folder(tmp_path / "model", tmp_path / "x.gguf")
