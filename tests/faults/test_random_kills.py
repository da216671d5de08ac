"""A trainer that is killed at random steps, of every method that resumes, ends with the bytes of one left alone."""

import random
import signal
from typing import Any

import pytest

from tests.faults.trainers import N_MICRO_BATCHES, Prepare, Trainers, assert_ends_as_if_never_killed, forget

KINDS: dict[str, dict[str, Any]] = {
    "lora": {"train.logging_steps": 5},
    "lora with dropout": {"lora.lora_dropout": 0.5},
    "dora": {"method": {"name": "dora", "family": "adapter"}, "lora.use_dora": True},
    "packing": {"recipe.phases.sft.packing": True},
    "early stopping": {"train.early_stopping_patience": 20, "train.eval_steps": 3},
    "full": {"method": {"name": "full", "family": "full"}, "lora": None},
}
N_KILLS_OF_A_KIND = 5  # times six kinds: 30

pytestmark = pytest.mark.filterwarnings("ignore::ResourceWarning")


def kill_somewhere(kind: str, n_kills: int, prepared: Prepare, trainers: Trainers, draw: random.Random) -> None:
    """Before micro batches that are drawn; at most `save_steps` steps (of 2 micro batches) are done again."""
    project, whole = prepared(**KINDS[kind])
    for micro_batch in draw.sample(range(1, N_MICRO_BATCHES + 1), n_kills):
        code, _ = trainers.train(project, ["signal", int(signal.SIGKILL), micro_batch])
        assert code == -signal.SIGKILL
        assert project.outputs("train@sft") == {}
        n_done = (micro_batch - 1) // 2
        newest = n_done - n_done % 2
        expected = f"continues from .checkpoints/{{}}/checkpoint-{newest}".split("{}")[1] if newest else ""
        print(f"{kind}: killed at micro batch {micro_batch} of {N_MICRO_BATCHES}")
        assert_ends_as_if_never_killed(project, whole, trainers, expected)
        forget(project)


@pytest.mark.slow
def test_a_trainer_killed_at_three_random_steps(prepared: Prepare, trainers: Trainers, draw: random.Random) -> None:
    kill_somewhere("lora", 3, prepared, trainers, draw)


@pytest.mark.faults
@pytest.mark.parametrize("kind", KINDS)
def test_a_trainer_killed_at_thirty_random_steps(
    kind: str, prepared: Prepare, trainers: Trainers, draw: random.Random
) -> None:
    kill_somewhere(kind, N_KILLS_OF_A_KIND, prepared, trainers, draw)
