"""The stages of models/base/dvc.yaml: `python -m tuneline.embedded.build tokenizer|corpus|train ...`."""

import argparse
import csv
import itertools
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml
from tokenizers import Tokenizer
from transformers import GenerationConfig, LlamaForCausalLM

from tuneline.embedded.corpus import documents
from tuneline.embedded.pretraining import Step, build_model, corpus_ids, pretrain
from tuneline.embedded.tokenizer import save_tokenizer, train_tokenizer
from tuneline.output import atomic_file, atomic_folder

Params = dict[str, Any]


def build_tokenizer(params: Params, args: argparse.Namespace) -> None:
    texts = itertools.islice(
        documents(params["seed"], annotated_weight=0, uncommon_table_fraction=0.0), params["tokenizer"]["n_documents"]
    )
    tokenizer = train_tokenizer(texts, params["tokenizer"]["vocab_size"])
    with atomic_folder(args.out) as folder:
        save_tokenizer(tokenizer, folder, params["shape"]["max_position_embeddings"])


def build_corpus(params: Params, args: argparse.Namespace) -> None:
    tokenizer = Tokenizer.from_file(str(args.tokenizer / "tokenizer.json"))
    part = params[args.part]
    mixture = part["annotated_weight"], part["uncommon_table_fraction"]
    stream = corpus_ids(tokenizer, part["corpus_seed"], part["n_tokens"], *mixture)
    with atomic_file(args.out) as temporary, temporary.open("wb") as file:
        np.save(file, stream, allow_pickle=False)


def build_base(params: Params, args: argparse.Namespace) -> None:
    tokenizer = Tokenizer.from_file(str(args.tokenizer / "tokenizer.json"))
    model = build_model(params["shape"], tokenizer, params["seed"])
    if args.init:
        model = LlamaForCausalLM.from_pretrained(args.init, dtype=torch.float32)
    settings = dict(params[args.part]["training"])
    every = settings.pop("log_every_steps")
    steps = list(_reported(pretrain(model, np.load(args.corpus, allow_pickle=False), **settings), every))
    with atomic_folder(args.out) as folder:
        _save(model, args.tokenizer, folder)
    _write_curve(args.curve, steps)


def _save(model: LlamaForCausalLM, tokenizer_folder: Path, folder: Path) -> None:
    """Weights in bfloat16, tokenizer and stop tokens, as Transformers reads them."""
    model.bfloat16().save_pretrained(folder)
    (folder / "model.safetensors").chmod(0o644)  # safetensors makes it private; git and other users must read it
    stops = {"eos_token_id": model.config.eos_token_id, "pad_token_id": model.config.pad_token_id}
    GenerationConfig.from_dict(stops).save_pretrained(folder)
    for file in sorted(tokenizer_folder.iterdir()):
        (folder / file.name).write_bytes(file.read_bytes())


def _reported(steps: Iterator[Step], every: int) -> Iterator[Step]:
    """Average the steps over windows of `every` and print a line for each."""
    while window := list(itertools.islice(steps, every)):
        loss = sum(step.loss_nats for step in window) / len(window)
        print(f"step {window[-1].step}  loss {loss:.4f} nats/token", file=sys.stderr, flush=True)
        yield Step(window[-1].step, loss, window[-1].learning_rate_share)


def _write_curve(path: Path, steps: list[Step]) -> None:
    with atomic_file(path) as temporary, temporary.open("w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["step", "loss_nats", "learning_rate_share"])
        writer.writerows([s.step, f"{s.loss_nats:.6g}", f"{s.learning_rate_share:.6g}"] for s in steps)


STAGES: dict[str, Callable[[Params, argparse.Namespace], None]] = {
    "tokenizer": build_tokenizer,
    "corpus": build_corpus,
    "train": build_base,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("stage", choices=sorted(STAGES))
    parser.add_argument("--part", choices=("pretrain", "anneal"), help="section of the parameters: pretrain or anneal")
    for path in ("params", "tokenizer", "corpus", "init", "out", "curve"):
        parser.add_argument(f"--{path}", type=Path)
    args = parser.parse_args()
    STAGES[args.stage](yaml.safe_load(args.params.read_text(encoding="utf-8")), args)


if __name__ == "__main__":
    main()
