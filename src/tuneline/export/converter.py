"""Run llama.cpp's own converter, unpacked beside the environment, in a process of its own.

`python -m tuneline.export.converter SOURCE MODEL OUT OUTTYPE NAME`. It imports llama.cpp's Python code, which must
not meet that of the calling process. Four things are added to it: a checked answer for tokenizers that its table does
not know, the added tokens where Transformers now keeps them, explicit BOS and EOS flags, and a chat template that other
engines than Transformers can parse. Standard output is one JSON object.
"""

import json
import logging
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tuneline.entry import end_with_parent
from tuneline.errors import TunelineError
from tuneline.export.chat_template import portable
from tuneline.export.pretokenizer import pre_tokenizer_type
from tuneline.shortage import shortage

Template = str | list[dict[str, str]] | None
Vocabulary = tuple[list[bytes], list[float], list[int]]  # texts, scores and types of all tokens, by id


def main() -> None:
    end_with_parent(signal.SIGKILL)
    source, model, out, outtype, name = sys.argv[1:]
    logging.basicConfig(level=logging.ERROR)  # before the converter's own, which logs every tensor
    sys.path[:0] = [str(Path(source) / "gguf-py"), source]
    answer: dict[str, str] = {}
    _teach_pre_tokenizers(Path(model), answer)
    _teach_added_tokens(Path(model))
    _teach_phi4(Path(model))
    _teach_flags(Path(model))
    _teach_templates()
    sys.argv = ["convert_hf_to_gguf", model, "--outfile", out, "--outtype", outtype, "--model-name", name]
    import convert_hf_to_gguf  # type: ignore[import-not-found]  # on the path set above

    try:
        convert_hf_to_gguf.main()
    except (TunelineError, NotImplementedError) as error:
        answer = {"error": str(error)}
    except Exception as error:
        if (reason := shortage(error)) is None:
            raise
        answer = {"error": reason}
    print(json.dumps(answer))


def _teach_pre_tokenizers(model: Path, answer: dict[str, str]) -> None:
    """The converter's own table wins; only a tokenizer it does not know is looked at rule by rule."""
    from conversion import TextModel  # type: ignore[import-not-found]  # on the path set above

    known: Callable[[Any, Any], str] = TextModel.get_vocab_base_pre

    def get_vocab_base_pre(self: Any, tokenizer: Any) -> str:
        try:
            answer["pre_tokenizer"], answer["decided_by"] = known(self, tokenizer), "llama.cpp"
        except NotImplementedError:
            rules = json.loads((model / "tokenizer.json").read_text(encoding="utf-8"))
            answer["pre_tokenizer"], answer["decided_by"] = pre_tokenizer_type(rules), "tuneline"
        return answer["pre_tokenizer"]

    TextModel.get_vocab_base_pre = get_vocab_base_pre


def _teach_added_tokens(model: Path) -> None:
    """For SentencePiece the converter looks in tokenizer_config.json, where Transformers 5 no longer writes them."""
    from conversion import TextModel
    from gguf import TokenType  # type: ignore[import-not-found]  # on the path set above

    create: Callable[[Any], Vocabulary] = TextModel._create_vocab_sentencepiece

    def _create_vocab_sentencepiece(self: Any) -> Vocabulary:
        tokens, scores, types = create(self)
        for token in json.loads((model / "tokenizer.json").read_text(encoding="utf-8"))["added_tokens"]:
            place, text = token["id"], token["content"]
            if types[place] == TokenType.UNKNOWN:
                continue
            control = token["special"] or self.does_token_look_special(text)
            types[place] = TokenType.CONTROL if control else TokenType.USER_DEFINED
            # llama.cpp looks for tokens in text whose spaces are still spaces
            tokens[place], scores[place] = (text if control else text.replace("\u2581", " ")).encode("utf-8"), -1000.0
        return tokens, scores, types

    TextModel._create_vocab_sentencepiece = _create_vocab_sentencepiece


def _teach_phi4(model: Path) -> None:
    """Phi 4 has the architecture of Phi 3 but no SentencePiece; the class named in its files is now another."""
    from conversion.phi import Phi3MiniModel  # type: ignore[import-not-found]  # on the path set above

    if not (model / "tokenizer.model").is_file():
        Phi3MiniModel.set_vocab = Phi3MiniModel._set_vocab_gpt2


def _teach_flags(model: Path) -> None:
    """Say whether BOS and EOS are added: left open, llama.cpp's answer depends on the pre-tokenizer's type."""
    from gguf import SpecialVocab
    from transformers import AutoTokenizer

    load: Callable[[Any, Path], None] = SpecialVocab._load
    tokenizer = AutoTokenizer.from_pretrained(model, trust_remote_code=False)
    ids = tokenizer.encode("a")

    def _load(self: Any, path: Path) -> None:
        load(self, path)
        self.add_special_token.setdefault("bos", ids[0] == tokenizer.bos_token_id)
        self.add_special_token.setdefault("eos", ids[-1] == tokenizer.eos_token_id)

    SpecialVocab._load = _load


def _teach_templates() -> None:
    from gguf import GGUFWriter

    write: Callable[[Any, Template], None] = GGUFWriter.add_chat_template

    def add_chat_template(self: Any, value: Template) -> None:
        write(self, _portable(value))

    GGUFWriter.add_chat_template = add_chat_template


def _portable(value: Template) -> Template:
    match value:
        case str():
            return portable(value)
        case list():
            return [{**choice, "template": portable(choice["template"])} for choice in value]
        case None:
            return None


if __name__ == "__main__":
    main()
