"""The adapter alone as a GGUF, by llama.cpp's own converter: several of them share one base while it serves."""

import json
import math
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from peft import LoraConfig, PeftConfig

from tuneline.config.schema import ModelConfig
from tuneline.entry import mortal
from tuneline.errors import ModelError
from tuneline.export.checkpoint import Checkpoint, check_tensors
from tuneline.export.header import read_header
from tuneline.export.llama_cpp import ADAPTER_SCRIPT, last_line, of_runtime
from tuneline.export.room import check_room, converted_bytes
from tuneline.model.adapters import CONFIG, WEIGHTS, check_adapter_fits
from tuneline.model.loading import is_adapter, load_config
from tuneline.model.sources import require_folder
from tuneline.output import atomic_file, scratch_folder

INSTEAD = "ship the merged model (export.lora_base: null)"


def convert_adapter(folder: Path, base: ModelConfig, out: Path, *, converter: Path) -> int:
    """Write the LoRA in `folder` as `out`, its matrices in fp32: rounding them would save little.

    Returns the number of matrices. Raises `EnvironmentProblem` without the converter or room on the disk; `ModelError`
    for an adapter of another base, or one that llama.cpp cannot put onto a model as PEFT does.
    """
    script = of_runtime(converter, ADAPTER_SCRIPT)
    config, names = checked_adapter(folder, base)
    check_room(out, converted_bytes(folder, "f32"))
    with scratch_folder(out) as scratch, atomic_file(out) as temporary:
        _write_inputs(folder, config, base, scratch)
        _run(script, folder, scratch, temporary)
        _check_written(folder, temporary, len(names), gguf_alpha(config))
    return len(names)


def checked_adapter(folder: Path, base: ModelConfig) -> tuple[LoraConfig, list[str]]:
    """The adapter's config and the names of its tensors; `ModelError` unless it is nothing but A and B matrices."""
    require_folder(folder)
    if not is_adapter(folder):
        raise ModelError(f"{folder}: a whole model, no adapter that could be shipped alone; {INSTEAD}")
    check_adapter_fits(folder, base)
    config = PeftConfig.from_pretrained(str(folder))
    if not isinstance(config, LoraConfig):
        raise ModelError(f"{folder / CONFIG}: a {config.peft_type} adapter, llama.cpp takes LoRA; {INSTEAD}")
    check_tensors(folder)
    names = list(Checkpoint(folder).file_of)
    if reason := next(_not_plain(config, names), None):
        raise ModelError(f"{folder / CONFIG}: {reason}; {INSTEAD}")
    return config, names


def _not_plain(config: LoraConfig, names: list[str]) -> Iterator[str]:
    """What the converter stops at, or worse, leaves out without a word (patterns of ranks and alphas)."""
    if config.use_dora:
        yield "a DoRA adapter, and llama.cpp knows no learned norms"
    if config.bias != "none":
        yield f"bias '{config.bias}' is trained, and llama.cpp's adapters hold no biases"
    if config.modules_to_save or config.trainable_token_indices:
        yield "whole modules or token embeddings are trained beside the LoRA, and llama.cpp's adapters hold none"
    if config.rank_pattern or config.alpha_pattern:
        yield "scales differ by layer (rank_pattern, alpha_pattern), and llama.cpp's adapters have one alpha for all"
    for name in names:
        if not name.endswith((".lora_A.weight", ".lora_B.weight")) or "embed_tokens" in name or "lm_head" in name:
            yield f"it holds {name}, and what is taken are matrices A and B of layers other than the embeddings"


def gguf_alpha(config: LoraConfig) -> float:
    """The alpha that makes llama.cpp's scale, alpha / r, the adapter's own.

    rsLoRA scales by alpha / sqrt(r) (arXiv:2312.03732), which the converter does not look at: (alpha sqrt(r)) / r.
    """
    return config.lora_alpha * math.sqrt(config.r) if config.use_rslora else float(config.lora_alpha)


def _write_inputs(folder: Path, config: LoraConfig, base: ModelConfig, scratch: Path) -> None:
    """What the converter reads: a PEFT folder `adapter` with the alpha that it should write, and `base`'s config."""
    (scratch / "adapter").mkdir()
    (scratch / "adapter" / WEIGHTS).symlink_to((folder / WEIGHTS).absolute())
    stated = json.loads((folder / CONFIG).read_text(encoding="utf-8")) | {"lora_alpha": gguf_alpha(config)}
    (scratch / "adapter" / CONFIG).write_text(json.dumps(stated), encoding="utf-8")
    load_config(base).save_pretrained(scratch / "base")


def _run(script: Path, folder: Path, scratch: Path, out: Path) -> None:
    arguments = [str(scratch / "adapter"), "--base", str(scratch / "base"), "--outfile", str(out), "--outtype", "f32"]
    child = subprocess.run(  # noqa: S603  (llama.cpp's own script; every argument is a path or fixed)
        mortal([sys.executable, str(script), *arguments]),
        env={**os.environ, "HF_HUB_OFFLINE": "1", "TQDM_DISABLE": "1"}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    if child.returncode != 0 or not out.is_file():
        raise ModelError(f"{folder}: llama.cpp's converter refuses the adapter: {last_line(child.stderr)}; {INSTEAD}")


def _check_written(folder: Path, gguf: Path, n_matrices: int, alpha: float) -> None:
    """The file says what it has to: an adapter, with this alpha, and no matrix was left out."""
    header = read_header(gguf)
    stated = header.metadata.get("adapter.lora.alpha")
    if header.metadata.get("general.type") != "adapter" or not _is_close(stated, alpha):
        raise ModelError(f"{folder}: its GGUF states alpha {stated} instead of {alpha:g}; run `make setup`")
    if len(header.tensors) < n_matrices:
        raise ModelError(
            f"{folder}: {len(header.tensors)} of {n_matrices} matrices are in its GGUF: llama.cpp's converter leaves "
            f"the others out for this architecture; {INSTEAD}"
        )


def _is_close(stated: object, alpha: float) -> bool:
    """Up to the rounding of the file's 32 bits."""
    return isinstance(stated, float) and math.isclose(stated, alpha, rel_tol=1e-6)
