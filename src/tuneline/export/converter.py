"""Run llama.cpp's own converter, unpacked beside the environment, in a process of its own.

`python -m tuneline.export.converter SOURCE MODEL OUT OUTTYPE NAME`. It imports llama.cpp's Python code, which must
not meet that of the calling process. Three things are added to it: a checked answer for tokenizers that its table does
not know, explicit BOS and EOS flags, and a chat template that other engines than Transformers can parse. Standard
output is one JSON object.
"""

import json
import logging
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tuneline.errors import TunelineError
from tuneline.export.chat_template import portable
from tuneline.export.pretokenizer import pre_tokenizer_type

Template = str | list[dict[str, str]] | None


def main() -> None:
    source, model, out, outtype, name = sys.argv[1:]
    logging.basicConfig(level=logging.ERROR)  # before the converter's own, which logs every tensor
    sys.path[:0] = [str(Path(source) / "gguf-py"), source]
    answer: dict[str, str] = {}
    _teach_pre_tokenizers(Path(model), answer)
    _teach_flags(Path(model))
    _teach_templates()
    sys.argv = ["convert_hf_to_gguf", model, "--outfile", out, "--outtype", outtype, "--model-name", name]
    import convert_hf_to_gguf  # type: ignore[import-not-found]  # on the path set above

    try:
        convert_hf_to_gguf.main()
    except (TunelineError, NotImplementedError) as error:
        answer = {"error": str(error)}
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


def _teach_flags(model: Path) -> None:
    """Say whether BOS and EOS are added: left open, llama.cpp's answer depends on the pre-tokenizer's type."""
    from gguf import SpecialVocab  # type: ignore[import-not-found]  # on the path set above
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
