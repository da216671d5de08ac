"""What exact resumption costs: seconds of fingerprint, lock, bounds and manifests beside those of training."""

import shutil
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from tuneline.config.schema import Params
from tuneline.errors import ConfigError
from tuneline.model.methods import initial_model
from tuneline.model.tokenizers import load_tokenizer
from tuneline.training import checkpoints as keeping
from tuneline.training.loop import train
from tuneline.training.tokens import read_tokens

N_STEPS = 2  # of a training whose checkpoint is as large as that of a long one


@dataclass(frozen=True, slots=True)
class KeepingCost:
    """Median seconds of each part, and what a checkpoint weighs."""

    once_seconds: float  # at the start and the end: fingerprint, lock, bounds, the search for a whole checkpoint
    seal_seconds: float  # for each checkpoint: all its bytes onto the disk, hashed, and the manifest
    checkpoint_bytes: int

    def share(self, n_minutes: int) -> float:
        """Of the time of a training that long with one checkpoint a minute."""
        return (self.once_seconds + n_minutes * self.seal_seconds) / (60 * n_minutes)


def measure(params: Params, phase_name: str, tokens: Path, n_repeats: int) -> KeepingCost:
    """Train a few steps to a real checkpoint, then repeat on it what a training does beside training.

    Raises `ConfigError` for a phase that the recipe does not have.
    """
    if phase_name not in params.recipe.phases:
        raise ConfigError(
            f"--phase: '{phase_name}' is not in the recipe; choose from {', '.join(params.recipe.phases)}"
        )
    with tempfile.TemporaryDirectory(prefix="tuneline-") as folder:
        made = _checkpoint(params, phase_name, tokens, Path(folder) / "made")
        sealing = [_seal_seconds(made, Path(folder) / "fresh") for _ in range(n_repeats)]
        once = [_once_seconds(params, tokens, made, Path(folder) / "kept") for _ in range(n_repeats)]
        return KeepingCost(median(once), median(sealing), keeping.size_bytes(made))


def _checkpoint(params: Params, phase_name: str, tokens: Path, folder: Path) -> Path:
    phase = params.recipe.phases[phase_name].model_copy(update={"max_steps": N_STEPS})
    settings = params.train.model_copy(update={"early_stopping_patience": None, "save_steps": N_STEPS})
    model = initial_model(
        Path(params.model.tracked_path), params.model, params.method, params.lora, params.quantization,
        params.hardware, params.seed,
    )  # fmt: skip
    rows, tokenizer = read_tokens(tokens / "train.parquet"), load_tokenizer(params.model)
    train(model, tokenizer, rows, [], phase, settings, params.hardware, params.seed, [], folder)
    made, _ = keeping.newest_whole(folder)
    assert made is not None
    return made


def _seal_seconds(made: Path, fresh: Path) -> float:
    """Of a copy whose bytes are not on the disk yet, as those that a trainer has just written."""
    shutil.copytree(made, fresh, ignore=shutil.ignore_patterns(keeping.MANIFEST))
    seconds = _seconds(lambda: keeping.seal(fresh))
    shutil.rmtree(fresh)
    return seconds


def _once_seconds(params: Params, tokens: Path, made: Path, top: Path) -> float:
    """The train stage's own steps, in its order; it finds as many checkpoints as are kept."""
    for number in range(params.train.save_total_limit):
        shutil.copytree(made, top / "0" / f"checkpoint-{number}")

    def steps() -> None:
        keeping.fingerprint([params.model_dump(mode="json")], [tokens, Path(params.model.tracked_path)])
        with keeping.checkpoint_folder(top / "0") as folder:
            keeping.drop_oldest(top, params.train.unfinished_kept, params.train.unfinished_max_gib)
            keeping.size_bytes(folder)
            keeping.newest_whole(folder)

    return _seconds(steps)


def _seconds(work: Callable[[], None]) -> float:
    started = time.perf_counter()
    work()
    return time.perf_counter() - started
