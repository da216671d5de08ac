"""How fast a GGUF answers on this machine, one conversation at a time. Wall-clock figures, kept apart from results."""

from collections.abc import Sequence
from time import perf_counter

from tuneline.export.runtime import Runtime

N_PROMPTS = 16
N_NEW_TOKENS = 64


def measure_speed(runtime: Runtime, prompts: Sequence[Sequence[int]], load_s: float) -> dict[str, float | int]:
    """Tokens per second for reading prompts and for generating, as llama-bench separates them.

    What is generated follows a single token: each figure has a time of its own, and none is a difference of two.
    """
    read = [list(prompt) for prompt in prompts[:N_PROMPTS]]
    new_tokens = min(N_NEW_TOKENS, runtime.n_ctx_tokens - 1)
    return {
        "load_s": load_s,
        "n_threads": runtime.n_threads,
        "prompt_tokens_per_s": sum(map(len, read)) / _seconds(runtime, read, 1),
        "generation_tokens_per_s": new_tokens / _seconds(runtime, [read[0][-1:]], new_tokens),
    }


def _seconds(runtime: Runtime, prompts: Sequence[Sequence[int]], max_new_tokens: int) -> float:
    started = perf_counter()
    for prompt in prompts:
        list(runtime.generate([prompt], max_new_tokens, stop=False))
    return perf_counter() - started
