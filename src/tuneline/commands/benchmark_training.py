"""`tuneline benchmark-training`: tokens/s of the train stage's loop against a plain loop, in one run."""

import argparse
from pathlib import Path
from statistics import median


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Which phase, on which tokens, how long."""
    parser.add_argument("--params", type=Path, default=Path("params.yaml"), help="the configuration to train with")
    parser.add_argument("--phase", required=True, help="a phase of the recipe, such as sft")
    parser.add_argument("--tokens", type=Path, required=True, help="what its inspect stage wrote: data/tokens/sft")
    parser.add_argument("--steps", type=int, default=80, help="steps per training; few measure the start (80)")
    parser.add_argument("--repeats", type=int, default=3, help="trainings per loop, in turn; the median counts")


def execute(arguments: argparse.Namespace) -> None:
    """Run both and print a line each."""
    from tuneline.config.params import read_params
    from tuneline.training.benchmark import compare

    params = read_params(arguments.params)
    result = compare(params, arguments.phase, arguments.tokens, arguments.steps, arguments.repeats)
    for name, timings in (("train stage", result.trainer), ("plain loop", result.plain)):
        speed = median(timing.tokens_per_second for timing in timings)
        print(f"{name:12} {speed:8,.0f} tokens/s   mean loss {timings[0].mean_loss_nats:.4f} nats")
    print(f"{'ratio':12} {result.ratio:8.3f}")
