"""Convert a Hugging Face folder to GGUF with llama.cpp's own converter, and check that nothing was lost on the way."""

import json
import os
import subprocess
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from transformers import PreTrainedTokenizerBase

from tuneline.config.schema import OutType
from tuneline.errors import ModelError
from tuneline.export import converter as converter_module
from tuneline.export.chat_template import portable
from tuneline.export.checkpoint import refuse_pickles
from tuneline.export.header import read_header
from tuneline.export.llama_cpp import MODEL_SCRIPT, last_line, of_runtime
from tuneline.export.room import check_room, converted_bytes
from tuneline.export.runtime import Vocabulary, check_weights, open_vocabulary
from tuneline.export.tokens import GGUF_SIDES, N_VARIED_TEXTS, check_same_ids, varied_texts
from tuneline.output import atomic_file


def convert(
    merged: Path,
    tokenizer: PreTrainedTokenizerBase,
    out: Path,
    *,
    outtype: OutType,
    name: str,
    converter: Path,
) -> int:
    """Write the model in folder `merged` as `out`; `name` is what llama.cpp and Ollama show for it.

    Returns the number of strings on which `tokenizer` and that of the file agree. Raises `EnvironmentProblem` when
    the converter is missing or of another release than the installed llama-cpp-python; `ModelError` with the reason
    when the converter refuses the model or the tokenizer did not survive.
    """
    of_runtime(converter, MODEL_SCRIPT)
    refuse_pickles(merged)  # the converter would read them
    config = json.loads((merged / "config.json").read_text(encoding="utf-8"))
    _check_every_token_has_a_row(merged, tokenizer, config)
    check_room(out, converted_bytes(merged, outtype))
    with atomic_file(out) as temporary:
        _run_converter(converter, merged, temporary, outtype, name)
        _check_output_matrix(merged, temporary, config)
        check_weights(temporary)
        return check_tokenizer(f"convert ({merged} -> {out})", temporary, tokenizer)


def _check_every_token_has_a_row(merged: Path, tokenizer: PreTrainedTokenizerBase, config: Mapping[str, Any]) -> None:
    n_rows = _text_config(config).get("vocab_size")
    if not isinstance(n_rows, int):
        raise ModelError(f"{merged / 'config.json'}: it has no vocab_size; save the model again with save_pretrained")
    beyond = sorted(token for token, place in tokenizer.get_vocab().items() if place >= n_rows)
    if beyond:
        raise ModelError(
            f"{merged}: its tokenizer has {len(tokenizer)} tokens, its embeddings {n_rows} rows: {beyond[0]!r} was "
            "added without a row; take the tokenizer that the model was trained with"
        )


def _text_config(config: Mapping[str, Any]) -> Mapping[str, Any]:
    """A model that reads pictures too has the settings of its language model in a section of their own."""
    found: Mapping[str, Any] = config.get("text_config", config)
    return found


def _check_output_matrix(merged: Path, gguf: Path, config: Mapping[str, Any]) -> None:
    """Without one, llama.cpp takes the embeddings in its place and says nothing."""
    tied = config.get("tie_word_embeddings", True)
    if not tied and all(tensor.name != "output.weight" for tensor in read_header(gguf).tensors):
        raise ModelError(
            f"{merged}: config.json says that the embeddings are not tied (tie_word_embeddings), but there is no "
            "lm_head.weight; merge again"
        )


def _run_converter(converter: Path, merged: Path, out: Path, outtype: OutType, name: str) -> None:
    arguments = [str(converter), str(merged), str(out), outtype, name]
    # the child must find the very package that runs here, which may come from a copy of the repository
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "HF_HUB_OFFLINE": "1"}
    environment["TQDM_DISABLE"] = "1"  # a bar would be the last line of what it says
    child = subprocess.run(  # noqa: S603  (our own module; every argument is a path or a validated name)
        [sys.executable, "-m", converter_module.__name__, *arguments],
        env=environment, capture_output=True, text=True, check=False,
    )  # fmt: skip
    reason = _reason(child.stdout, child.stderr) if child.returncode == 0 else last_line(child.stderr)
    if reason is not None:
        raise ModelError(f"{merged}: llama.cpp's converter refuses it: {reason}")


def _reason(stdout: str, stderr: str) -> str | None:
    """Why the converter gave up although it ended in order; None when it did not."""
    answer: dict[str, str] = json.loads(stdout.splitlines()[-1]) if stdout else {"error": last_line(stderr)}
    return answer.get("error")


def check_tokenizer(link: str, gguf: Path, tokenizer: PreTrainedTokenizerBase) -> int:
    """Compare the tokenizer inside `gguf` with `tokenizer`: ids on varied strings, BOS, EOS, pad, chat template.

    Returns the number of strings compared. Raises `ModelError` naming `link` and the first difference.
    """
    with open_vocabulary(gguf) as vocabulary:
        _check_special_tokens(link, tokenizer, vocabulary)
        _check_chat_template(link, chat_template(gguf), tokenizer)
        _check_pad(link, gguf, tokenizer)
        return check_same_ids(
            link,
            GGUF_SIDES,
            varied_texts(N_VARIED_TEXTS, _as_written(tokenizer.get_added_vocab())),
            lambda text: tokenizer.encode(text, add_special_tokens=False),
            lambda text: vocabulary.encode(text, add_special=False),
        )


def _as_written(tokens: Iterable[str]) -> list[str]:
    """SentencePiece writes a space as U+2581, so it cannot tell the two apart in text either."""
    return sorted({token.replace("\u2581", " ") for token in tokens})


def chat_template(gguf: Path) -> str:
    """The template that llama.cpp's server renders conversations with."""
    match read_header(gguf).metadata:
        case {"tokenizer.chat_template": str() as template}:
            return template
    raise ModelError(f"{gguf}: it holds no chat template; convert it again from a model whose tokenizer has one")


def _check_special_tokens(link: str, tokenizer: PreTrainedTokenizerBase, vocabulary: Vocabulary) -> None:
    probe = "a b"
    want, got = tokenizer.encode(probe), vocabulary.encode(probe, add_special=True)
    if want != got:
        raise ModelError(f"{link}: {probe!r} is {got} with the GGUF's BOS/EOS flags, {want} in the model's tokenizer")
    if tokenizer.bos_token_id is not None and tokenizer.bos_token_id != vocabulary.bos_id:
        raise ModelError(f"{link}: BOS is {vocabulary.bos_id} in the GGUF, {tokenizer.bos_token_id} in the model's")
    if not vocabulary.ends_generation(tokenizer.eos_token_id):
        raise ModelError(
            f"{link}: {tokenizer.eos_token!r} does not end an answer in the GGUF (EOS {vocabulary.eos_id})"
        )


def _check_pad(link: str, gguf: Path, tokenizer: PreTrainedTokenizerBase) -> None:
    """A file that names none is not refused: llama.cpp takes no other token for it."""
    found = read_header(gguf).metadata.get("tokenizer.ggml.padding_token_id", tokenizer.pad_token_id)
    if found != tokenizer.pad_token_id:
        raise ModelError(f"{link}: pad is {found} in the GGUF, {tokenizer.pad_token_id} in the model's tokenizer")


def _check_chat_template(link: str, found: str, tokenizer: PreTrainedTokenizerBase) -> None:
    if found != portable(str(tokenizer.chat_template)):
        raise ModelError(f"{link}: the GGUF holds another chat template than the model's tokenizer; convert it again")
