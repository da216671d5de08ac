"""`tuneline benchmark-checkpoints`: what manifests, locks and bounds cost a training with one checkpoint a minute."""

import argparse
from pathlib import Path

MINUTES = (3, 60)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Which phase, on which tokens, how often."""
    parser.add_argument("--params", type=Path, default=Path("params.yaml"), help="the configuration to train with")
    parser.add_argument("--phase", required=True, help="a phase of the recipe, such as sft")
    parser.add_argument("--tokens", type=Path, required=True, help="what its inspect stage wrote: data/tokens/sft")
    parser.add_argument("--repeats", type=int, default=9, help="of each part; the median counts (9)")


def execute(arguments: argparse.Namespace) -> None:
    """Measure and print."""
    from tuneline.config.params import read_params
    from tuneline.training.keeping_cost import measure

    cost = measure(read_params(arguments.params), arguments.phase, arguments.tokens, arguments.repeats)
    mib = cost.checkpoint_bytes / 2**20
    print(f"a checkpoint   {cost.seal_seconds:8.4f} s   {mib:.1f} MiB, {mib / cost.seal_seconds:,.0f} MiB/s")
    print(f"a training     {cost.once_seconds:8.4f} s")
    for n_minutes in MINUTES:
        print(f"of {n_minutes:3} minutes {cost.share(n_minutes):9.3%}")
