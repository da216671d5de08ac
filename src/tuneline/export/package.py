"""The folder to deploy: one GGUF with what runs it, what explains it and where it comes from."""

import shutil
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from transformers import PreTrainedTokenizerBase

from tuneline.config.schema import GgufType
from tuneline.export.budget import lora_link
from tuneline.export.card import Reports, card
from tuneline.export.chain import read_figures
from tuneline.export.experiment import Experiment
from tuneline.export.golden import modelfile_family
from tuneline.export.modelfile import modelfile
from tuneline.export.provenance import check_pinned, provenance
from tuneline.export.quantize import check_file_type
from tuneline.export.room import check_room, folder_bytes
from tuneline.model.tokenizers import load_tokenizer_from
from tuneline.output import write_text
from tuneline.serving.integrity import LORA_ADAPTER, LORA_BASE, RECORD

TOKENIZER_FOLDER, VLLM_FOLDER = "tokenizer", "vllm"
# what `save_pretrained` of a tokenizer writes, of whatever kind it is
TOKENIZER_FILES = (
    "added_tokens.json",
    "chat_template.jinja",
    "merges.txt",
    "special_tokens_map.json",
    "tokenizer.json",
    "tokenizer.model",
    "tokenizer_config.json",
    "vocab.json",
)


@dataclass(frozen=True, slots=True)
class Inputs:
    """What provenance.json holds the hashes of: files, or folders file by file."""

    raw: Path
    data: Path
    base: Path
    adapter: Path  # what was merged: the final phase, or what was combined
    merged: Path
    sources: Path | None = None  # the folder of what was combined with the final phase


def read_reports(
    ingest: Path,
    clean: Path,
    split: Path,
    train: Path,
    evaluated: Path,
    merge: Path,
    merged: Path,
    verified: Path,
    types: Sequence[GgufType],
    lora_base: GgufType | None = None,
    taught: Sequence[Path] = (),
) -> Reports:
    """Every report the card quotes; `verified` is the folder with one file per type, and one for `lora_base`.

    `taught` are those of the stages that ask a teacher and clean what it wrote.
    """
    return Reports(
        ingest=read_figures(ingest),
        clean=read_figures(clean),
        split=read_figures(split),
        train=read_figures(train),
        evaluated=read_figures(evaluated),
        merge=read_figures(merge),
        merged=read_figures(merged),
        verified={gguf_type: read_figures(verified / f"{gguf_type}.json") for gguf_type in types},
        taught={path.stem: read_figures(path) for path in taught},
        lora=None if lora_base is None else read_figures(verified / f"{lora_link(lora_base)}.json"),
    )


def package(it: Experiment, reports: Reports, gguf: Path, inputs: Inputs, out: Path) -> None:
    """Fill the empty folder `out`. With export.lora_base, base and adapter lie beside `gguf`, as dvc.yaml has it.

    Raises `ConfigError` when anything is unpinned, `ModelError` for a wrong file.
    """
    check_pinned(it.model, it.data)
    check_file_type(gguf, it.shipped)
    check_room(out / it.gguf_name, _needed_bytes(it, gguf, inputs.merged))
    tokenizer = load_tokenizer_from(inputs.merged)
    # a copy, not a link: whoever changes the deployed file must not change DVC's
    shutil.copyfile(gguf, out / it.gguf_name)
    prompt = it.data.system_prompt
    write_text(out / "Modelfile", ollama_modelfile(tokenizer, it.gguf_name, it.export.n_ctx, prompt))
    write_text(out / "README.md", card(it, reports))
    _copy_model(inputs.merged, out, with_weights=it.export.vllm)
    used = {name: path for name, path in asdict(inputs).items() if path is not None} | {"gguf": gguf}
    if it.export.lora_base is not None:
        used |= _copy_lora(gguf.parent, it.export.lora_base, out)
    licences = {"base": it.model.licence, "data": it.data.licence}
    write_text(out / RECORD, provenance(it.settings(), it.commit, used, out, licences, asdict(reports)))


def _needed_bytes(it: Experiment, gguf: Path, merged: Path) -> int:
    files = [gguf, *([] if it.export.lora_base is None else _lora_files(gguf.parent, it.export.lora_base))]
    return sum(file.stat().st_size for file in files) + (folder_bytes(merged) if it.export.vllm else 0)


def _lora_files(folder: Path, base_type: GgufType) -> tuple[Path, Path]:
    """Base and adapter."""
    return folder / "base" / f"{base_type}.gguf", folder / "adapter.gguf"


def _copy_lora(folder: Path, base_type: GgufType, out: Path) -> dict[str, Path]:
    """Base and adapter in files of their own; what they were copied from, by name."""
    base, adapter = _lora_files(folder, base_type)
    check_file_type(base, base_type)
    (out / LORA_BASE).parent.mkdir()
    shutil.copyfile(base, out / LORA_BASE)
    shutil.copyfile(adapter, out / LORA_ADAPTER)
    return {"lora_base": base, "lora_adapter": adapter}


def _copy_model(merged: Path, out: Path, *, with_weights: bool) -> None:
    """The tokenizer, for clients that count tokens; with weights the whole folder, as vLLM and TGI load it."""
    if with_weights:
        shutil.copytree(merged, out / VLLM_FOLDER)
        return
    (out / TOKENIZER_FOLDER).mkdir()
    for name in TOKENIZER_FILES:
        if (merged / name).is_file():
            shutil.copyfile(merged / name, out / TOKENIZER_FOLDER / name)


def ollama_modelfile(tokenizer: PreTrainedTokenizerBase, gguf_name: str, n_ctx: int, system_prompt: str | None) -> str:
    """The Modelfile for a model with this tokenizer and chat template."""
    match = modelfile_family(tokenizer)
    return modelfile(gguf_name, match, str(tokenizer.eos_token), n_ctx, system_prompt)
