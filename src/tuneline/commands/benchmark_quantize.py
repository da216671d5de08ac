"""`tuneline benchmark-quantize`: seconds of the quantise stage against one bare call of llama.cpp, in one run."""

import argparse
import tempfile
from pathlib import Path
from statistics import median


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Which types, how often, of what."""
    parser.add_argument("--quants", nargs="+", default=["q8_0", "q4_k_m"], help="types to make (q8_0 q4_k_m)")
    parser.add_argument("--repeats", type=int, default=3, help="runs of each, in turn; the median counts (3)")
    parser.add_argument(
        "--source", type=Path, help="a GGUF of 16 bits (random weights in the shapes of Llama 3.2 1B: 2.5 GB)"
    )
    parser.add_argument("--scratch", type=Path, help="folder for the files, up to 5 GB (the system's temporary folder)")


def execute(arguments: argparse.Namespace) -> None:
    """Measure and print a line per type."""
    from tuneline.benchmarks.random_gguf import LLAMA_3_2_1B, write_random_gguf
    from tuneline.export.benchmark import compare
    from tuneline.export.quantize import quant_type

    quants = [quant_type(name) for name in arguments.quants]
    with tempfile.TemporaryDirectory(prefix="tuneline-", dir=arguments.scratch) as folder:
        source = arguments.source or Path(folder) / "random.gguf"
        if arguments.source is None:
            write_random_gguf(source, LLAMA_3_2_1B, seed=0)
        for quant in quants:
            result = compare(source, Path(folder), quant, arguments.repeats)
            stage, bare = (median(run.seconds for run in runs) for runs in (result.stage, result.bare))
            runs = ", ".join(f"{a.seconds:.2f}/{b.seconds:.2f}" for a, b in zip(result.stage, result.bare, strict=True))
            ratios = f"ratio {result.ratio:.3f}   of processor time {result.cpu_ratio:.3f}"
            print(f"{quant:8} stage {stage:7.2f} s   bare call {bare:7.2f} s   {ratios}   ({runs})", flush=True)
